"""A served application and raw sockets, for tests that care about single bytes. Used by tests only."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.server import ServerState

from shared.http_protocol import BoundedHttpProtocol, clock_of


@dataclass
class Answer:
    """One parsed answer."""

    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """One client connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            if len(pieces) > 1:
                await asyncio.sleep(0.01)  # so that each piece is a read of its own

    async def answer(self, *, head_only: bool = False) -> Answer:
        """Read one answer (content-length or chunked, or up to the end of the connection)."""
        async with asyncio.timeout(5):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:]) if name}
            if head_only:
                body = b""
            elif headers.get("transfer-encoding") == "chunked":
                body = await self._chunks()
            elif "content-length" in headers:
                body = await self.reader.readexactly(int(headers["content-length"]))
            else:
                body = await self.reader.read()
        return Answer(int(head[0].split(" ")[1]), headers, body)

    async def _chunks(self) -> bytes:
        body = b""
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            body += await self.reader.readexactly(size)
            await self.reader.readexactly(2)
        await self.reader.readexactly(2)
        return body

    async def is_closed(self) -> bool:
        """Whether the server has closed its side and sent nothing more."""
        async with asyncio.timeout(5):
            return await self.reader.read() == b""


class RawServer:
    """An application under the bounded protocol on a free port."""

    def __init__(self, app: ASGIApp, protocol: type[BoundedHttpProtocol]) -> None:
        self.config = Config(app, http=protocol, log_config=None, proxy_headers=False, ws="none", interface="asgi3")
        self.config.load()
        self.state = ServerState()
        self.loop = asyncio.get_running_loop()
        self.clock = clock_of(self.state, self.loop)
        self.protocol = protocol
        self.port = 0
        self.clients: list[Client] = []

    @property
    def connections(self) -> set[BoundedHttpProtocol]:
        return self.state.connections

    def wait_for(self, seconds: float) -> None:
        """Let time pass for the connections."""
        self.clock.look(self.clock.now + seconds)

    async def connect(self) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        self.clients.append(client)
        ours = client.writer.get_extra_info("sockname")
        async with asyncio.timeout(5):
            while not any(connection.client == ours for connection in self.connections):
                await asyncio.sleep(0.001)
        return client

    async def settled(self) -> None:
        """Wait until what was sent has been parsed."""
        await asyncio.sleep(0.03)

    async def ask(self, raw: bytes, *more: bytes) -> Answer:
        client = await self.connect()
        await client.send(raw, *more)
        return await client.answer()


@contextlib.asynccontextmanager
async def serving(app: ASGIApp, protocol: type[BoundedHttpProtocol] = BoundedHttpProtocol) -> AsyncIterator[RawServer]:
    """Serve ``app`` until the end of the context."""
    raw = RawServer(app, protocol)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: protocol(raw.config, raw.state, {}, loop), "127.0.0.1", 0)
    raw.port = server.sockets[0].getsockname()[1]
    try:
        yield raw
    finally:
        server.close()
        for client in raw.clients:
            client.writer.close()
            with contextlib.suppress(OSError):
                await client.writer.wait_closed()
        for connection in list(raw.connections):
            connection.transport.abort()
        async with asyncio.timeout(5):
            while raw.connections or raw.state.tasks:
                await asyncio.sleep(0.005)
        raw.clock.stop()
