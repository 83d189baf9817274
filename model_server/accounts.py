"""What a caller's calls are charged to: its limits in their prepared form, and the tallies of its usage.

Worked out once for a client, its limits and an attribute, then found by one dictionary look-up a call.
"""

from collections.abc import Iterable, Mapping, Sequence

from model_server.metering import Meter, Tally
from shared.access_token import AccessToken
from shared.rate_limit.budgets import HOUR_S, Budget, effective_limit, limits_for_call
from shared.rate_limit.gcra import Limit
from shared.rate_limit.lease import KeySet
from shared.rate_limit.leases import Limiter
from shared.rate_limit.limits import EXPLANATION_WEIGHT, Cost, LimitKey, Measure
from shared.usage import PROFILE

MAX_ACCOUNTS = 5_000
_MAX_PROFILES = 16


class Tab:
    """One client's calls to one attribute: what they must pass and where they are counted.

    ``counts_rows``: some budget counts rows, so calls with many cost more than one. ``note`` is the tally's, at hand.
    """

    __slots__ = ("counts_rows", "explanation", "key_set", "note", "tally")

    def __init__(self, key_set: KeySet, tally: Tally, explanation_weight: int) -> None:
        self.key_set = key_set
        self.tally = tally
        self.note = tally.note
        self.counts_rows = any(key.measure is Measure.ROWS for key in key_set.keys)
        # An explanation that weighs more than a whole limit could never be had.
        weights = [
            min([explanation_weight, *(key.limit.count for key in key_set.keys if key.measure is measure)])
            for measure in Measure
        ]
        self.explanation = Cost(*weights)


class ProfileTab:
    """One client's profiles of some attributes.

    ``key_set`` holds every limit, for one call of no rows; ``rows`` each budget with the rows that it pays for.
    """

    __slots__ = ("key_set", "note", "rows", "tallies")

    def __init__(
        self, key_set: KeySet, rows: Sequence[tuple[KeySet, Cost]], tally: Tally, tallies: Mapping[str, Tally]
    ) -> None:
        self.key_set = key_set
        self.rows = tuple(rows)
        self.note = tally.note
        self.tallies = tallies


class Account:
    """The tabs of one client under one set of limits; shared by all its tokens that carry the same."""

    __slots__ = ("_accounts", "_budgets", "_client_id", "_limit", "_profiles", "tabs")

    def __init__(self, accounts: "Accounts", client_id: str, limit: Limit, budgets: tuple[Budget, ...]) -> None:
        self._accounts = accounts
        self._client_id = client_id
        self._limit = limit
        self._budgets = budgets
        self._profiles: dict[frozenset[str], ProfileTab] = {}
        self.tabs: dict[str, Tab] = {}

    def open(self, attribute_id: str) -> Tab:
        """Make the tab of a loaded attribute; ``tabs`` has it from then on."""
        accounts = self._accounts
        key_set = accounts.limiter.key_set(self._keys(attribute_id))
        tally = accounts.meter.tally(self._client_id, attribute_id)
        tab = self.tabs[attribute_id] = Tab(key_set, tally, accounts.explanation_weight)
        return tab

    def profile(self, attribute_ids: frozenset[str]) -> ProfileTab:
        """Give the tab of a profile of these attributes."""
        tab = self._profiles.get(attribute_ids)
        if tab is None:
            if len(self._profiles) >= _MAX_PROFILES:
                self._profiles.clear()
            tab = self._profiles[attribute_ids] = self._open_profile(sorted(attribute_ids))
        return tab

    def _open_profile(self, attribute_ids: Sequence[str]) -> ProfileTab:
        limiter, tally = self._accounts.limiter, self._accounts.meter.tally
        keys: dict[str, LimitKey] = {}
        n_rows: dict[str, int] = {}
        for attribute_id in attribute_ids:
            for key in self._keys(attribute_id):
                keys.setdefault(key.name, key)
                n_rows[key.name] = n_rows.get(key.name, 0) + 1
        rows = [
            (limiter.key_set([key]), Cost(0, n_rows[key.name])) for key in keys.values() if key.measure is Measure.ROWS
        ]
        tallies = {attribute_id: tally(self._client_id, attribute_id) for attribute_id in attribute_ids}
        return ProfileTab(limiter.key_set(_distinct(keys.values())), rows, tally(self._client_id, PROFILE), tallies)

    def _keys(self, attribute_id: str) -> tuple[LimitKey, ...]:
        return limits_for_call(
            self._client_id,
            attribute_id,
            client_limit=self._limit,
            attribute_limit=self._accounts.attribute_limits.get(attribute_id),
            budgets=self._budgets,
        )


class Accounts:
    """The accounts of one worker: at most 5,000, then emptied; a caller keeps the one it has.

    ``calls_per_hour`` holds where a token brings no limit; ``attribute_limits`` for one client on one attribute.
    """

    def __init__(
        self,
        limiter: Limiter,
        meter: Meter,
        *,
        calls_per_hour: int,
        attribute_limits: Iterable[tuple[str, int]] = (),
        explanation_weight: int = EXPLANATION_WEIGHT,
    ) -> None:
        self.limiter = limiter
        self.meter = meter
        self.explanation_weight = explanation_weight
        self.attribute_limits = {name: Limit(count, HOUR_S) for name, count in attribute_limits}
        self._calls_per_hour = calls_per_hour
        self._accounts: dict[tuple[str, int | None, tuple[Budget, ...]], Account] = {}

    def of(self, token: AccessToken) -> Account:
        """Give the account of a verified token."""
        key = (token.client_id, token.calls_per_hour, token.budgets)
        account = self._accounts.get(key)
        if account is None:
            if len(self._accounts) >= MAX_ACCOUNTS:
                self._accounts.clear()
            own = None if token.calls_per_hour is None else Limit(token.calls_per_hour, HOUR_S)
            limit = effective_limit(own, default_per_hour=self._calls_per_hour)
            account = self._accounts[key] = Account(self, token.client_id, limit, token.budgets)
        return account


def _distinct(keys: Iterable[LimitKey]) -> list[LimitKey]:
    """Give each policy a name of its own, as callers tell them apart by it: limits of several attributes share one."""
    seen: dict[str, int] = {}
    named = []
    for key in keys:
        number = seen[key.policy] = seen.get(key.policy, 0) + 1
        named.append(key if number == 1 else key._replace(policy=f"{key.policy}-{number}"))
    return named
