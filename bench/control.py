"""What reaches verifiers without a call, measured: revocations and leased limits. Run as ``python -m bench.control N``.

With a store of its own, in one process: how soon a revocation is in the set, what N live ones cost in memory and at a
start, and how often a worker asks the store for units. Prints one JSON object: figures by name, a list each.
"""

import asyncio
import gc
import os
import secrets
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from bench.machine import memory_mib
from shared.embedded_store import EmbeddedStore
from shared.rate_limit.gcra import Limit
from shared.rate_limit.lease import Admission
from shared.rate_limit.leases import Limiter
from shared.rate_limit.limits import LimitKey
from shared.revocations.entries import Kind, Revocation
from shared.revocations.feed_key import FeedKey
from shared.revocations.follower import FeedFollower
from shared.revocations.revoked import RevokedSet
from shared.revocations.writer import RevocationFeed
from shared.settings import Settings
from shared.store import connect

LIFE_S, LEEWAY_S = 3600.0, 30.0
N_REACHED = 2_000
STEADY_PER_S, STEADY_S = 500, 6
_BATCH = 5_000
Figures = dict[str, list[float]]


def token() -> Revocation:
    """One token to revoke, of our own kind of id."""
    return Revocation(Kind.TOKEN, secrets.token_bytes(16), round((time.time() + LIFE_S) * 1000))


class _Site:
    """A store, a feed key, and what is made of them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._key = FeedKey(os.urandom(32))
        self.store = connect(settings)
        self.feed = RevocationFeed(self.store, self._key, clock=time.time, max_token_life_s=LIFE_S, leeway_s=LEEWAY_S)

    def follower(self, revoked: RevokedSet) -> FeedFollower:
        """A follower that does not run yet."""
        return FeedFollower(lambda: connect(self._settings), self._key, revoked, clock=time.time)


async def reach(site: _Site) -> Figures:
    """From the call of ``revoke`` to the entry in a follower's set, one after the other."""
    revoked, took = RevokedSet(LIFE_S, LEEWAY_S), []
    follower = site.follower(revoked)
    task = asyncio.create_task(follower.follow())
    await site.feed.heartbeat()
    await follower.wait_until_following()
    for _ in range(N_REACHED):
        one = token()
        started, n_before = time.perf_counter(), len(revoked)
        writing = asyncio.create_task(site.feed.revoke(one))
        while len(revoked) == n_before:  # noqa: ASYNC110 - waking us would be part of what is measured
            await asyncio.sleep(0)
        took.append((time.perf_counter() - started) * 1000)
        await writing
    await _end(task)
    took.sort()
    return {
        "control: revoke to set p50, ms": [took[len(took) // 2]],
        "control: revoke to set p99, ms": [took[len(took) * 99 // 100]],
    }


async def million(site: _Site, count: int) -> Figures:
    """Write ``count`` live revocations, then let one follower read them all as at a start."""
    started = time.perf_counter()
    for start in range(0, count, _BATCH):
        await site.feed.revoke_many([token() for _ in range(min(_BATCH, count - start))])
    writing_s = time.perf_counter() - started
    await site.feed.heartbeat()
    gc.collect()
    before = memory_mib(os.getpid())[0]
    follower = site.follower(RevokedSet(LIFE_S, LEEWAY_S))
    started = time.perf_counter()
    task = asyncio.create_task(follower.follow())
    await follower.wait_until_following()
    replay_s = time.perf_counter() - started
    gc.collect()
    grown = memory_mib(os.getpid())[0] - before
    await _end(task)
    return {
        f"control: {count:,} live revocations, MiB a process": [grown],
        f"control: {count:,} revocations replayed, s": [replay_s],
        f"control: {count:,} revocations written, s": [writing_s],
    }


async def leases(site: _Site) -> Figures:
    """Calls of one client at a steady rate well below its limit: how many of them a question to the store buys."""
    async with Limiter(site.store, n_workers=1) as limiter:
        key_set = limiter.key_set([LimitKey("client:bench", Limit(10_000_000, 3600))])
        n_calls = 0
        started = time.perf_counter()
        while (elapsed := time.perf_counter() - started) < STEADY_S:
            while n_calls < elapsed * STEADY_PER_S:
                answer = limiter.admit(key_set)
                if answer is None:
                    answer = await limiter.acquire(key_set)
                assert isinstance(answer, Admission), "a call below the limit was refused"
                n_calls += 1
            await asyncio.sleep(0.001)
        return {"control: admitted calls for one question to the store": [n_calls / max(limiter.n_store_calls, 1)]}


async def _end(task: "asyncio.Task[None]") -> None:
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=0.5)


async def figures(count: int, var_dir: Path) -> Figures:
    """Measure all of it on a store that is up."""
    site = _Site(Settings(var_dir=var_dir))
    try:
        return {**await reach(site), **await leases(site), **await million(site, count)}
    finally:
        await site.store.aclose()


def main(count: int) -> None:
    """Start a store, measure, print."""
    with tempfile.TemporaryDirectory(prefix="flex-bench-") as folder, EmbeddedStore(Path(folder)):
        print(msgspec.json.encode(asyncio.run(figures(count, Path(folder)))).decode())


if __name__ == "__main__":
    main(int(sys.argv[1]))
