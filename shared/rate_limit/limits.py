"""What is limited, and what a call costs."""

from enum import IntEnum
from typing import NamedTuple

from shared.rate_limit.gcra import Limit

EXPLANATION_WEIGHT = 10
"""An explanation costs as much as this many predictions (its work is 69 times as much, its harm to others less)."""


class Measure(IntEnum):
    """What a limit counts; the value is the place in :class:`Cost`."""

    CALLS = 0
    ROWS = 1


class Cost(NamedTuple):
    """What one request costs in each measure; both at least 1."""

    calls: int
    rows: int


CALL = Cost(1, 1)


def cost_of_rows(n_rows: int) -> Cost:
    """Price of one call with ``n_rows`` records (at least 1)."""
    return Cost(1, max(n_rows, 1))


def cost_of_explanations(n_rows: int = 1, weight: int = EXPLANATION_WEIGHT) -> Cost:
    """Price of one call that explains ``n_rows`` records, each weighing as much as ``weight`` predictions."""
    return Cost(weight, weight * max(n_rows, 1))


class LimitKey(NamedTuple):
    """One limit on one thing.

    ``name`` is what is counted together, unique over all kinds (``client:<id>``, ``key:<id>``); ``policy`` is what
    the caller reads in ``RateLimit-Policy``, unique within one call and free of ids.
    """

    name: str
    limit: Limit
    measure: Measure = Measure.CALLS
    policy: str = "hour"
