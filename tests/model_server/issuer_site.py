"""A real web server on the loopback that publishes keys well, badly, slowly or not at all."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

from tests.tokens import compact

METADATA = "/.well-known/oauth-authorization-server"
OPENID = "/.well-known/openid-configuration"
JWKS = "/jwks"
Answer = Callable[[asyncio.StreamWriter, dict[str, str]], Awaitable[None]]


class IssuerSite:
    """``answers`` maps a path to how it is answered; ``n_requests`` counts them, ``headers`` keeps the last ones."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.n_requests: Counter[str] = Counter()
        self.headers: dict[str, dict[str, str]] = {}
        self.url = ""
        self._writers: set[asyncio.StreamWriter] = set()

    def publish(self, *jwks: dict, **headers: str) -> None:
        """Behave as an issuer should, with an entity tag that follows the content."""
        self.answers[METADATA] = plain(compact({"issuer": self.url, "jwks_uri": self.url + JWKS}))
        self.answers[JWKS] = tagged(compact({"keys": list(jwks)}), **headers)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                first, *lines = head.strip().split("\r\n")
                path = first.split(" ")[1]
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                self.n_requests[path] += 1
                self.headers[path] = headers
                await self.answers.get(path, plain(b"nothing", status=404))(writer, headers)
                await writer.drain()
        writer.close()

    def close_connections(self) -> None:
        for writer in self._writers:
            writer.close()


@contextlib.asynccontextmanager
async def running_site() -> AsyncIterator[IssuerSite]:
    """A site on a free port, empty at first."""
    site = IssuerSite()
    server = await asyncio.start_server(site.serve, "127.0.0.1", 0)
    site.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield site
    finally:
        server.close()
        site.close_connections()


def plain(body: bytes, status: int = 200, **headers: str) -> Answer:
    """One whole answer."""

    async def answer(writer: asyncio.StreamWriter, _request: dict[str, str]) -> None:
        writer.write(_head(status, {"content-length": str(len(body))} | headers) + body)

    return answer


def tagged(body: bytes, **headers: str) -> Answer:
    """An answer with an entity tag, or 304 to whoever holds it already."""
    tag = f'"{hash(body) & 0xFFFFFFFF:x}"'

    async def answer(writer: asyncio.StreamWriter, request: dict[str, str]) -> None:
        if request.get("if-none-match") == tag:
            writer.write(_head(304, {"etag": tag} | headers))
        else:
            writer.write(_head(200, {"content-length": str(len(body)), "etag": tag} | headers) + body)

    return answer


async def hang(_writer: asyncio.StreamWriter, _request: dict[str, str]) -> None:
    """Say nothing for ever."""
    await asyncio.sleep(3600)


async def drip(writer: asyncio.StreamWriter, _request: dict[str, str]) -> None:
    """Send one byte after the other, fast enough for every per-read time-out."""
    writer.write(_head(200, {"content-length": "100000"}))
    for _ in range(100_000):
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.05)


async def flood(writer: asyncio.StreamWriter, _request: dict[str, str]) -> None:
    """Send without an end and without a length."""
    writer.write(_head(200, {"connection": "close"}))
    while True:
        writer.write(b" " * 65_536)
        await writer.drain()


async def hang_up(writer: asyncio.StreamWriter, _request: dict[str, str]) -> None:
    """Close without a word."""
    writer.close()


def redirect(to: str) -> Answer:
    return plain(b"", status=302, location=to)


def _head(status: int, headers: dict[str, str]) -> bytes:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode()
