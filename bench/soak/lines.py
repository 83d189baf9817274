"""One connection to every worker of every host, so that what one process knows can be asked for, and told apart."""

import asyncio
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from bench.soak.site import WORKERS, Site
from bench.soak.sockets import server_of
from bench.soak.timeline import Staleness, Timeline
from bench.soak.wire import Answer, CallBroken, Connection, connect
from bench.traffic import http_request

BURST = 16
MAX_BURSTS = 40
SAMPLE_EVERY_S = 0.5
_HEALTH = http_request("GET", "/health/ready", {})
_STALENESS = re.compile(rb'"staleness_s"\s*:\s*(null|[0-9.eE+]+)')


class NotCovered(Exception):  # noqa: N818 - it says what happened
    """Some worker of a host accepted none of many connections."""


@dataclass(slots=True)
class Line:
    """A kept connection to one worker; ``worker`` is its number among those of its host."""

    host: str
    worker: str
    pid: int
    connection: Connection
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def ask(self, request: bytes) -> Answer:
        """Ask this worker. Raises CallBroken."""
        async with self._turn:
            return await self.connection.ask(request)


async def open_lines(site: Site) -> list[Line]:
    """Connect to every worker. Raises NotCovered."""
    lines: list[Line] = []
    for host in site.hosts:
        found = await _cover(site, host)
        lines += [Line(host, str(number), pid, found[pid]) for number, pid in enumerate(sorted(found), 1)]
    return lines


async def _cover(site: Site, host: str) -> dict[int, Connection]:
    found: dict[int, Connection] = {}
    port, pids = site.model_ports[host], site.pids(host)
    for _ in range(MAX_BURSTS):
        # Several at once: a worker that is busy with one leaves the next to another.
        for connection in await asyncio.gather(*(connect(port) for _ in range(BURST))):
            await connection.ask(_HEALTH)
            pid = server_of(port, connection.port, pids)
            if pid is None or pid in found:
                connection.close()
            else:
                found[pid] = connection
        if len(found) >= WORKERS:
            return found
    raise NotCovered(f"only {len(found)} of {WORKERS} workers of host {host} accepted connections")


async def watch_staleness(lines: Iterable[Line], timeline: Timeline, stop: asyncio.Event) -> None:
    """Ask every worker twice a second how old its revocations are."""
    while not stop.is_set():
        for line in lines:
            try:
                answer = await line.ask(_HEALTH)
            except CallBroken as problem:
                timeline.failed(line.host, f"health: {problem}")
                continue
            timeline.staleness.append(Staleness(round(timeline.now(), 3), line.host, line.worker, staleness_of(answer)))
        await asyncio.sleep(SAMPLE_EVERY_S)


def staleness_of(answer: Answer) -> float | None:
    """The age of the revocations that a readiness answer tells; None if it tells none."""
    found = _STALENESS.search(answer.body)
    return None if found is None or found[1] == b"null" else float(found[1])
