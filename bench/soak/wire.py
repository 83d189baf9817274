"""A lean HTTP/1.1 client of one kept-alive connection, so that the harness leaves the cores to the servers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import cast

HEADER_END = b"\r\n\r\n"
LENGTH = b"\r\ncontent-length:"
ANSWER_WITHIN_S = 10.0


class CallBroken(Exception):  # noqa: N818 - it says what happened
    """No whole answer came; the text is one fixed word."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer; ``head`` is its status line and headers, in lower case."""

    status: int
    head: bytes
    body: bytes


class Connection(asyncio.Protocol):
    """One connection; one request at a time. Open it with :func:`connect`."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._waiting: asyncio.Future[Answer] | None = None

    @property
    def open(self) -> bool:
        """Whether it can take another request."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def port(self) -> int:
        """Our own port: tells the connection apart from all others."""
        assert self._transport is not None
        return cast("int", self._transport.get_extra_info("sockname")[1])

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio names it
        """Fail whoever waits."""
        self._transport = None
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(CallBroken("connection_lost"))

    def data_received(self, data: bytes) -> None:
        """Collect one answer."""
        self._received += data
        size = self._received.find(HEADER_END)
        if size < 0:
            return
        head = self._received[: size + 2].lower()
        at = head.find(LENGTH)
        length = int(head[at + len(LENGTH) : head.index(b"\r", at + 2)]) if at >= 0 else 0
        body = self._received[size + 4 :]
        if len(body) < length:
            return
        self._received = b""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(Answer(int(head[9:12]), head, body))

    async def ask(self, request: bytes) -> Answer:
        """Send one request and wait for its answer. Raises CallBroken; the connection is of no more use then."""
        if self._transport is None or self._transport.is_closing():
            raise CallBroken("connection_lost")
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        timer = asyncio.get_running_loop().call_later(ANSWER_WITHIN_S, self._give_up)
        try:
            return await self._waiting
        finally:
            timer.cancel()

    def _give_up(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(CallBroken("no_answer"))
        self.close()

    def close(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.close()


async def connect(port: int, *, source: str = "127.0.0.1") -> Connection:
    """Connect to a port of the loopback, from one of its addresses. Raises CallBroken."""
    try:
        _, connection = await asyncio.get_running_loop().create_connection(
            Connection, "127.0.0.1", port, local_addr=(source, 0) if source != "127.0.0.1" else None
        )
    except OSError:
        raise CallBroken("not_connected") from None
    return connection


class Pool:
    """Connections to one port: whichever is idle is used, and one more is opened where none is."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[Connection] = []

    async def fill(self, count: int) -> None:
        """Open ``count`` connections at once, so that every worker of the server gets some."""
        self._idle += await asyncio.gather(*(connect(self._port) for _ in range(count)))

    @contextlib.asynccontextmanager
    async def one(self) -> AsyncIterator[Connection]:
        """Lend a connection; it comes back unless it broke."""
        while self._idle and not self._idle[0].open:
            self._idle.pop(0)
        # The one that rested longest: so all are used in turn, and with them all workers.
        connection = self._idle.pop(0) if self._idle else await connect(self._port)
        try:
            yield connection
        finally:
            if connection.open:
                self._idle.append(connection)

    async def ask(self, request: bytes) -> Answer:
        """Ask over any connection. Raises CallBroken."""
        async with self.one() as connection:
            return await connection.ask(request)

    def close(self) -> None:
        """End all idle connections."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()
