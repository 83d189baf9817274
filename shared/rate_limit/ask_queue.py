"""The one conversation of a worker with the store: calls that wait for units, and reports, in shared round trips.

Only one round trip is on its way at a time. What comes meanwhile goes together in the next one, so the busier the
worker, the fewer the round trips, and a lease's reports can't overtake each other.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from shared.rate_limit.lease import Admission, KeySet, Lease, Refusal
from shared.rate_limit.lease_book import LeaseBook
from shared.rate_limit.lease_store import Answer, LeaseStore, Line
from shared.rate_limit.limits import Cost

MAX_WAITING = 10_000
_MAX_GROUPS = 128
_MAX_LINES = 64
_WAITS_S = (0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128)  # for others to give back what they hold
_STRANDED_S = 1.0


@dataclass(slots=True, eq=False)
class Waiter:
    """A call that waits for the store's word."""

    key_set: KeySet
    cost: Cost
    answer: "asyncio.Future[Admission | Refusal]"
    n_tries: int = 0


class AskQueue:
    """Calls and reports for the store. ``clock`` gives monotonic seconds.

    ``wake`` is called when there is work again, ``without_store`` answers a call when the store does not.
    """

    def __init__(
        self,
        book: LeaseBook,
        store: LeaseStore,
        *,
        clock: Callable[[], float],
        wake: Callable[[], None],
        without_store: Callable[[KeySet, Cost], Admission | Refusal],
    ) -> None:
        self._book = book
        self._store = store
        self._clock = clock
        self._wake = wake
        self._without_store = without_store
        self._waiting: deque[Waiter] = deque()
        self._parked: dict[asyncio.TimerHandle, Waiter] = {}
        self.lost = False

    @property
    def has_work(self) -> bool:
        """Whether a round trip has something to carry."""
        return bool(self._waiting or self._book.reports)

    def add(self, waiter: Waiter) -> bool:
        """Queue a call; False if the queue is full."""
        if len(self._waiting) >= MAX_WAITING:
            return False
        self._waiting.append(waiter)
        return True

    async def round_trip(self) -> None:
        """Carry one batch to the store and answer its calls.

        Raises AppError store_unavailable; then everything is queued again.
        """
        reports, self._book.reports = self._book.reports, []
        groups = self._next_groups()
        asked_at = self._clock()
        asks = self._asks(reports, groups, asked_at)
        try:
            if asks:
                answers = await self._store.ask([[line for _, line in ask] for ask in asks])
            else:
                await self._store.ping()
                answers = []
        except BaseException:
            self._undo(asks, groups)
            raise
        for ask, answer in zip(asks, answers, strict=True):
            self._receive(ask, answer, asked_at)
        for group in groups.values():
            for waiter in group:
                self._serve(waiter)
        for lease in {lease for ask in asks for lease, _ in ask}:
            lease.asked = False
            if lease.settle():
                self._book.report(lease)
            self._book.hold(lease)

    def _undo(self, asks: list[list[tuple[Lease, Line]]], groups: dict[KeySet, list[Waiter]]) -> None:
        for lease, line in (pair for ask in asks for pair in ask):
            lease.asked = False
            lease.take_back(line)
            if line.debt or line.spent:
                self._book.report(lease)
        self._waiting.extendleft(waiter for group in groups.values() for waiter in group)

    def answer_all_without_store(self) -> None:
        """Answer everyone in the queue by the local rules."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.answer.done():
                waiter.answer.set_result(self._without_store(waiter.key_set, waiter.cost))

    def leave(self) -> None:
        """Answer also those who wait for units of others; the end."""
        for handle in self._parked:
            handle.cancel()
        self._waiting.extend(self._parked.values())
        self._parked.clear()
        self.answer_all_without_store()

    def _next_groups(self) -> dict[KeySet, list[Waiter]]:
        groups: dict[KeySet, list[Waiter]] = {}
        while self._waiting and (len(groups) < _MAX_GROUPS or self._waiting[0].key_set in groups):
            waiter = self._waiting.popleft()
            if not waiter.answer.done():  # the caller may have gone
                groups.setdefault(waiter.key_set, []).append(waiter)
        return groups

    def _asks(
        self, reports: list[Lease], groups: dict[KeySet, list[Waiter]], now: float
    ) -> list[list[tuple[Lease, Line]]]:
        asks: list[list[tuple[Lease, Line]]] = []
        told: set[Lease] = set()
        for key_set, group in groups.items():
            self._book.resolve(key_set)
            ask = []
            for lease in key_set.leases:
                fresh = lease not in told
                told.add(lease)
                lease.lapse(now)
                lease.asked = True
                held = lease.units if fresh else 0  # others of this batch may take what is held
                need = max(group[0].cost[lease.measure] - held, 0)
                queued = max(sum(waiter.cost[lease.measure] for waiter in group) - held, 0)
                ask.append((lease, lease.line(need, queued, now, report=fresh)))
            asks.append(ask)
        rest = [lease for lease in reports if lease not in told]
        for lease in rest:
            lease.asked = True
        for place in range(0, len(rest), _MAX_LINES):
            asks.insert(0, [(lease, lease.line(0, 0, now)) for lease in rest[place : place + _MAX_LINES]])
        return asks

    def _receive(self, ask: list[tuple[Lease, Line]], answer: Answer, asked_at: float) -> None:
        now = self._clock()
        for (lease, line), line_answer in zip(ask, answer.lines, strict=bool(answer.lines)):
            lease.receive(line, line_answer, asked_at=asked_at, now=now, store_now_us=answer.now_us)

    def _serve(self, waiter: Waiter) -> None:
        if waiter.answer.done():
            return
        if self._book.take(waiter.key_set, waiter.cost):
            waiter.answer.set_result(waiter.key_set.admission)
            return
        now = self._clock()
        lacking = [
            (lease, cost) for lease, cost in waiter.key_set.costs(waiter.cost) if lease.units + lease.room < cost
        ]
        stranded = not lacking or all(lease.others for lease, _ in lacking)
        if stranded and waiter.n_tries < len(_WAITS_S):
            self._park(waiter)
            return
        for lease, cost in lacking:
            # While nothing is out at others, the store's no holds until its next unit: asking again can't change it.
            next_in_s = max(lease.next_unit_at - now, 0.0)
            lease.refused_until = now + (min(next_in_s, _STRANDED_S) if lease.others else next_in_s)
            lease.refused_cost = cost
        waiter.answer.set_result(refusal(waiter.key_set, lacking, now))

    def _park(self, waiter: Waiter) -> None:
        def back() -> None:
            del self._parked[handle]
            self._waiting.append(waiter)
            if self.lost:
                self.answer_all_without_store()
            self._wake()

        handle = asyncio.get_running_loop().call_later(_WAITS_S[waiter.n_tries], back)
        waiter.n_tries += 1
        self._parked[handle] = waiter


def refusal(key_set: KeySet, lacking: list[tuple[Lease, int]], now: float) -> Refusal:
    """Form the answer of a quota that is used up; without any it is a lack of capacity."""
    if not lacking:
        return Refusal(key_set, (), 1, capacity=True)
    short = [lease for lease, _ in lacking]
    waits = [max(lease.next_unit_at - now, 0.0) + lease.wait_s(cost) for lease, cost in lacking]
    return Refusal(key_set, tuple(map(key_set.policy_of, short)), max(-int(-max(waits) // 1), 1))
