"""The store killed, frozen and back: calls go on by the rule of their kind, nothing blocks, what was used is told."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from shared import store as stores
from shared.embedded_store import EmbeddedStore
from shared.events import Event
from shared.rate_limit.gcra import Limit
from shared.rate_limit.lease import Admission, Refusal
from shared.rate_limit.leases import Limiter
from shared.rate_limit.limits import LimitKey
from shared.rate_limit.store_loss import ALONE, LOGINS, MODEL_CALLS, share
from shared.settings import Settings

HUNDRED = LimitKey("client:a", Limit(100, 3600))


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[EmbeddedStore]:
    """A store of its own, to be harmed."""
    with EmbeddedStore(tmp_path) as store:
        yield store


@pytest.fixture
async def own_client(embedded: EmbeddedStore, tmp_path: Path) -> AsyncIterator[Redis]:
    """A client of it."""
    redis = stores.connect(Settings(var_dir=tmp_path))
    yield redis
    await stores.close(redis)


async def pid_of(client: Redis) -> int:
    return int((await client.info("server"))["process_id"])


async def use(limiter: Limiter, key: LimitKey, n_calls: int) -> tuple[int, int]:
    """(admitted normally, admitted without the store)."""
    key_set = limiter.key_set([key])
    normal = degraded = 0
    for _ in range(n_calls):
        answer = limiter.admit(key_set) or await limiter.acquire(key_set)
        if isinstance(answer, Admission):
            normal, degraded = normal + (not answer.degraded), degraded + answer.degraded
            limiter.done(answer)
    return normal, degraded


def is_told(limiter: Limiter) -> bool:
    return not limiter._queue.has_work and not any(lease.asked for lease in limiter._book._leases.values())


async def test_a_killed_store_leaves_the_lease_then_the_share_and_is_told_later(
    own_client: Redis, embedded: EmbeddedStore, event_log, wait_until
) -> None:
    """40 used of 100: without the store two workers get no more than what was left, and afterwards it is charged."""
    async with Limiter(own_client, n_workers=2) as first, Limiter(own_client, n_workers=2) as second:
        assert await use(first, HUNDRED, 20) == (20, 0)
        assert await use(second, HUNDRED, 20) == (20, 0)
        os.kill(await pid_of(own_client), signal.SIGKILL)
        normal_1, degraded_1 = await use(first, HUNDRED, 100)
        normal_2, degraded_2 = await use(second, HUNDRED, 100)
        assert first.is_lost
        assert second.is_lost
        assert degraded_1 > 10
        assert degraded_2 > 10
        # Each knows what was left when it last asked, so together they may exceed by what the other used since.
        assert 40 + normal_1 + normal_2 + degraded_1 + degraded_2 <= 100 + 20
        assert await asyncio.to_thread(embedded.attach)
        await wait_until(lambda: not first.is_lost and not second.is_lost)
        await wait_until(lambda: is_told(first) and is_told(second))
        late = await use(first, HUNDRED, 100)  # what it leased after telling its own use, before the other told
        assert late[0] <= 17 // 2
        assert late[1] == 0
        assert await use(second, HUNDRED, 100) == (0, 0)
    assert [line["kind"] for line in event_log.named(Event.STORE_LOST)] == ["limits", "limits"]
    assert len(event_log.named(Event.STORE_RECOVERED)) == 2


async def test_a_frozen_store_blocks_no_call(own_client: Redis, wait_until) -> None:
    """From memory always at once; who must ask waits one time-out, and those after it not even that."""
    limiter = Limiter(own_client, n_workers=1, ask_timeout_s=0.3)
    async with limiter:
        key_set = limiter.key_set([HUNDRED])
        assert (await use(limiter, HUNDRED, 20))[0] == 20
        pid = await pid_of(own_client)
        os.kill(pid, signal.SIGSTOP)
        try:
            slowest, waits = 0.0, []
            for _ in range(200):
                began = time.perf_counter()
                answer = limiter.admit(key_set)
                slowest = max(slowest, time.perf_counter() - began)
                if answer is None:
                    began = time.perf_counter()
                    answer = await limiter.acquire(key_set)
                    waits.append(time.perf_counter() - began)
                if isinstance(answer, Admission):
                    limiter.done(answer)
            assert slowest < 0.3  # less than one question to the store may take
            assert len(waits) == 1
            assert waits[0] < 5.0
            assert limiter.is_lost
        finally:
            os.kill(pid, signal.SIGCONT)
        await wait_until(lambda: not limiter.is_lost)
        fresh = LimitKey("client:fresh", Limit(100, 3600))
        assert await use(limiter, fresh, 120) == (100, 0)
        assert await use(limiter, HUNDRED, 5) == (0, 0)


async def test_without_the_store_only_so_many_calls_run_at_once(own_client: Redis) -> None:
    """The cap answers 503, and a call that ends makes room."""
    async with Limiter(own_client, n_workers=1) as limiter:
        os.kill(await pid_of(own_client), signal.SIGKILL)
        key_set = limiter.key_set([LimitKey("client:c", Limit(1_000_000, 3600))])
        answers = [limiter.admit(key_set) or await limiter.acquire(key_set) for _ in range(MODEL_CALLS.n_running + 1)]
        assert all(isinstance(answer, Admission) and answer.degraded for answer in answers[:-1])
        assert isinstance(answers[-1], Refusal)
        assert answers[-1].capacity
        limiter.done(answers[0])
        assert isinstance(limiter.admit(key_set), Admission)


async def test_logins_fall_to_a_local_trickle(own_client: Redis) -> None:
    """Whatever their limit, without the store a key gets five a minute at one process."""
    async with Limiter(own_client, n_workers=1, policy=LOGINS) as limiter:
        os.kill(await pid_of(own_client), signal.SIGKILL)
        assert await use(limiter, LimitKey("login:a", Limit(1000, 60)), 50) == (0, 5)
        assert await use(limiter, LimitKey("login:b", Limit(2, 3600)), 50) == (0, 2)


def test_shares_are_parts_below_the_ceiling() -> None:
    """A quarter each for four workers, at least one unit; the narrower of share and ceiling."""
    assert share(MODEL_CALLS, Limit(100, 3600), 4) == Limit(25, 3600)
    assert share(MODEL_CALLS, Limit(2, 3600), 4) == Limit(1, 3600)
    assert share(LOGINS, Limit(100, 3600), 4) == Limit(5, 60)
    assert share(LOGINS, Limit(4, 3600), 4) == Limit(1, 3600)


async def test_a_worker_without_any_store_decides_by_its_share(clock) -> None:
    """At once, with a quota's refusal, and with what is left for the headers."""
    async with Limiter(None, n_workers=2, policy=ALONE, clock=clock) as limiter:
        key_set = limiter.key_set([HUNDRED])
        answers = [limiter.admit(key_set) for _ in range(51)]
        assert [isinstance(answer, Admission) for answer in answers] == [True] * 50 + [False]
        refused = answers[50]
        assert isinstance(refused, Refusal)
        assert (refused.capacity, refused.violated, refused.retry_after_s) == (False, ("hour",), 72)
        assert key_set.leases[0].room == 0
        clock.advance(72)
        assert isinstance(await limiter.acquire(key_set), Admission)


async def test_two_names_of_one_limit_are_one_count(own_client: Redis) -> None:
    """A policy's name is for the reader; two leases of one key would report against each other."""
    async with Limiter(own_client, n_workers=1) as limiter:
        one, other = limiter.key_set([HUNDRED]), limiter.key_set([HUNDRED._replace(policy="other")])
        answers = [await limiter.acquire(key_set) for _ in range(55) for key_set in (one, other)]
        assert sum(isinstance(answer, Admission) for answer in answers) == 100
        refusals = [answer.violated for answer in answers if isinstance(answer, Refusal)]
        assert set(refusals) == {("hour",), ("other",)}
