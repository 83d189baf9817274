"""Our own load generator for machines without wrk: closed loop, many kept-alive connections, one event loop.

It is Python and so adds 20 to 30 microseconds to each latency; the report names it. Run by ``bench.generator``.
"""

import asyncio
import sys
import time
from pathlib import Path
from typing import cast

import msgspec

from bench.spread import percentile

HEADER_END = b"\r\n\r\n"
LENGTH = b"content-length: "


class Requests:
    """Next request of the whole load: warm ones in turn, and a cold one every ``cold_every``-th time."""

    def __init__(self, warm: list[bytes], cold: list[bytes], cold_every: int) -> None:
        self._warm, self._cold, self._cold_every = warm, cold, cold_every
        self._sent = 0
        self.ran_out = 0

    def take(self) -> bytes:
        """Give one request."""
        self._sent += 1
        if self._cold_every and self._sent % self._cold_every == 0:
            turn = self._sent // self._cold_every
            if turn <= len(self._cold):
                return self._cold[turn - 1]
            self.ran_out += 1
        return self._warm[self._sent % len(self._warm)]


class Tally:
    """What the connections of one load saw so far; latencies in seconds."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.failed = dict.fromkeys(("connect", "read", "write", "status", "timeout"), 0)


class Connection(asyncio.Protocol):
    """One connection that asks again as soon as it is answered, until ``until`` on the monotonic clock."""

    def __init__(self, requests: Requests, tally: Tally, until: float) -> None:
        self._requests, self._tally, self._until = requests, tally, until
        self._transport: asyncio.Transport | None = None
        self._begun = 0.0
        self._received = b""
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the first time."""
        self._transport = cast("asyncio.Transport", transport)
        self._ask()

    def _ask(self) -> None:
        assert self._transport is not None
        self._begun = time.perf_counter()
        self._transport.write(self._requests.take())

    def data_received(self, received: bytes) -> None:
        """Collect one answer; note it and ask again when it is whole."""
        self._received += received
        head_size = self._received.find(HEADER_END)
        if head_size < 0:
            return
        head = self._received[: head_size + 2].lower()
        at = head.find(LENGTH)
        size = int(head[at + len(LENGTH) : head.index(b"\r", at)]) if at >= 0 else 0
        if len(self._received) < head_size + 4 + size:
            return
        now = time.perf_counter()
        self._tally.seconds.append(now - self._begun)
        if not head.startswith(b"http/1.1 200"):
            self._tally.failed["status"] += 1
        self._received = b""
        if now < self._until:
            self._ask()
        else:
            assert self._transport is not None
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio names it
        """Note a connection that the server ended before the time was over."""
        if time.perf_counter() < self._until:
            self._tally.failed["read"] += 1
        if not self.closed.done():
            self.closed.set_result(None)


def read_requests(path: Path) -> list[bytes]:
    """Read what ``bench.generator.write_requests`` wrote."""
    content, at, found = path.read_bytes(), 0, []
    while at < len(content):
        start = content.index(b"\n", at) + 1
        at = start + int(content[at : start - 1])
        found.append(content[start:at])
    return found


async def load(port: int, connections: int, seconds: float, requests: Requests) -> dict[str, object]:
    """Load ``127.0.0.1:port`` and give the figures that ``bench.generator.Outcome`` names."""
    tally, started = Tally(), time.perf_counter()
    loop = asyncio.get_running_loop()
    protocols = []
    for _ in range(connections):
        _, protocol = await loop.create_connection(
            lambda: Connection(requests, tally, started + seconds), "127.0.0.1", port
        )
        protocols.append(protocol)
    await asyncio.wait([protocol.closed for protocol in protocols], timeout=seconds + 30)
    tally.failed["timeout"] += sum(not protocol.closed.done() for protocol in protocols)
    micros = [s * 1e6 for s in tally.seconds] or [0.0]
    return {
        "n": len(tally.seconds),
        "duration_us": (time.perf_counter() - started) * 1e6,
        "p50_us": percentile(micros, 0.50),
        "p99_us": percentile(micros, 0.99),
        "max_us": max(micros),
        "ran_out": requests.ran_out,
        "failed": tally.failed,
    }


def main(arguments: list[str]) -> None:
    """Arguments: port, connections, seconds, warm file, cold file or ``-``, ``cold_every``."""
    import uvloop  # noqa: PLC0415 - the tests of the parts above need no uvloop

    port, connections, seconds, warm, cold, cold_every = arguments
    cold_requests = [] if cold == "-" else read_requests(Path(cold))
    requests = Requests(read_requests(Path(warm)), cold_requests, int(cold_every))
    outcome = uvloop.run(load(int(port), int(connections), float(seconds), requests))
    print("@@" + msgspec.json.encode(outcome).decode())


if __name__ == "__main__":
    main(sys.argv[1:])
