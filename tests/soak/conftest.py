"""What the soak's tests share: an issuer, and little servers that leave nothing open."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.tokens import Issuer

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(scope="session")
def issuer(rsa_key) -> Issuer:
    """A private key with its kid."""
    return Issuer(rsa_key)


@contextlib.asynccontextmanager
async def serving(port: int, serve: Serve) -> AsyncIterator[None]:
    """Serve on a port of the loopback while the block runs; every connection is over at its end."""
    tasks: set[asyncio.Task] = set()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await serve(reader, writer)
        writer.transport.abort()

    server = await asyncio.start_server(one, "127.0.0.1", port)
    try:
        yield
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.01)  # lets the transports close
