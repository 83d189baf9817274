"""From settings and token to limits: the client's, the API key's, the attribute's and the token's own budget.

All that apply must have room, so the narrower one always wins, and none can widen another. Pure.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from shared.rate_limit.gcra import MAX_COUNT, MAX_WINDOW_S, Limit
from shared.rate_limit.limits import LimitKey, Measure

HOUR_S = 3600
DETAIL_TYPE = "model_call"
MAX_DETAILS = 16
MAX_ATTRIBUTES = 64
EVERY_ATTRIBUTE = "*"
_PERIODS_S = {"minute": 60, "hour": HOUR_S, "day": 86_400}
_ATTRIBUTE = re.compile(r"[a-z][a-z0-9_]{0,63}")
_MEMBERS = frozenset({"type", "attributes", "rows", "period"})


class BudgetError(ValueError):
    """``authorization_details`` that can't be accepted (RFC 9396 section 5); the text names the member, no value."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Rows that a token allows: RFC 9396 ``{"type": "model_call", "attributes": […], "rows": n, "period": "hour"}``.

    ``attributes`` are sorted ids, or ``("*",)`` for all; they share the rows.
    """

    attributes: tuple[str, ...]
    limit: Limit

    def covers(self, attribute: str) -> bool:
        """Whether calls to this attribute draw on the budget."""
        return attribute in self.attributes or EVERY_ATTRIBUTE in self.attributes

    @property
    def digest(self) -> str:
        """A name for the budget's content, so that a new token with the same details goes on with the same count."""
        text = f"{','.join(self.attributes)};{self.limit.count};{self.limit.window_s}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def parse_details(raw_details: object) -> tuple[Budget, ...]:
    """Read the budgets out of an ``authorization_details`` value (parsed JSON; None: there is none).

    Strict: at most 16 entries, every one of type ``model_call`` with exactly its four members; ``attributes`` 1 to 64
    different ids or ``["*"]``; ``rows`` 1 to 10**8; ``period`` ``minute``,
    ``hour``, ``day``, or 1 to 2,678,400 seconds.
    Raises BudgetError for anything else: a detail that is not understood might be a restriction.
    """
    if raw_details is None:
        return ()
    if not isinstance(raw_details, list) or not 0 < len(raw_details) <= MAX_DETAILS:
        raise BudgetError(f"authorization_details must be a list of 1 to {MAX_DETAILS} objects")
    return tuple(_parse_one(raw) for raw in raw_details)


def _parse_one(raw: object) -> Budget:
    if not isinstance(raw, dict) or raw.get("type") != DETAIL_TYPE:
        raise BudgetError("type: only model_call is known")
    if raw.keys() != _MEMBERS:
        raise BudgetError("a model_call has exactly the members type, attributes, rows and period")
    rows, period = raw["rows"], raw["period"]
    window_s = _PERIODS_S.get(period) if isinstance(period, str) else period
    if type(window_s) is not int or not 0 < window_s <= MAX_WINDOW_S:
        raise BudgetError(f"period: minute, hour, day, or 1 to {MAX_WINDOW_S} seconds")
    if type(rows) is not int or not 0 < rows <= min(MAX_COUNT, window_s * 1_000_000):
        raise BudgetError(f"rows: 1 to {MAX_COUNT}, and at most a million a second")
    return Budget(_parse_attributes(raw["attributes"]), Limit(rows, window_s))


def _parse_attributes(raw: object) -> tuple[str, ...]:
    if not isinstance(raw, list) or not 0 < len(raw) <= MAX_ATTRIBUTES:
        raise BudgetError(f"attributes: a list of 1 to {MAX_ATTRIBUTES} ids")
    if raw == [EVERY_ATTRIBUTE]:
        return (EVERY_ATTRIBUTE,)
    if not all(isinstance(item, str) and _ATTRIBUTE.fullmatch(item) for item in raw) or len(set(raw)) != len(raw):
        raise BudgetError("attributes: different attribute ids, or only *")
    return tuple(sorted(raw))


def may_call(budgets: Sequence[Budget], attribute: str) -> bool:
    """Whether a token with these budgets may call the attribute at all; one without budgets may."""
    return not budgets or any(budget.covers(attribute) for budget in budgets)


def effective_limit(own: Limit | None, *, default_per_hour: int) -> Limit:
    """Give a client's limit: its own setting, else the server's default (``FLEX_RATE_LIMIT_PER_HOUR``)."""
    return own if own is not None else Limit(default_per_hour, HOUR_S)


def limits_for_call(
    client_id: str,
    attribute: str,
    *,
    client_limit: Limit,
    api_key_id: str | None = None,
    api_key_limit: Limit | None = None,
    attribute_limit: Limit | None = None,
    budgets: Sequence[Budget] = (),
) -> tuple[LimitKey, ...]:
    """List every limit that a call of this client to this attribute must pass; each has its own policy name.

    ``attribute_limit`` is for one client on one attribute. An API key without a setting has its client's limit only.
    """
    keys = [LimitKey(f"client:{client_id}", client_limit, Measure.CALLS, _policy("", client_limit))]
    if api_key_id is not None and api_key_limit is not None:
        keys.append(LimitKey(f"key:{api_key_id}", api_key_limit, Measure.CALLS, _policy("key-", api_key_limit)))
    if attribute_limit is not None:
        policy = _policy("attribute-", attribute_limit)
        keys.append(LimitKey(f"attribute:{attribute}:{client_id}", attribute_limit, Measure.CALLS, policy))
    for budget in budgets:
        if budget.covers(attribute):
            number = sum(key.measure is Measure.ROWS for key in keys) + 1
            policy = _policy("rows-" if number == 1 else f"rows{number}-", budget.limit)
            keys.append(LimitKey(f"rows:{budget.digest}:{client_id}", budget.limit, Measure.ROWS, policy))
    return tuple(dict.fromkeys(keys))


def _policy(prefix: str, limit: Limit) -> str:
    words = {seconds: word for word, seconds in _PERIODS_S.items()}
    return prefix + words.get(limit.window_s, f"{limit.window_s}s")
