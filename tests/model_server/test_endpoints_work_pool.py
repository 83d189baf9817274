"""The bounded pool: what fits runs, what does not is refused at once, and nothing waits for ever."""

import asyncio
import threading

import pytest

from model_server.endpoints.work_pool import WorkPool
from shared.errors import AppError


@pytest.fixture
def gate():
    """A job that ends when the test says so."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def pool():
    pool = WorkPool(1, 1, lambda: None)
    yield pool
    pool.close()


async def refusal(awaitable) -> str:
    with pytest.raises(AppError) as error:
        await awaitable
    assert error.value.code == "overloaded"
    assert error.value.retry_after_s == 1
    return error.value.reason


async def test_results_and_errors_come_back(pool):
    """A job's value is returned, its AppError raised."""
    assert await pool.run(lambda: 7) == 7

    def fail():
        raise AppError("invalid_record")

    with pytest.raises(AppError, match="invalid_record"):
        await pool.run(fail)


async def test_a_full_queue_refuses_at_once(pool, gate):
    """One runs, one waits, the third is 503 with Retry-After; places come back when threads are free."""
    running = [asyncio.create_task(pool.run(gate.wait)) for _ in range(2)]
    await asyncio.sleep(0)
    assert await refusal(pool.run(lambda: None)) == "queue_full"
    gate.set()
    assert await asyncio.gather(*running) == [True, True]
    assert await pool.run(lambda: 1) == 1


async def test_a_patient_caller_waits_for_a_place(pool, gate):
    """A stream that has begun is slowed down instead of broken off."""
    running = [asyncio.create_task(pool.run(gate.wait)) for _ in range(2)]
    await asyncio.sleep(0)
    patient = asyncio.create_task(pool.run(lambda: "late", patient=True))
    await asyncio.sleep(0.02)
    assert not patient.done()
    gate.set()
    assert await patient == "late"
    await asyncio.gather(*running)


async def test_a_job_that_takes_too_long_is_given_up_and_keeps_its_place(pool, gate):
    """The caller gets 503 in time; the place stays taken until the thread is really free."""
    assert await refusal(pool.run(gate.wait, timeout_s=0.05)) == "job_timeout"
    waiting = asyncio.create_task(pool.run(lambda: 2))
    await asyncio.sleep(0)
    assert await refusal(pool.run(lambda: 3)) == "queue_full"
    gate.set()
    assert await waiting == 2


async def test_a_job_that_still_waits_is_dropped(pool, gate):
    """Nobody computes what nobody waits for."""
    ran = []
    running = asyncio.create_task(pool.run(gate.wait))
    await asyncio.sleep(0)
    assert await refusal(pool.run(lambda: ran.append(1), timeout_s=0.05)) == "job_timeout"
    gate.set()
    await running
    await pool.run(lambda: None)
    assert ran == []


async def test_every_thread_is_prepared_before_its_first_job():
    """All threads start at once when the server does, each with its own buffers."""
    prepared = []
    ready = threading.Barrier(3, timeout=5)

    def prepare():
        prepared.append(threading.get_ident())
        ready.wait()

    pool = WorkPool(2, 1, prepare)
    pool.start()
    await asyncio.to_thread(ready.wait)
    assert len(set(prepared)) == 2
    pool.close()


def test_a_pool_that_is_closed_while_it_starts_leaves_no_thread_behind(gate):
    """The first thread waits for the second, whose part is dropped with the queue: neither may wait for ever."""
    threads = []
    first_is_there = threading.Event()

    def prepare():
        threads.append(threading.current_thread())
        if len(threads) == 1:
            first_is_there.set()
        else:
            gate.wait()

    pool = WorkPool(2, 1, prepare)
    pool.start()
    assert first_is_there.wait(5)
    pool.close()
    gate.set()
    for thread in threads:
        thread.join(5)
    assert not any(thread.is_alive() for thread in threads)


async def test_a_closed_pool_says_that_the_server_stops(pool):
    """Not 500."""
    pool.close()
    with pytest.raises(AppError, match="not_ready"):
        await pool.run(lambda: None)
