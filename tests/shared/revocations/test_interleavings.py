"""Nothing is ever missed: disconnects, killed stores, trimming, emptied stores and failovers that lost writes, in any
order, and at the end the set is the truth.

The truth is what the final store holds. A follower that ran all the time also keeps what the store has lost since it
saw it (a revocation is never taken back), so it is compared from both sides; one that starts at the end must be equal.
"""

import asyncio
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.embedded_store import EmbeddedStore
from shared.revocations.entries import client_revoked
from shared.revocations.follower import FeedFollower, State
from shared.revocations.revoked import RevokedSet
from shared.revocations.writer import RevocationFeed
from tests.shared.revocations.conftest import LEEWAY_S, LIFE_S, Site, held_tokens, new_set, until, until_fresh


async def truth(site: Site) -> set[bytes]:
    """The tokens that the store holds and that somebody might still take."""
    now_ms = site.clock() * 1000
    return {entry.key for entry in await site.entries() if entry.time_ms > now_ms}


async def check(site: Site, feed: RevocationFeed, running: FeedFollower, held: RevokedSet, ever: set[bytes]) -> None:
    """Compare a running and a new follower with the store; only tokens beyond their end may be in one and not the other.

    The writer goes on beating meanwhile, as it always does: who needs longer than a second is not told in vain.
    """
    await attempt(lambda: site.beat(feed))
    beating = asyncio.create_task(feed.keep_beating(0.1))
    fresh = new_set()
    try:
        await until_fresh(running)
        async with site.following(fresh) as follower:
            await until_fresh(follower)
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
    wanted, stored = await truth(site), {entry.key for entry in await site.entries()}
    assert wanted <= held_tokens(held) <= ever
    assert wanted <= held_tokens(fresh) <= stored


class History:
    """One run: a writer, a follower, and what is done to the store between them."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.feed = site.feed()
        self.ever: set[bytes] = set()
        self.held = new_set()

    async def write(self, n_entries: int) -> None:
        tokens = [self.site.token() for _ in range(n_entries)]
        await self.feed.revoke_many(tokens)
        self.ever |= {token.key for token in tokens}

    async def do(self, step: str, number: int) -> None:
        site = self.site
        if step == "write":
            await self.write(number)
        elif step == "other writer":
            self.feed = site.feed()
            await self.write(number)
        elif step == "cut":
            await site.cut()
        elif step == "kill":
            os.kill((await site.client.info("server"))["process_id"], signal.SIGKILL)
            await until(lambda: not site.store.is_running())
            site.store.attach()
        elif step == "beat":
            await site.beat(self.feed)
        elif step == "save":
            await site.save()
        elif step == "lose writes":
            await site.lose_writes()
            self.feed = site.feed()  # the writer is gone as well, so nobody writes them again
        elif step == "empty":
            await site.client.flushall()
            self.feed = site.feed()
        elif step == "reseal":
            await self.feed.reseal()
        elif step == "trim":
            site.clock.ahead_s += LIFE_S + LEEWAY_S + 10
            await self.feed.heartbeat()
        elif step == "rest":
            await asyncio.sleep(0.005)


STEPS = [
    "write",
    "write",
    "cut",
    "cut",
    "beat",
    "other writer",
    "save",
    "lose writes",
    "empty",
    "reseal",
    "trim",
    "rest",
]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(1, 5)), max_size=14))
def test_after_any_interleaving_the_set_is_the_truth(shared_store: EmbeddedStore, steps: list) -> None:
    """A writer, a follower and everything that can happen to a store but its death."""
    asyncio.run(play(Site(shared_store), steps))


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from([*STEPS, "kill", "kill", "kill"]), st.integers(1, 5)), max_size=10))
def test_the_same_with_a_store_that_is_killed(tmp_path_factory: pytest.TempPathFactory, steps: list) -> None:
    """SIGKILL and a restart from its append-only file."""
    with EmbeddedStore(tmp_path_factory.mktemp("killed")) as store:
        asyncio.run(play(Site(store), steps))


async def play(site: Site, steps: list) -> None:
    try:
        await site.client.flushall()
        history = History(site)
        await history.write(1)
        await site.save()
        async with site.following(history.held) as follower:
            for step, number in steps:
                await attempt(lambda step=step, number=number: history.do(step, number))
            await check(site, history.feed, follower, history.held, history.ever)
    finally:
        await site.client.aclose()


async def attempt(step: Callable) -> None:
    """Once more if the store was just killed and the connection is an old one."""
    try:
        await step()
    except Exception:  # noqa: BLE001
        await asyncio.sleep(0.01)
        await step()


async def disconnect_at_random(site: Site, n_disconnects: int) -> None:
    """Revocations all the time, and a follower whose connection is cut at random moments."""
    feed, held, wanted, rng = site.feed(), new_set(), set(), random.Random(1)
    n_cut, done = 0, False

    async def write() -> None:
        while not done:
            revocation = site.token()
            await feed.revoke_many([revocation, client_revoked(os.urandom(8).hex(), site.clock())])
            wanted.add(revocation.key)
            await feed.heartbeat()
            await asyncio.sleep(rng.random() * 0.004)

    async with site.following(held) as follower:
        writing = asyncio.create_task(write())
        while n_cut < n_disconnects:
            await asyncio.sleep(rng.random() * 0.02)
            n_cut += await site.cut()
        done = True
        await writing
        await site.beat(feed)
        await until_fresh(follower)
        assert held_tokens(held) == wanted == await truth(site)
        assert len(held._clients) == len(wanted)
    assert not site.noticed("revocation_gap_found")
    states = [details["state"] for details in site.noticed("revocation_state_changed")]
    assert states.count(State.DISCONNECTED) > n_disconnects / 4


async def test_nothing_is_missed_over_200_random_disconnects(site) -> None:
    """Each time it goes on exactly where it was."""
    await disconnect_at_random(site, 200)


@pytest.mark.slow
async def test_nothing_is_missed_over_1000_random_disconnects(site) -> None:
    """The number that is promised."""
    await disconnect_at_random(site, 1000)


@pytest.mark.slow
async def test_nothing_is_missed_over_20_killed_stores(tmp_path: Path) -> None:
    """With two writers that go on as soon as the store is back; what they were told is written is there."""
    with EmbeddedStore(tmp_path) as store:
        site = Site(store)
        history = History(site)
        await history.write(1)
        async with site.following(history.held) as follower:
            for number in range(20):
                await attempt(lambda number=number: history.do("other writer", number % 7 + 1))
                await attempt(lambda: history.do("kill", 1))
            await attempt(lambda: site.beat(history.feed))
            await until_fresh(follower)
            assert held_tokens(history.held) >= history.ever
            assert history.ever <= await truth(site)
        await site.client.aclose()
