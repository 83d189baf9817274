"""The limiter of one process, and several of them on one store: exact, cheap, nothing stranded. Time is set."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from shared import store as stores
from shared.rate_limit.gcra import Limit, decide
from shared.rate_limit.lease import IDLE_S, Admission, Refusal
from shared.rate_limit.lease_store import LEASE_S
from shared.rate_limit.leases import Limiter
from shared.rate_limit.limits import CALL, Cost, LimitKey, Measure, cost_of_rows
from shared.settings import Settings

HUNDRED = LimitKey("client:a", Limit(100, 3600))
MILLION = LimitKey("client:b", Limit(1_000_000, 3600))


@asynccontextmanager
async def limiters(client: Redis, clock, n: int, **options) -> AsyncIterator[list[Limiter]]:
    """Some workers in one loop, on one store and one clock; a slow machine is no lost store."""

    def store_clock_us() -> int:
        return int(clock() * 1_000_000)

    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                Limiter(client, n_workers=n, ask_timeout_s=10, clock=clock, store_clock_us=store_clock_us, **options)
            )
            for _ in range(n)
        ]


async def admitted(limiter: Limiter, key: LimitKey, cost: Cost = CALL) -> bool:
    return isinstance(await limiter.acquire(limiter.key_set([key]), cost), Admission)


@pytest.mark.parametrize("n_workers", [1, 2, 4])
async def test_a_hundred_an_hour_is_exact_for_any_number_of_workers(client: Redis, clock, n_workers: int) -> None:
    """Exactly the first 100 calls pass, at whichever worker; then one every 36 s."""
    chance = random.Random(n_workers)
    async with limiters(client, clock, n_workers) as workers:
        answers = [await admitted(chance.choice(workers), HUNDRED) for _ in range(130)]
        assert answers == [True] * 100 + [False] * 30
        for _ in range(3):
            clock.advance(36)
            late = [await admitted(worker, HUNDRED) for worker in workers]
            assert sum(late) == 1


@pytest.mark.parametrize("n_workers", [1, 4])
async def test_concurrent_calls_are_exact_too(client: Redis, clock, n_workers: int) -> None:
    """300 calls at once over all workers: 100 pass."""
    async with limiters(client, clock, n_workers) as workers:
        calls = [admitted(workers[n % n_workers], HUNDRED) for n in range(300)]
        assert sum(await asyncio.gather(*calls)) == 100


async def test_units_that_another_worker_holds_are_recalled(client: Redis, clock) -> None:
    """A worker that leased ahead and fell idle makes nobody refuse early."""
    async with limiters(client, clock, 2) as (busy, other):
        for _ in range(30):
            assert await admitted(busy, HUNDRED)
        (lease,) = busy.key_set([HUNDRED]).leases
        assert lease.units > 0
        answers = [await admitted(other, HUNDRED) for _ in range(75)]
        assert answers == [True] * 70 + [False] * 5
        assert lease.units == 0


async def test_a_steady_load_needs_one_store_call_for_fifty(client: Redis, clock, wait_until) -> None:
    """2,000 calls a second of one client on two workers, a refill is always there before it is needed."""
    async with limiters(client, clock, 2) as workers:
        sets = [worker.key_set([MILLION]) for worker in workers]
        waited = 0
        for _ in range(200):
            for worker, key_set in zip(workers, sets, strict=True):
                for _ in range(10):
                    if worker.admit(key_set) is None:
                        waited += 1
                        await worker.acquire(key_set)
            clock.advance(0.01)
            await asyncio.sleep(0.001)
        n_calls = sum(worker.n_store_calls for worker in workers)
        assert n_calls * 50 <= 4000
        assert waited <= 10


async def test_refills_of_many_clients_go_in_one_call(client: Redis, clock) -> None:
    """Fifty busy clients on one worker share the round trips: still one script run for fifty calls."""
    keys = [LimitKey(f"client:{n}", Limit(1_000_000, 3600)) for n in range(50)]
    async with limiters(client, clock, 1) as (worker,):
        sets = [worker.key_set([key]) for key in keys]
        await asyncio.gather(*(worker.acquire(key_set) for key_set in sets))
        before, n_admitted = worker.n_store_calls, 0
        for _ in range(600):
            for key_set in sets:
                n_admitted += isinstance(worker.admit(key_set) or await worker.acquire(key_set), Admission)
            clock.advance(0.005)
            await asyncio.sleep(0)
        assert n_admitted == 30_000
        assert (worker.n_store_calls - before) * 50 <= n_admitted


async def test_idle_units_go_back_and_a_used_lease_is_renewed(client: Redis, clock, wait_until) -> None:
    """After 5 s without use the store has all units again; a lease in use lives on beyond its 10 s."""
    async with limiters(client, clock, 1) as (worker,):
        key_set = worker.key_set([MILLION])
        await worker.acquire(key_set)
        (lease,) = key_set.leases
        for _ in range(6):
            clock.advance(LEASE_S / 4)
            assert worker.admit(key_set)
            worker.review()
            await wait_until(lambda: not lease.asked and not lease.queued_for_report)
        assert lease.units > 0
        worker.review()
        clock.advance(IDLE_S + 0.1)
        worker.review()
        assert lease.units == 0
        assert worker.admit(key_set) is None
        await wait_until(lambda: lease.is_quiet)
        clock.advance(LEASE_S)
        worker.review()
        assert isinstance(await worker.acquire(key_set), Admission)


async def test_a_lease_is_not_used_after_its_time(client: Redis, clock) -> None:
    """A process that slept asks again: the store has counted its units as spent."""
    async with limiters(client, clock, 1) as (worker,):
        key_set = worker.key_set([MILLION])
        await worker.acquire(key_set)
        assert worker.admit(key_set)
        clock.advance(LEASE_S - 0.9)
        assert worker.admit(key_set) is None


async def test_units_go_back_when_a_worker_leaves(client: Redis, clock) -> None:
    """The next worker finds exactly what was not used."""
    async with limiters(client, clock, 1) as (worker,):
        for _ in range(30):
            await admitted(worker, HUNDRED)
    async with limiters(client, clock, 1) as (worker,):
        assert [await admitted(worker, HUNDRED) for _ in range(71)] == [True] * 70 + [False]


async def test_all_limits_must_agree_and_a_refusal_charges_none(client: Redis, clock) -> None:
    """The narrow limit refuses; the wide one keeps its units, and the refusal names the narrow one with its time."""
    wide, narrow = HUNDRED, LimitKey("key:n", Limit(2, 60), policy="key-minute")
    async with limiters(client, clock, 2) as (first, second):
        both = first.key_set([wide, narrow])
        answers = [await first.acquire(both) for _ in range(10)]
        assert [isinstance(answer, Admission) for answer in answers] == [True] * 2 + [False] * 8
        refused = answers[-1]
        assert isinstance(refused, Refusal)
        assert (refused.violated, refused.retry_after_s, refused.capacity) == (("key-minute",), 30, False)
        assert sum([await admitted(second, wide) for _ in range(120)]) == 98


async def test_rows_and_calls_are_counted_apart(client: Redis, clock) -> None:
    """A batch costs one call of the one limit and its rows of the other; what never fits is said so."""
    rows = LimitKey("rows:x", Limit(1000, 3600), Measure.ROWS, "rows-hour")
    async with limiters(client, clock, 1) as (worker,):
        both = worker.key_set([HUNDRED, rows])
        assert isinstance(await worker.acquire(both, cost_of_rows(600)), Admission)
        refused = await worker.acquire(both, cost_of_rows(401))
        assert (refused.violated, refused.retry_after_s) == (("rows-hour",), 4)
        assert isinstance(await worker.acquire(both, cost_of_rows(400)), Admission)
        never = worker.admit(both, cost_of_rows(1001))
        assert isinstance(never, Refusal)
        assert never.retry_after_s is None


async def test_a_refused_client_does_not_keep_the_store_busy(client: Redis, clock) -> None:
    """The store's no is remembered until its next unit, so a flood over the limit costs no calls."""
    async with limiters(client, clock, 1) as (worker,):
        key_set = worker.key_set([HUNDRED])
        while isinstance(await worker.acquire(key_set), Admission):
            pass
        before = worker.n_store_calls
        assert all(isinstance(worker.admit(key_set), Refusal) for _ in range(1000))
        assert worker.n_store_calls == before
        clock.advance(36)
        assert isinstance(await worker.acquire(key_set), Admission)


