"""Several real processes on one real store: a hundred an hour is a hundred."""

import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

ROOT = Path(__file__).parents[3]


class Worker:
    """One worker process."""

    def __init__(self, var_dir: Path, n_workers: int) -> None:
        command = [sys.executable, str(Path(__file__).with_name("limit_worker.py")), str(var_dir), str(n_workers)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.n_store_calls = 0

    def order(self, n_calls: int, *, at_once: bool = False) -> None:
        self.process.stdin.write(f"{n_calls} {int(at_once)}\n")
        self.process.stdin.flush()

    def admitted(self) -> int:
        admitted, self.n_store_calls = map(int, self.process.stdout.readline().split())
        return admitted

    def end(self) -> None:
        self.process.stdin.close()
        self.process.wait(timeout=10)
        self.process.stdout.close()


@pytest.fixture
def start(client: Redis, store_dir: Path) -> Iterator[Callable[[int], list[Worker]]]:
    """Start workers; all end with the test."""
    started: list[Worker] = []

    def start_some(n_workers: int) -> list[Worker]:
        started.extend(Worker(store_dir, n_workers) for _ in range(n_workers))
        return started

    yield start_some
    for worker in started:
        worker.end()


@pytest.mark.parametrize("n_workers", [1, 2, 4])
def test_a_race_of_all_processes_admits_exactly_a_hundred(start, n_workers: int) -> None:
    """More calls than there are units, from all processes at the same moment."""
    workers = start(n_workers)
    for worker in workers:
        worker.order(240 // n_workers, at_once=True)
    assert sum(worker.admitted() for worker in workers) == 100


@pytest.mark.parametrize("n_workers", [2, 4])
def test_the_first_hundred_calls_pass_wherever_they_arrive(start, n_workers: int) -> None:
    """One call after the other at a random process: none of the first 100 is refused, all later ones are."""
    workers, chance = start(n_workers), random.Random(n_workers)
    answers = []
    for _ in range(115):
        worker = chance.choice(workers)
        worker.order(1)
        answers.append(worker.admitted())
    assert answers == [1] * 100 + [0] * 15


def test_one_process_needs_few_store_calls_for_a_burst(start) -> None:
    """A hundred calls in a row at 100 an hour: the leases grow fast and shrink to single units at the end."""
    (worker,) = start(1)
    worker.order(100)
    assert worker.admitted() == 100
    assert worker.n_store_calls <= 25


def test_a_killed_process_costs_no_more_than_its_lease(start) -> None:
    """Its unused units count as spent; nobody gets more than a hundred."""
    first, second = start(2)
    first.order(30)
    n_first = first.admitted()
    first.process.kill()
    second.order(90)
    n_second = second.admitted()
    assert n_first == 30
    assert 70 - 17 <= n_second <= 70
