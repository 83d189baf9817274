"""The answers a caller gets for one record, and how a model's number becomes one.

Everything that does not change from record to record is bound once per attribute: this runs for every call.
"""

from bisect import bisect_right
from collections.abc import Callable
from math import floor
from typing import Literal

import msgspec

from model_server.metadata import Interval, Metadata
from model_server.records import Record

FULL_COVERAGE = 0.9  # from here on the narrow interval holds
MIN_COVERAGE = 0.5  # below it there is no number at all


class ModelRef(msgspec.Struct, frozen=True):
    """Which model gave an answer; `sha256` is of its model text, in lower-case hex."""

    version: str
    sha256: str


class Answer(msgspec.Struct, frozen=True, gc=False):
    """One score. `raw` is the model's own number in float64; `score` is `raw` within the scale, to 4 decimals.

    `interval80` held the true value for 80 % of people the model never saw. `percentile` is among the model's own
    predictions, 1 to 99. `coverage` is the share of the model's total gain that rests on the features present.
    """

    id: str | None
    attribute: str
    score: float
    raw: float
    unit: str
    interval80: tuple[float, float]
    percentile: int
    band: Literal["low", "typical", "high"]
    coverage: float
    missing: tuple[str, ...]
    warnings: tuple[str, ...]
    model: ModelRef
    not_for: tuple[str, ...]


class Insufficient(msgspec.Struct, frozen=True, gc=False):
    """Too little is known for a score: `coverage` is below 0.5."""

    id: str | None
    attribute: str
    status: Literal["insufficient_data"]
    coverage: float
    missing: tuple[str, ...]
    warnings: tuple[str, ...]
    model: ModelRef
    not_for: tuple[str, ...]


#: (record, its coverage from 0.5 to 1, the model's number) to an answer
AnswerMaker = Callable[[Record, float, float], Answer]


def half_width(interval: Interval, covered: float) -> float:
    """Return the 80 % interval's half-width for a coverage of at least 0.5, in the score's unit."""
    return interval.half_width_full if covered >= FULL_COVERAGE else interval.half_width_partial


def to_4_decimals(number: float) -> float:
    """Round half up, to the float nearest to 4 decimals; a quarter of the time that `round` takes."""
    return floor(number * 1e4 + 0.5) / 1e4


def answer_maker(metadata: Metadata, model_ref: ModelRef) -> AnswerMaker:
    """Bind what is the same in all answers of one attribute."""
    attribute, unit, not_for = metadata.id, metadata.unit, metadata.not_for
    lowest, highest = metadata.score_range
    low_below, high_from = metadata.bands.low_below, metadata.bands.high_from
    full, partial = metadata.interval.half_width_full, metadata.interval.half_width_partial
    percentiles = metadata.reference.percentiles

    def answer(record: Record, covered: float, raw: float) -> Answer:
        half = full if covered >= FULL_COVERAGE else partial
        score, low, high = raw, raw - half, raw + half
        if low < lowest or high > highest:
            score, low, high = (min(max(number, lowest), highest) for number in (score, low, high))
        return Answer(
            record.id,
            attribute,
            floor(score * 1e4 + 0.5) / 1e4,
            raw,
            unit,
            (floor(low * 1e4 + 0.5) / 1e4, floor(high * 1e4 + 0.5) / 1e4),
            bisect_right(percentiles, raw, 1, 99),  # the bounds make it 1 to 99
            "low" if raw < low_below else "high" if raw >= high_from else "typical",
            covered,
            record.missing,
            record.warnings,
            model_ref,
            not_for,
        )

    return answer
