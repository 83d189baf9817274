"""A TCP proxy that can fail as networks do: silence, resets, delay; and, for HTTP, answers that are errors.

Each connection belongs to a party; a fault holds for one party, on connections that are there and on new ones. Silence
keeps what was sent and delivers it when it ends, as TCP does; only a connect succeeds where a real network's would not.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum

CHUNK = 65_536
ERROR_ANSWER = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
Identify = Callable[[int], Awaitable[str]]
"""Gives the party of a new connection by its port."""


class Fault(StrEnum):
    """What is wrong with a party's way."""

    NONE = "none"
    SILENCE = "silence"  # nothing arrives in either direction
    REFUSE = "refuse"  # every connection is reset
    DELAY = "delay"  # everything arrives later
    ERRORS = "errors"  # HTTP: 503 to everything


@dataclass(slots=True)
class Way:
    """One party's way through the proxy."""

    fault: Fault = Fault.NONE
    delay_s: float = 0.0
    clear: asyncio.Event = field(default_factory=asyncio.Event)
    writers: set[asyncio.StreamWriter] = field(default_factory=set)
    n_connections: int = 0


class Proxy:
    """Listens on ``port`` and forwards to ``target``, both on the loopback. Without ``identify`` all are one party."""

    def __init__(self, port: int, target: int, identify: Identify | None = None) -> None:
        self.port = port
        self._target = target
        self._identify = identify
        self._ways: dict[str, Way] = {}
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begin to listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def stop(self) -> None:
        """End all connections and stop listening."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # an aborted transport closes in the next turn of the loop

    def way(self, party: str = "") -> Way:
        """One party's way."""
        if party not in self._ways:
            self._ways[party] = Way()
            self._ways[party].clear.set()
        return self._ways[party]

    def set(self, fault: Fault, party: str = "", *, delay_s: float = 0.0) -> None:
        """Let a fault begin, or end (Fault.NONE), for one party."""
        way = self.way(party)
        way.fault, way.delay_s = fault, delay_s
        if fault is Fault.SILENCE:
            way.clear.clear()
        else:
            way.clear.set()
        if fault in {Fault.REFUSE, Fault.ERRORS}:
            self.reset(party)

    def reset(self, party: str = "") -> int:
        """Reset the connections of one party that are there now; gives how many."""
        writers = list(self.way(party).writers)
        for writer in writers:
            _abort(writer)
        return len(writers)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            party = await self._identify(writer.get_extra_info("peername")[1]) if self._identify else ""
            await self._serve(self.way(party), reader, writer)
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            self._tasks.discard(task)

    async def _serve(self, way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        way.n_connections += 1
        if way.fault is Fault.REFUSE:
            _abort(writer)
            return
        if way.fault is Fault.ERRORS:
            await reader.read(CHUNK)
            writer.write(ERROR_ANSWER)
            writer.close()
            return
        await way.clear.wait()
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        way.writers |= {writer, back}
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(_pump(way, reader, back))
                both.create_task(_pump(way, there, writer))
        finally:
            way.writers -= {writer, back}
            writer.transport.abort()
            back.transport.abort()


def _abort(writer: asyncio.StreamWriter) -> None:
    """End a connection with a reset instead of a polite end."""
    end: socket.socket | None = writer.get_extra_info("socket")
    if end is not None:
        with contextlib.suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _pump(way: Way, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Forward in one direction until either end is gone, then end the other."""
    with contextlib.suppress(OSError):
        while data := await source.read(CHUNK):
            await way.clear.wait()
            if way.delay_s:
                await asyncio.sleep(way.delay_s)
            sink.write(data)
            await sink.drain()
    if not sink.transport.is_closing():
        sink.close()
