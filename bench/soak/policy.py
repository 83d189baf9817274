"""The last trial: a host that is cut off from the store for longer than its limit refuses with 503, in time."""

import asyncio
from dataclasses import dataclass

import msgspec

from bench.soak.lines import Line
from bench.soak.proxy import Fault
from bench.soak.site import Site
from bench.soak.timeline import Timeline
from bench.soak.wire import CallBroken

POLL_S = 0.05
TOLERANCE_S = 1.5  # a heartbeat, and what it takes to get there
HEAL_WITHIN_S = 3.0
_EXTRA_S = 12.0


class Flip(msgspec.Struct, frozen=True):
    """What one worker did: seconds after the cut until its first 503, and after the end of the cut until 200 again.

    ``expected_s`` is its limit, moved by how wrong its clock is. ``others`` are statuses that are neither.
    """

    host: str
    worker: str
    expected_s: float
    refused_after_s: float | None
    served_again_after_s: float | None
    others: list[int]

    @property
    def held(self) -> bool:
        """Whether it refused at its limit, never otherwise than with 503, and served again soon."""
        if self.refused_after_s is None or self.served_again_after_s is None or self.others:
            return False
        in_time = abs(self.refused_after_s - self.expected_s) <= TOLERANCE_S
        return in_time and self.served_again_after_s <= HEAL_WITHIN_S


@dataclass(slots=True)
class Policy:
    """Cuts one host off, with a token that stays good all the time."""

    site: Site
    timeline: Timeline
    lines: list[Line]
    request: bytes

    async def check(self, host: str, limit_s: float) -> list[Flip]:
        """Cut the host off until it refuses, then let it back."""
        expected_s = limit_s - self.site.skew_s(host)
        lines = [line for line in self.lines if line.host == host]
        began = self.timeline.now()
        with self.timeline.outage(host):
            self.site.ways[host].set(Fault.SILENCE)
            others: list[list[int]] = [[] for _ in lines]
            firsts = [
                self._until(503, line, odd, expected_s + _EXTRA_S) for line, odd in zip(lines, others, strict=True)
            ]
            refused = await asyncio.gather(*firsts)
            self.site.ways[host].set(Fault.NONE)
        again = await asyncio.gather(
            *(self._until(200, line, odd, HEAL_WITHIN_S * 2) for line, odd in zip(lines, others, strict=True))
        )
        self.timeline.mark("policy", f"{host}: cut off beyond its limit", since=began)
        return [
            Flip(host, line.worker, expected_s, at, back, odd)
            for line, at, back, odd in zip(lines, refused, again, others, strict=True)
        ]

    async def _until(self, status: int, line: Line, others: list[int], at_most_s: float) -> float | None:
        """Seconds until a worker first answers so; None if it does not. Statuses but 200 and 503 are noted."""
        began = self.timeline.now()
        while (after_s := self.timeline.now() - began) < at_most_s:
            try:
                found = (await line.ask(self.request)).status
            except CallBroken:
                return None
            if found not in {200, 503}:
                others.append(found)
            if found == status:
                return round(after_s, 3)
            await asyncio.sleep(POLL_S)
        return None
