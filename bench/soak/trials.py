"""Trials of revocation: from its acknowledgement to the last call that a worker still served, at every worker.

A trial calls every worker back to back with one throw-away token while the token is revoked, and goes on until all
refuse it. Later the token is shown to the workers again: once dead, it must stay dead.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from bench.soak.lines import Line
from bench.soak.timeline import Timeline
from bench.soak.wire import CallBroken
from bench.traffic import Row, json_request, record

FAST_EVERY_S = 0.002
SLOW_EVERY_S = 0.05
FAST_FOR_S = 1.5
GIVE_UP_AFTER_S = 120.0
GRAVES = 400
Revoke = Callable[[], Awaitable[float]]
"""Revokes, and gives when that was acknowledged on the timeline's clock."""


class Reach(msgspec.Struct, frozen=True):
    """How a revocation reached one worker; times in seconds of the timeline.

    ``last_served_at`` is when the last call that was still served had been sent, None if none was after the
    acknowledgement; ``due`` is until when that was allowed; ``refused`` says whether it was refused in the end.
    """

    kind: str
    host: str
    worker: str
    acked_at: float
    last_served_at: float | None
    due: float
    refused: bool

    @property
    def reach_s(self) -> float:
        """Seconds from the acknowledgement to the last call that was served; 0 if none was."""
        return 0.0 if self.last_served_at is None else self.last_served_at - self.acked_at

    @property
    def late(self) -> bool:
        """Whether the token was served when it must not be."""
        return not self.refused or (self.last_served_at is not None and self.last_served_at > self.due)


@dataclass(slots=True)
class Watched:
    """What one worker did with one token so far."""

    line: Line
    served_at: float | None = None
    refused: bool = False


@dataclass(slots=True)
class Trials:
    """All trials of a run. ``rows`` are what is asked about."""

    lines: Sequence[Line]
    timeline: Timeline
    path: str
    rows: Sequence[Row]
    reaches: list[Reach] = field(default_factory=list)
    given_up: int = 0
    n_ghost_calls: int = 0
    _graves: list[tuple[bytes, float]] = field(default_factory=list)
    _open: set[asyncio.Task[None]] = field(default_factory=set)

    def request(self, token: str) -> bytes:
        """A call with a token."""
        return json_request(self.path, token, record(0, self.rows[0]))

    async def served_everywhere(self, token: str) -> bool:
        """Whether every worker takes the token, as it must before it is revoked; a refusal is a failed good call."""
        request, taken = self.request(token), True
        for line in self.lines:
            try:
                status = (await line.ask(request)).status
            except CallBroken as problem:
                self.timeline.failed(line.host, f"before a revocation: {problem}")
                return False
            if status != 200:
                self.timeline.failed(line.host, f"before a revocation: status {status}")
                taken = False
        return taken

    async def hold(self, kind: str, token: str, revoke: Revoke) -> None:
        """Revoke a token that was just issued and follow it; returns when the acknowledgement is there."""
        if not await self.served_everywhere(token):
            return
        await self.follow(kind, token, revoke)

    async def follow(self, kind: str, token: str, revoke: Revoke) -> None:
        """Revoke, and watch in the background until every worker refuses. ``revoke`` may raise; then nothing counts."""
        watched = [Watched(line) for line in self.lines]
        acked: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._watch(kind, self.request(token), watched, acked))
        self._open.add(task)
        task.add_done_callback(self._open.discard)
        try:
            acked.set_result(await revoke())
        except BaseException:
            task.cancel()
            raise

    async def finish(self) -> None:
        """Wait for the trials that are still open."""
        if self._open:
            await asyncio.wait(self._open, timeout=GIVE_UP_AFTER_S)

    async def _watch(self, kind: str, request: bytes, watched: list[Watched], acked: asyncio.Future[float]) -> None:
        await asyncio.gather(*(self._watch_one(request, one, acked) for one in watched))
        at, now = acked.result(), self.timeline.now()
        for one in watched:
            after = one.served_at if one.served_at is not None and one.served_at > at else None
            self._note(kind, one.line, at, after, refused=one.refused)
        self._graves.append((request, at))
        del self._graves[:-GRAVES]
        if not all(one.refused for one in watched):
            self.given_up += 1
            self.timeline.mark("late", f"{kind} still served {now - at:.1f} s after its revocation")

    async def _watch_one(self, request: bytes, one: Watched, acked: asyncio.Future[float]) -> None:
        while True:
            sent_at = self.timeline.now()
            try:
                served = (await one.line.ask(request)).status == 200
            except CallBroken as problem:
                self.timeline.failed(one.line.host, f"in a trial: {problem}")
                return
            if served:
                one.served_at = sent_at
            age_s = sent_at - acked.result() if acked.done() else 0.0
            if acked.done() and not served and sent_at > acked.result():
                one.refused = True
                return
            if age_s > GIVE_UP_AFTER_S:
                return
            await asyncio.sleep(FAST_EVERY_S if age_s < FAST_FOR_S else SLOW_EVERY_S)

    async def haunt(self, stop: asyncio.Event, rate: float) -> None:
        """Show dead tokens to random workers for as long as the run lasts; being served again is being late."""
        chance = random.Random(2)
        while not stop.is_set():
            await asyncio.sleep(1 / rate)
            if not self._graves:
                continue
            (request, acked_at), line = chance.choice(self._graves), chance.choice(self.lines)
            sent_at = self.timeline.now()
            try:
                served = (await line.ask(request)).status == 200
            except CallBroken as problem:
                self.timeline.failed(line.host, f"with a dead token: {problem}")
                continue
            self.n_ghost_calls += 1
            if served:
                self._note("ghost", line, acked_at, sent_at, refused=True)
                self.timeline.mark("late", f"a dead token was served by host {line.host}")

    def _note(self, kind: str, line: Line, acked_at: float, served_at: float | None, *, refused: bool) -> None:
        due = self.timeline.due(line.host, acked_at)
        self.reaches.append(Reach(kind, line.host, line.worker, acked_at, served_at, due, refused))

    def settled(self) -> list[Reach]:
        """All reaches with their final bounds: an outage that still went on when one was noted has ended."""
        return [msgspec.structs.replace(one, due=self.timeline.due(one.host, one.acked_at)) for one in self.reaches]