async def test_a_changed_limit_keeps_what_was_used(client: Redis, clock) -> None:
    """80 of 100 used: a limit of 200 leaves 120, one of 50 leaves none."""
    async with limiters(client, clock, 1) as (worker,):
        for _ in range(80):
            assert await admitted(worker, HUNDRED)
        assert not await admitted(worker, HUNDRED._replace(limit=Limit(50, 3600)))
        raised = HUNDRED._replace(limit=Limit(200, 3600))
        assert sum([await admitted(worker, raised) for _ in range(150)]) == 120


async def test_the_number_of_leases_is_bounded(client: Redis, clock, wait_until) -> None:
    """Many clients in turn: old leases go, and the client that was first is still exact."""
    async with limiters(client, clock, 1, max_keys=20) as (worker,):
        for _ in range(60):
            assert await admitted(worker, HUNDRED)
        for n in range(100):
            assert await admitted(worker, LimitKey(f"client:{n}", Limit(1000, 3600)))
        assert len(worker) <= 22
        assert [await admitted(worker, HUNDRED) for _ in range(41)] == [True] * 40 + [False]


async def test_no_limits_admit_everything(client: Redis, clock) -> None:
    """An empty key set asks nobody."""
    async with limiters(client, clock, 1) as (worker,):
        assert isinstance(worker.admit(worker.key_set([])), Admission)


