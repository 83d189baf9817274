"""The limiter of one worker process: admits from leased units without waiting, asks the store only when it must.

Exactness, with any number of workers. Nothing is ever admitted that the store has not debited before (see
``lease_script`` for why that is exact also in time). Nothing is refused by a local view: only the store refuses, and a
refusal is remembered no longer than until its next unit. When the store is short only because units are out at other
workers, it recalls them; they go back within milliseconds, and the call waits for them (0.25 s at most). So a refusal
can be too early only while a worker that holds units is frozen, dead or cut off: then for at most the 10 s of its
lease. Near the limit chunks fall to one unit, and nothing is stranded.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Self, cast

from redis.asyncio import Redis

from shared import events
from shared.errors import AppError
from shared.events import Event
from shared.rate_limit.ask_queue import AskQueue, Waiter, refusal
from shared.rate_limit.gcra import Decision
from shared.rate_limit.lease import Admission, KeySet, Lease, Refusal
from shared.rate_limit.lease_book import LeaseBook
from shared.rate_limit.lease_store import LeaseStore
from shared.rate_limit.limits import CALL, Cost, LimitKey
from shared.rate_limit.recalls import follow_recalls, is_cancelled
from shared.rate_limit.store_loss import MODEL_CALLS, LossPolicy, try_local

MAX_KEYS = 10_000
ASK_TIMEOUT_S = 0.5
PROBE_S = 0.5
REVIEW_S = 1.0


class Limiter:
    """Admits or refuses calls; an async context manager, since leases are refilled in the background.

    ``n_workers`` is how many processes share the limits (more may: it only shapes the chunks and the shares without a
    store). ``store`` None: there is none, and each worker keeps to its share of every limit (``policy`` ALONE fits).
    ``clock`` gives monotonic seconds, ``store_clock_us`` replaces the store's clock in tests.
    """

    def __init__(
        self,
        store: Redis | None,
        *,
        n_workers: int,
        policy: LossPolicy = MODEL_CALLS,
        max_keys: int = MAX_KEYS,
        ask_timeout_s: float = ASK_TIMEOUT_S,
        clock: Callable[[], float] = time.monotonic,
        store_clock_us: Callable[[], int] | None = None,
    ) -> None:
        self._redis = store
        self._n_workers = n_workers
        self._policy = policy
        self._clock = clock
        self._max_keys = max_keys
        self.now = clock()  # when it was last asked
        self._worker = secrets.token_hex(6)
        self._wake = asyncio.Event()
        self._book = LeaseBook(worker=self._worker, max_keys=max_keys, on_report=self._wake.set)
        self._store = LeaseStore(
            cast("Redis", store),
            worker=self._worker,
            n_workers=n_workers,
            timeout_s=ask_timeout_s,
            store_clock_us=store_clock_us,
        )
        self._queue = AskQueue(
            self._book, self._store, clock=clock, wake=self._wake.set, without_store=self._without_store
        )
        self._queue.lost = True  # as long as nobody converses with a store
        self._key_sets: dict[tuple[LimitKey, ...], KeySet] = {}
        self._n_running = 0
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        if self._redis is None:
            return self
        self._queue.lost = False
        self._tasks = [
            asyncio.create_task(self._converse()),
            asyncio.create_task(self._review()),
            asyncio.create_task(follow_recalls(self._redis, self._book.holding, self._book.recall)),
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._book.give_back_all()
        with suppress(AppError):  # what can't be given back ends with its lease
            while self._queue.has_work and not self._queue.lost:
                await self._queue.round_trip()
        self._queue.leave()

    @property
    def is_lost(self) -> bool:
        """Whether the store does not answer and local rules decide."""
        return self._queue.lost

    @property
    def n_store_calls(self) -> int:
        """Runs of the store's script so far."""
        return self._store.n_calls

    def __len__(self) -> int:
        """How many leases are kept, used or not."""
        return len(self._book)

    def key_set(self, keys: Iterable[LimitKey]) -> KeySet:
        """Give the prepared form of some limits (none: everything is admitted). Keep it as long as you like.

        Remembers at most ``max_keys`` of them, and starts anew when there are more.
        """
        names = tuple(keys)
        found = self._key_sets.get(names)
        if found is None:
            if len(self._key_sets) >= self._max_keys:
                self._key_sets.clear()
            found = self._key_sets[names] = KeySet(names)
            self._book.resolve(found)
        return found

    def admit(self, key_set: KeySet, cost: Cost = CALL) -> Admission | Refusal | None:
        """Decide at once, without waiting; None when the store has to be asked: then await :meth:`acquire`."""
        self.now = now = self._clock()
        leases = key_set.leases
        if len(leases) == 1:  # one limit is the usual: the same as below, in one go
            (lease,) = leases
            units = lease.units - cost[lease.measure]
            if units < 0 or now >= lease.usable_until:
                return self._look_closer(key_set, cost, now)
            lease.units = units
            if units <= lease.low and not lease.queued_for_report:
                self._book.report(lease)
            return key_set.admission
        for lease in leases:
            if lease.units < cost[lease.measure] or now >= lease.usable_until:
                return self._look_closer(key_set, cost, now)
        for lease in leases:
            units = lease.units = lease.units - cost[lease.measure]
            if units <= lease.low and not lease.queued_for_report:
                self._book.report(lease)
        return key_set.admission

    async def acquire(self, key_set: KeySet, cost: Cost = CALL) -> Admission | Refusal:
        """Decide with one question to the store where memory does not suffice; within about 1 s in the worst case."""
        answer = self.admit(key_set, cost)
        if answer is not None:
            return answer
        waiter = Waiter(key_set, cost, asyncio.get_running_loop().create_future())
        if not self._queue.add(waiter):
            return Refusal(key_set, (), 1, capacity=True)
        self._wake.set()
        return await waiter.answer

    def done(self, admission: Admission) -> None:
        """Say that an admitted call has ended. Needed only for degraded ones, harmless for all."""
        if admission.degraded:
            self._n_running -= 1

    def review(self) -> None:
        """Renew, give back and forget leases as their age demands; runs by itself once a second."""
        self._book.review(self._clock())

    def _look_closer(self, key_set: KeySet, cost: Cost, now: float) -> Admission | Refusal | None:
        self._book.resolve(key_set)
        for lease, units in key_set.costs(cost):
            lease.lapse(now)
            if units > lease.limit.count:
                return Refusal(key_set, (key_set.policy_of(lease),), None)
            if lease.units < units and now < lease.refused_until and units >= lease.refused_cost:
                return refusal(key_set, [(lease, units)], now)
        if self._book.take(key_set, cost):
            return key_set.admission
        return self._without_store(key_set, cost) if self._queue.lost else None

    def _without_store(self, key_set: KeySet, cost: Cost) -> Admission | Refusal:
        now = self._clock()
        if self._n_running >= self._policy.n_running:
            return Refusal(key_set, (), 1, capacity=True)
        local, short = self._try_shares(key_set, cost, now)
        if short:
            wait_s = max(decision.retry_after_s or lease.limit.window_s for lease, decision in short)
            violated = tuple(key_set.policy_of(lease) for lease, _ in short)
            return Refusal(key_set, violated, wait_s, capacity=self._redis is not None)
        for lease, decision in local:
            lease.local_arrival_us = decision.arrival_us
            if self._redis is not None:
                lease.debt += cost[lease.measure]
        owing = {lease for lease, _ in local}
        for lease, units in key_set.costs(cost):
            if lease not in owing:
                lease.units -= units
        self._n_running += 1
        return key_set.degraded

    def _try_shares(
        self, key_set: KeySet, cost: Cost, now: float
    ) -> tuple[list[tuple[Lease, Decision]], list[tuple[Lease, Decision]]]:
        """Decide by this worker's shares for what no lease pays: those that have room, those that have not."""
        local: list[tuple[Lease, Decision]] = []
        short: list[tuple[Lease, Decision]] = []
        for lease, units in key_set.costs(cost):
            if lease.units >= units:
                continue
            decision = try_local(self._policy, lease, self._n_workers, now, units)
            if self._redis is None:  # nobody else says what is left
                lease.room, lease.next_unit_at = decision.remaining, now + decision.reset_s
            (local if decision.allowed else short).append((lease, decision))
        return local, short

    async def _converse(self) -> None:
        while not is_cancelled():
            if not self._queue.lost:
                await self._wake.wait()
            else:
                await asyncio.sleep(PROBE_S)
            self._wake.clear()
            await self._one_exchange()

    async def _one_exchange(self) -> None:
        try:
            while self._queue.has_work or self._queue.lost:
                await self._queue.round_trip()
                if self._queue.lost:
                    self._queue.lost = False
                    self._book.store_is_back()
                    events.emit(Event.STORE_RECOVERED, kind="limits")
        except Exception as error:  # noqa: BLE001 - callers wait for this task: it must not die, whatever happens
            if not self._queue.lost:
                self._queue.lost = True
                reason = error.reason if isinstance(error, AppError) else type(error).__name__
                events.emit(Event.STORE_LOST, kind="limits", reason=reason)
            self._queue.answer_all_without_store()

    async def _review(self) -> None:
        while True:
            await asyncio.sleep(REVIEW_S)
            self.review()
