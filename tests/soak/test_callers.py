"""Good callers use their tokens just as clients of ``flex_client`` do."""

import json

import pytest

from bench.children import free_port
from bench.soak.callers import token_after_401
from flex_client import ClientCredentials, TokenError
from tests.soak.conftest import serving


class TokenEndpoint:
    """Gives a new token for every request, or refuses."""

    def __init__(self) -> None:
        self.port = free_port()
        self.n_tokens = 0
        self.refuses = False

    async def serve(self, reader, writer):
        while await reader.readuntil(b"\r\n\r\n"):
            self.n_tokens += 1
            answer = {"access_token": f"token-{self.n_tokens}", "token_type": "Bearer", "expires_in": 60}
            body = b"{}" if self.refuses else json.dumps(answer).encode()
            status = 503 if self.refuses else 200
            writer.write(
                b"HTTP/1.1 %d -\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % (status, len(body)) + body
            )
            await writer.drain()
            return


@pytest.fixture
async def endpoint():
    """A token endpoint and nothing else."""
    made = TokenEndpoint()
    async with serving(made.port, made.serve):
        yield made


@pytest.fixture
def client(endpoint) -> ClientCredentials:
    """A client of it."""
    return ClientCredentials(f"http://127.0.0.1:{endpoint.port}/oauth2/token", "client", "secret")


async def test_a_refused_token_is_replaced_once_for_all_its_callers(endpoint, client):
    """The second caller with the same refused token gets what the first one fetched."""
    refused = await client.access_token_async()
    assert await token_after_401(client, refused) == "token-2"
    assert await token_after_401(client, refused) == "token-2"
    assert await client.access_token_async() == "token-2"
    assert endpoint.n_tokens == 2


async def test_without_a_newer_token_the_refusal_stands(endpoint, client):
    """The caller is told, and the call counts as failed."""
    refused = await client.access_token_async()
    endpoint.refuses = True
    with pytest.raises(TokenError):
        await token_after_401(client, refused)