async def test_a_caller_that_has_gone_takes_no_unit(client: Redis, clock) -> None:
    """A cancelled wait is answered to nobody and its unit stays."""
    async with limiters(client, clock, 1) as (worker,):
        key_set = worker.key_set([HUNDRED])
        gone = asyncio.create_task(worker.acquire(key_set))
        await asyncio.sleep(0)
        gone.cancel()
        assert sum([await admitted(worker, HUNDRED) for _ in range(105)]) >= 99


moves = st.lists(
    st.one_of(
        st.tuples(st.just("call"), st.integers(0, 2), st.integers(1, 8)),
        st.tuples(st.just("burst"), st.integers(0, 2), st.integers(1, 8)),
        st.tuples(st.just("pass"), st.sampled_from([1, 20, 400, 4_000, 12_000]), st.just(0)),
        st.tuples(st.just("review"), st.integers(0, 2), st.just(0)),
    ),
    max_size=30,
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(limit=st.builds(Limit, st.integers(1, 60), st.sampled_from([1, 10, 60])), moves=moves)
def test_three_workers_decide_like_one(store_dir: Path, limit: Limit, moves: list[tuple[str, int, int]]) -> None:
    """Whatever is called where and when: never one unit more than the pure rule, at most one lease's time less."""
    asyncio.run(_play(store_dir, limit, moves))


async def _play(store_dir: Path, limit: Limit, moves: list[tuple[str, int, int]]) -> None:
    now = 1_800_000_000.0
    arrival_us = 0
    client = stores.connect(Settings(var_dir=store_dir))
    await client.flushall()
    async with limiters(client, lambda: now, 3) as workers:
        for move, which, amount in moves:
            if move == "pass":
                for _ in range(which // 1000 + 1):  # reviewed once a second, as in life
                    now += min(which / 1000, 1.0)
                    for worker in workers:
                        worker.review()
                        await _until_told(worker)
                continue
            if move == "review":
                workers[which].review()
                continue
            cost, repeats = (Cost(amount, amount), 1) if move == "call" else (CALL, amount * 3)
            key = LimitKey("client:p", limit)
            for _ in range(repeats):
                now_us = int(now * 1_000_000)
                if await admitted(workers[which], key, cost):
                    ideal = decide(limit, arrival_us, now_us, cost.calls)
                    assert ideal.allowed
                    arrival_us = ideal.arrival_us
                else:
                    strict_us = max(arrival_us, now_us) + int(LEASE_S * 1_000_000)
                    assert not decide(limit, strict_us, now_us, cost.calls).allowed
    await stores.close(client)


async def _until_told(worker: Limiter) -> None:
    while worker._queue.has_work or any(lease.asked for lease in worker._book._leases.values()):
        await asyncio.sleep(0.001)
