"""The faults of the ways: each does what its name says, to its party only, and heals."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from bench.children import free_port
from bench.soak.proxy import Fault, Proxy
from bench.soak.sockets import client_of, server_of
from tests.soak.conftest import serving

IMPATIENT_S = 0.15


@pytest.fixture
async def echo() -> AsyncIterator[int]:
    """A server that says everything back."""

    async def serve(reader, writer):
        while data := await reader.read(100):
            writer.write(data)

    port = free_port()
    async with serving(port, serve):
        yield port


@pytest.fixture
async def proxy(echo) -> AsyncIterator[Proxy]:
    """A proxy in front of it; connections from even ports belong to party "even"."""

    async def party(port: int) -> str:
        return "even" if port % 2 == 0 else "odd"

    made = Proxy(free_port(), echo, party)
    await made.start()
    yield made
    await made.stop()


async def joined(proxy: Proxy) -> tuple[str, asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection through the proxy, with its party."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    return "even" if writer.get_extra_info("sockname")[1] % 2 == 0 else "odd", reader, writer


async def heard(reader: asyncio.StreamReader) -> bytes:
    """What arrives soon; nothing if it does not."""
    try:
        async with asyncio.timeout(IMPATIENT_S):
            return await reader.read(100)
    except TimeoutError:
        return b""


async def test_silence_keeps_what_was_sent_and_delivers_it_when_it_ends(proxy):
    """As TCP does after a partition, on connections that were there and on new ones."""
    party, reader, writer = await joined(proxy)
    writer.write(b"one")
    assert await heard(reader) == b"one"
    proxy.set(Fault.SILENCE, party)
    writer.write(b"two")
    assert await heard(reader) == b""
    proxy.set(Fault.NONE, party)
    assert await heard(reader) == b"two"
    writer.close()


async def test_a_fault_holds_for_one_party_only(proxy):
    """The other one's calls go through."""
    party, reader, writer = await joined(proxy)
    proxy.set(Fault.SILENCE, "odd" if party == "even" else "even")
    writer.write(b"still here")
    assert await heard(reader) == b"still here"
    writer.close()


async def test_a_reset_ends_connections_and_new_ones_work(proxy):
    """Nothing is kept of a connection that was reset."""
    party, reader, writer = await joined(proxy)
    writer.write(b"one")
    await heard(reader)
    assert proxy.reset(party) == 2  # both ends
    with pytest.raises(ConnectionResetError):
        await reader.read(1)
    writer.close()
    _, reader, writer = await joined(proxy)
    writer.write(b"again")
    assert await heard(reader) == b"again"
    writer.close()


async def test_errors_are_an_http_answer(proxy):
    """503, whatever was asked."""
    for party in ("even", "odd"):
        proxy.set(Fault.ERRORS, party)
    _, reader, writer = await joined(proxy)
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    assert (await heard(reader)).startswith(b"HTTP/1.1 503 ")
    writer.close()


async def test_both_ends_of_a_connection_are_found_by_process(echo):
    """Here both are ours; somebody else's process has neither."""
    import os

    reader, writer = await asyncio.open_connection("127.0.0.1", echo)
    writer.write(b"x")
    await reader.read(1)
    port = writer.get_extra_info("sockname")[1]
    assert server_of(echo, port, [1, os.getpid()]) == os.getpid()
    assert client_of(echo, port, [1, os.getpid()]) == os.getpid()
    assert server_of(echo, port, []) is None
    writer.close()
