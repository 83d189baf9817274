"""What breaks in a run: the store dies and freezes, ways go silent, are reset and get slow, fetches fail."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from bench.soak.proxy import Fault
from bench.soak.site import AUTH, Site
from bench.soak.timeline import Timeline

HEALED_WITHIN_S = 20.0
Episode = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Plan:
    """How long each kind of fault lasts at most, and the rest between two; seconds. ``only``: which (none: all)."""

    silence_s: float = 15.0
    freeze_s: float = 8.0
    down_s: float = 2.0
    slow_s: float = 6.0
    fetches_fail_s: float = 30.0
    rest_s: float = 4.0
    only: tuple[str, ...] = ()


QUICK = Plan(
    silence_s=3.0,
    freeze_s=2.0,
    down_s=0.5,
    rest_s=0.5,
    only=("store killed", "store frozen", "auth: store reset", "a: store reset", "b: store silent"),
)


@dataclass(slots=True)
class Faults:
    """Lets one thing break after another, in an order that the ``seed`` decides; every kind before any comes again."""

    site: Site
    timeline: Timeline
    plan: Plan
    seed: int
    counts: Counter[str] = field(default_factory=Counter)

    async def run(self, stop: asyncio.Event) -> None:
        """Break and heal until told to stop; when it returns, everything is whole."""
        chance = random.Random(self.seed)
        deck: list[tuple[str, Episode]] = []
        while not stop.is_set():
            if not deck:
                deck = self._deck()
                chance.shuffle(deck)
            kind, episode = deck.pop()
            began = self.timeline.now()
            await episode(0.3 + 0.7 * chance.random())
            self.counts[kind] += 1
            self.timeline.mark("fault", kind, since=began)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.plan.rest_s * (0.5 + chance.random())):
                    await stop.wait()

    def _deck(self) -> list[tuple[str, Episode]]:
        deck: list[tuple[str, Episode]] = [("store killed", self._kill), ("store frozen", self._freeze)]
        for host in (AUTH, *self.site.hosts):
            deck.append((f"{host}: store silent", lambda share, host=host: self._silence(host, share)))  # type: ignore[misc]
            deck.append((f"{host}: store reset", lambda share, host=host: self._reset(host, share)))  # type: ignore[misc]
            deck.append((f"{host}: store slow", lambda share, host=host: self._slow(host, share)))  # type: ignore[misc]
        first, second = self.site.hosts
        deck.append((f"{first}: issuer answers 503", lambda share: self._fetches(first, Fault.ERRORS, share)))
        deck.append((f"{second}: issuer silent", lambda share: self._fetches(second, Fault.SILENCE, share)))
        return [(kind, episode) for kind, episode in deck if not self.plan.only or kind in self.plan.only]

    @property
    def _everyone(self) -> tuple[str, ...]:
        return (AUTH, *self.site.hosts)

    async def _kill(self, share: float) -> None:
        with self.timeline.outage(*self._everyone):
            await self.site.store.kill()
            await asyncio.sleep(share * self.plan.down_s)
            await self.site.store.start()

    async def _freeze(self, share: float) -> None:
        with self.timeline.outage(*self._everyone):
            self.site.store.freeze()
            try:
                await asyncio.sleep(share * self.plan.freeze_s)
            finally:
                self.site.store.thaw()
            await self._until_answering()

    async def _until_answering(self) -> None:
        async with asyncio.timeout(HEALED_WITHIN_S):
            while not await self.site.store.answers():  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.01)

    async def _silence(self, host: str, share: float) -> None:
        with self.timeline.outage(host):
            await self._with(Fault.SILENCE, host, share * self.plan.silence_s)

    async def _reset(self, host: str, share: float) -> None:
        """Connections break and may be made again at once: nobody is cut off, and the bound holds."""
        for _ in range(1 + round(4 * share)):
            self.site.ways[host].reset()
            await asyncio.sleep(0.2)

    async def _slow(self, host: str, share: float) -> None:
        self.site.ways[host].set(Fault.DELAY, delay_s=0.02 + 0.05 * share)
        await asyncio.sleep(share * self.plan.slow_s)
        self.site.ways[host].set(Fault.NONE)

    async def _with(self, fault: Fault, host: str, seconds: float) -> None:
        self.site.ways[host].set(fault)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.site.ways[host].set(Fault.NONE)

    async def _fetches(self, host: str, fault: Fault, share: float) -> None:
        """All fetches of one verifier fail, for far longer than it may cache: its whole budget and more."""
        self.site.issuer_proxy.set(fault, host)
        self.site.issuer_proxy.reset(host)
        try:
            await asyncio.sleep(max(share * self.plan.fetches_fail_s, 5.0))
        finally:
            self.site.issuer_proxy.set(Fault.NONE, host)
