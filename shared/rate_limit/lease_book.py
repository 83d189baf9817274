"""All leases of one worker: found by key, bounded in number, renewed while used, given back when idle.

Holds at most ``max_keys`` leases (one is about 350 bytes) and those whose units are just going back; the least
recently added that nobody used since goes first. Emptied by ``give_back_all``.
"""

import asyncio
from collections.abc import Callable

from shared.rate_limit.gcra import Limit
from shared.rate_limit.lease import IDLE_S, KeySet, Lease
from shared.rate_limit.lease_script import lease_field
from shared.rate_limit.lease_store import LEASE_S
from shared.rate_limit.limits import Cost, LimitKey

_MAX_SECOND_CHANCES = 8


class LeaseBook:
    """The leases; ``on_report`` is called when there is something to tell the store (see ``reports``)."""

    def __init__(self, *, worker: str, max_keys: int, on_report: Callable[[], None]) -> None:
        self._worker = worker
        self._max_keys = max_keys
        self._on_report = on_report
        self._leases: dict[tuple[str, Limit], Lease] = {}
        self._holding: dict[Lease, None] = {}
        self.holding = asyncio.Event()
        self.reports: list[Lease] = []

    def __len__(self) -> int:
        return len(self._leases)

    def resolve(self, key_set: KeySet) -> None:
        """Point a key set at the leases in use now."""
        key_set.leases = tuple([self._lease(key) for key in key_set.keys])

    def report(self, lease: Lease) -> None:
        """Have the lease's line sent: for more units, or to tell what was spent and what goes back."""
        if not lease.queued_for_report:
            lease.queued_for_report = True
            self.reports.append(lease)
            self._on_report()

    def take(self, key_set: KeySet, cost: Cost) -> bool:
        """Spend ``cost`` of all its leases, or nothing."""
        for lease in key_set.leases:
            if lease.units < cost[lease.measure]:
                return False
        for lease in key_set.leases:
            lease.units -= cost[lease.measure]
        return True

    def hold(self, lease: Lease) -> None:
        """Watch a lease that the store believes to have units."""
        if lease.base:
            self._holding[lease] = None
            self.holding.set()

    def recall(self, store_key: str, field: str, store_time_us: int) -> None:
        """Give back what is left of one key, because another lease of it, in this ``field`` of the store, is short."""
        for lease in self._holding:
            # An older recall was meant for units that have gone back since.
            wanted = lease.store_key == store_key and lease.store_at_us <= store_time_us
            if wanted and field != lease_field(self._worker, lease.limit):
                lease.give_back()
                self.report(lease)

    def review(self, now: float) -> None:
        """Renew leases in use, give back idle ones, forget what is over. To be called about once a second."""
        for lease in list(self._holding):
            if now >= lease.contact_at + LEASE_S:
                lease.lapse(now)
                del self._holding[lease]
            elif lease.units != lease.seen_units:
                lease.seen_units, lease.seen_at = lease.units, now
                if now - lease.contact_at >= IDLE_S:
                    self.report(lease)
            elif lease.units and now - lease.seen_at >= IDLE_S:
                lease.give_back()
                self.report(lease)
            elif lease.units and now - lease.contact_at >= IDLE_S:
                self.report(lease)
        if not self._holding:
            self.holding.clear()

    def give_back_all(self) -> None:
        """Give back every unit, as on leaving."""
        for lease in list(self._holding):
            lease.give_back()
            self.report(lease)

    def store_is_back(self) -> None:
        """Leave the local rules, and tell the store what they admitted."""
        for lease in self._leases.values():
            lease.local_arrival_us = None
            if lease.debt:
                self.report(lease)

    def _lease(self, key: LimitKey) -> Lease:
        counted = key.name, key.limit  # whatever the policy is called: two records would report against each other
        lease = self._leases.get(counted)
        if lease is None:
            if len(self._leases) >= self._max_keys:
                self._evict()
            lease = self._leases[counted] = Lease(key)
        return lease

    def _evict(self) -> None:
        for _ in range(_MAX_SECOND_CHANCES):
            key = next(iter(self._leases))
            lease = self._leases.pop(key)
            if lease.is_quiet:
                return
            # Two records of one key would report against each other, so it leaves only once nothing is out on it.
            self._leases[key] = lease
            lease.give_back()
            self.report(lease)
