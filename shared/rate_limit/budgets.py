"""From settings and token to limits: the client's, the API key's, the attribute's and the token's own budget.

All that apply must have room, so the narrower one always wins, and none can widen another. Pure.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from shared.rate_limit.gcra import MAX_COUNT, MAX_WINDOW_S, Limit
from shared.rate_limit.limits import LimitKey, Measure

HOUR_S = 3600
DETAIL_TYPE = "model_call"
MAX_DETAILS = 16
MAX_ATTRIBUTES = 64
EVERY_ATTRIBUTE = "*"
_PERIODS_S = {"minute": 60, "hour": HOUR_S, "day": 86_400}
_WORDS = {seconds: word for word, seconds in _PERIODS_S.items()}
_ATTRIBUTE = re.compile(r"[a-z][a-z0-9_]{0,63}")
_MEMBERS = frozenset({"type", "attributes", "rows", "period"})


class BudgetError(ValueError):
    """``authorization_details`` that can't be accepted (RFC 9396 section 5); the text names the member, no value."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Rows that a token allows: RFC 9396 ``{"type": "model_call", "attributes": […], "rows": n, "period": "hour"}``.

    ``attributes`` are sorted ids, or ``("*",)`` for all; they share the rows. ``ceiling``: it bounds, and opens nothing
    by itself: what the client may use with all its tokens together, beside the narrower budget of one of them.
    """

    attributes: tuple[str, ...]
    limit: Limit
    ceiling: bool = False

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
    ``hour``, ``day``, or 1 to 2,678,400 seconds. Only our own issuer adds a fifth, ``"ceiling": true``.
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
    if raw.keys() - {"ceiling"} != _MEMBERS or raw.get("ceiling", True) is not True:
        raise BudgetError("a model_call has exactly the members type, attributes, rows and period")
    rows, period = raw["rows"], raw["period"]
    window_s = _PERIODS_S.get(period) if isinstance(period, str) else period
    if type(window_s) is not int or not 0 < window_s <= MAX_WINDOW_S:
        raise BudgetError(f"period: minute, hour, day, or 1 to {MAX_WINDOW_S} seconds")
    if type(rows) is not int or not 0 < rows <= min(MAX_COUNT, window_s * 1_000_000):
        raise BudgetError(f"rows: 1 to {MAX_COUNT}, and at most a million a second")
    return Budget(_parse_attributes(raw["attributes"]), Limit(rows, window_s), "ceiling" in raw)


def _parse_attributes(raw: object) -> tuple[str, ...]:
    if not isinstance(raw, list) or not 0 < len(raw) <= MAX_ATTRIBUTES:
        raise BudgetError(f"attributes: a list of 1 to {MAX_ATTRIBUTES} ids")
    if raw == [EVERY_ATTRIBUTE]:
        return (EVERY_ATTRIBUTE,)
    if not all(isinstance(item, str) and _ATTRIBUTE.fullmatch(item) for item in raw) or len(set(raw)) != len(raw):
        raise BudgetError("attributes: different attribute ids, or only *")
    return tuple(sorted(raw))


def detail(budget: Budget) -> dict[str, object]:
    """Give the RFC 9396 object that :func:`parse_details` reads back as this budget."""
    period = _WORDS.get(budget.limit.window_s, budget.limit.window_s)
    members = {"type": DETAIL_TYPE, "attributes": list(budget.attributes), "rows": budget.limit.count, "period": period}
    return members | {"ceiling": True} if budget.ceiling else members


def narrowed(own: Sequence[Budget], asked: Sequence[Budget]) -> tuple[Budget, ...]:
    """Budgets of a token for which ``asked`` was requested, by a client that has ``own`` (none: it may have any).

    Each one asked for must be within one of the client's: in attributes, in rows, and in rows a second. What the client
    has of the same attributes comes along as a ceiling, so that its tokens together get no more, however they divide
    it. Raises BudgetError.
    """
    if not asked:
        return tuple(own)
    if any(budget.ceiling for budget in asked):
        raise BudgetError("ceiling is not for clients to ask")
    if own and not all(any(_is_within(budget, held) for held in own) for budget in asked):
        raise BudgetError("more was asked for than the client may have")
    ceilings = [held for held in own if held not in asked and any(_overlaps(budget, held) for budget in asked)]
    return (*asked, *(replace(held, ceiling=True) for held in ceilings))


def _overlaps(one: Budget, other: Budget) -> bool:
    return any(map(one.covers, other.attributes)) or any(map(other.covers, one.attributes))


def _is_within(asked: Budget, held: Budget) -> bool:
    slower = asked.limit.count * held.limit.window_s <= held.limit.count * asked.limit.window_s
    return slower and asked.limit.count <= held.limit.count and all(map(held.covers, asked.attributes))


def may_call(budgets: Sequence[Budget], attribute: str) -> bool:
    """Whether a token with these budgets may call the attribute at all; one without budgets may."""
    return not budgets or any(budget.covers(attribute) for budget in budgets if not budget.ceiling)


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
    return prefix + _WORDS.get(limit.window_s, f"{limit.window_s}s")
