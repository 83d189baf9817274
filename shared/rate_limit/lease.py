"""What one worker holds of one limit, and how much it should ask for. No clock, no store: plain numbers.

Times are seconds of the limiter's monotonic clock.
"""

import math
from collections.abc import Iterable

from shared.rate_limit.gcra import Limit
from shared.rate_limit.lease_script import KEY_PREFIX
from shared.rate_limit.lease_store import LEASE_S, Line, LineAnswer
from shared.rate_limit.limits import Cost, LimitKey

USABLE_S = LEASE_S - 1.0
"""A lease is not spent from later than this after it was asked for; the store counts on it for LEASE_S."""
IDLE_S = 5.0
"""Units unused for this long go back; a lease in use is renewed at this age."""
_RATE_AHEAD_S = 2.0
_DEMAND_AHEAD_S = 4.0


class Lease:
    """Units of one limit that this worker may spend without asking; a mutable record of :class:`Limiter`.

    ``units`` are left of ``base`` at the last report; ``spent`` is what else is unreported. At ``low`` more are asked
    for (-1: not before they are gone, the exact mode near the limit). ``room`` units were left in the store and
    ``others`` out at other workers. A cost of ``refused_cost`` or more is refused until ``refused_until``, because the
    store said so. ``asked``: a round trip with it is on its way; ``leaving``: it wants no more. ``debt`` was admitted
    without the store, by the local rule whose arrival is ``local_arrival_us``.
    """

    __slots__ = (
        "asked",
        "base",
        "contact_at",
        "debt",
        "interval_s",
        "key",
        "leaving",
        "limit",
        "local_arrival_us",
        "low",
        "measure",
        "next_unit_at",
        "others",
        "queued_for_report",
        "refused_cost",
        "refused_until",
        "room",
        "seen_at",
        "seen_units",
        "spent",
        "store_at_us",
        "store_key",
        "target",
        "units",
        "usable_until",
    )

    def __init__(self, key: LimitKey) -> None:
        self.key = key
        self.limit: Limit = key.limit
        self.measure = int(key.measure)
        self.store_key = KEY_PREFIX + key.name
        self.interval_s = key.limit.interval_us / 1_000_000
        self.units = self.base = self.spent = self.debt = self.target = self.others = 0
        self.low = -1
        self.room = key.limit.count
        self.usable_until = self.contact_at = self.next_unit_at = self.refused_until = self.seen_at = 0.0
        self.refused_cost = self.seen_units = self.store_at_us = 0
        self.local_arrival_us: int | None = None
        self.queued_for_report = self.leaving = self.asked = False

    def line(self, need: int, queued: int, now: float, *, report: bool = True) -> Line:
        """Form this limit's line of an ask; with ``report`` what was spent until now counts as told."""
        if not report:
            return Line(self.store_key, self.limit, need, queued)
        self.lapse(now)
        spent = self.spent + self.base - self.units
        if spent or queued:
            self.seen_at = now
        wants_more = not self.leaving and (spent or queued or self.units)
        ahead = self._ahead(spent + queued, now) if wants_more or queued else 0
        self.spent, self.base, debt, self.debt = 0, self.units, self.debt, 0
        self.queued_for_report = self.leaving = False
        return Line(self.store_key, self.limit, need, queued, ahead, self.units, spent, debt)

    def take_back(self, line: Line) -> None:
        """Undo the telling of ``line``: nobody knows whether it arrived.

        Telling twice only makes the store stricter.
        """
        self.spent += line.spent
        self.debt += line.debt
        self.low = -1

    def receive(self, line: Line, answer: LineAnswer, *, asked_at: float, now: float, store_now_us: int) -> None:
        """Take in what the store gave; the units for the queue are in ``units`` until the queue takes them."""
        self.units += answer.ahead + answer.queue
        self.base += answer.ahead
        self.room, self.others = max(answer.room, 0), answer.others
        self.next_unit_at = now + answer.next_unit_us / 1_000_000
        self.store_at_us = store_now_us
        if line.held >= 0:
            self.usable_until, self.contact_at = asked_at + USABLE_S, asked_at
            self.low = self.base // 4 if self.base >= 4 else -1

    def settle(self) -> bool:
        """After the queue took its units: whether some were left over, which the store must hear of."""
        if self.units <= self.base:
            return False
        self.base = self.units
        return True

    def lapse(self, now: float) -> None:
        """Stop using units whose time is over, or that came after the lease was to be given back."""
        if self.base and (self.leaving or now >= self.usable_until):
            self.spent += self.base - self.units
            self.units = self.base = 0

    @property
    def is_quiet(self) -> bool:
        """Whether the store knows all about it, so that another record of the same key may begin."""
        return not (self.base or self.spent or self.debt or self.asked or self.queued_for_report)

    def give_back(self) -> None:
        """Stop using what is left; the next report returns it."""
        self.spent += self.base - self.units
        self.units = self.base = self.target = 0
        self.low = -1
        self.leaving = True

    def wait_s(self, cost: int) -> float:
        """Time from the store's last answer until ``cost`` would fit there, as it stood."""
        missing = cost - self.units - self.room
        return 0.0 if missing <= 0 else (missing - 1) * self.interval_s

    def _ahead(self, used: int, now: float) -> int:
        """How many units to hold: what the whole limit gives in 2 s, or 4 s of our own demand, growing fourfold."""
        demand = used / max(now - self.contact_at, 0.001) * _DEMAND_AHEAD_S
        grown = min(demand, 4 * self.target + 4)
        by_rate = self.limit.count * _RATE_AHEAD_S / self.limit.window_s
        self.target = math.ceil(max(grown, by_rate)) if max(grown, by_rate) >= 2 else 0
        return self.target


class KeySet:
    """The limits that hold for one kind of call of one caller; keep it with the caller, it is cheap to use again.

    Made by ``Limiter.key_set``. ``admission`` and ``degraded`` are its two answers when there is room.
    """

    __slots__ = ("admission", "degraded", "header_lines", "keys", "leases")

    def __init__(self, keys: Iterable[LimitKey]) -> None:
        self.keys = tuple(keys)
        self.leases: tuple[Lease, ...] = ()
        self.admission = Admission(self, degraded=False)
        self.degraded = Admission(self, degraded=True)
        self.header_lines: bytes | None = None

    def policy_of(self, lease: Lease) -> str:
        """Name the policy as this set calls it: sets may share a lease under different names."""
        return self.keys[self.leases.index(lease)].policy

    def costs(self, cost: Cost) -> list[tuple[Lease, int]]:
        """Pair each lease with what it is to pay."""
        return [(lease, cost[lease.measure]) for lease in self.leases]


class Admission:
    """The call may go on. ``degraded``: without the store, so it counts as running until ``Limiter.done``."""

    __slots__ = ("degraded", "key_set")

    def __init__(self, key_set: KeySet, *, degraded: bool) -> None:
        self.key_set = key_set
        self.degraded = degraded


class Refusal:
    """The call may not go on.

    ``violated`` are names of policies. ``retry_after_s`` is None if the call costs more than a whole limit.
    ``capacity`` tells a lack of capacity (503) from a quota that is used up (429).
    """

    __slots__ = ("capacity", "key_set", "retry_after_s", "violated")

    def __init__(
        self, key_set: KeySet, violated: tuple[str, ...], retry_after_s: int | None, *, capacity: bool = False
    ) -> None:
        self.key_set = key_set
        self.violated = violated
        self.retry_after_s = retry_after_s
        self.capacity = capacity
