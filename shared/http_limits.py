"""The bounds of a client connection, and the one coarse clock that enforces the times among them."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one process's connections; bytes, counts and seconds.

    ``first_byte``: a new connection that says nothing. ``head``: from the first byte of a request to the end of its
    headers. ``body``: between two pieces of a body. ``write``: a client that does not read its answer. ``linger``:
    how long a refused client may go on sending before it is cut off.
    """

    max_head_bytes: int = 16 * 1024
    max_url_bytes: int = 8 * 1024
    max_headers: int = 100
    max_connections: int = 2000
    max_pipelined: int = 32
    max_linger_bytes: int = 64 * 1024 * 1024
    first_byte_timeout_s: float = 20.0
    head_timeout_s: float = 10.0
    body_timeout_s: float = 20.0
    keep_alive_timeout_s: float = 75.0
    write_timeout_s: float = 60.0
    linger_timeout_s: float = 5.0


class Timed(Protocol):
    """Something with a deadline in event loop time (a protocol, since connections import this module)."""

    deadline: float

    def on_deadline(self, now: float) -> None:
        """Act on the deadline, which has passed."""


class ConnectionClock:
    """One coarse clock and one timer for all connections of a server process.

    ``now`` is the event loop's time (seconds) at the last look, at most ``tick_s`` old while there are connections.
    A request so pays an addition where uvicorn starts and cancels a timer.
    """

    tick_s = 0.5

    def __init__(self, loop: asyncio.AbstractEventLoop, connections: Collection[Timed]) -> None:
        self.now = loop.time()
        self._loop = loop
        self._connections = connections
        self._timer: asyncio.TimerHandle | None = None
        self._default_headers: list[tuple[bytes, bytes]] = []
        self._default_head = b""

    def start(self) -> None:
        """Begin to tick, if it does not yet; it stops by itself with the last connection."""
        if self._timer is None:
            self.now = self._loop.time()
            self._timer = self._loop.call_later(self.tick_s, self._tick)

    def stop(self) -> None:
        """Stop ticking now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self.look(self._loop.time())
        self._timer = self._loop.call_later(self.tick_s, self._tick) if self._connections else None

    def look(self, now: float) -> None:
        """Let every connection whose deadline has passed act on it."""
        self.now = now
        for connection in tuple(self._connections):
            if connection.deadline <= now:
                connection.on_deadline(now)

    def default_head(self, headers: list[tuple[bytes, bytes]]) -> bytes:
        """Encode uvicorn's default headers; again only when uvicorn has made a new list (each second, for the date)."""
        if headers is not self._default_headers:
            self._default_headers = headers
            self._default_head = b"".join(b"%b: %b\r\n" % pair for pair in headers)
        return self._default_head
