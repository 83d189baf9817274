"""Why a score is what it is: contributions, reasons in words, and which missing answer would help most.

Contributions are SHAP values of `raw`: the points by which each feature moved the model's sum away from its base
value. They explain the model, not the person. Words follow the sign of the contribution and nothing else: where the
usual wording of a feature would sound like the contrary, a neutral one is used.
"""

import math
from collections.abc import Sequence
from typing import Literal

import msgspec

from model_server.answers import FULL_COVERAGE, MIN_COVERAGE, ModelRef, half_width, to_4_decimals
from model_server.attribute import Attribute
from model_server.metadata import FeatureNote
from model_server.records import Record
from shared.errors import AppError

MAX_REASONS = 3
_MUCH, _CLEARLY = 0.04, 0.01  # share of the score range from which a contribution is called so
_POINT_UNITS = {"pomp_0_100": "points", "percent": "points", "days": "days"}


class Contribution(msgspec.Struct, frozen=True, gc=False):
    """What one feature did: `points` of `raw` (log-odds for a probability). `value` is null where it was missing."""

    feature: str
    label: str
    value: float | None
    points: float


class Narrowing(msgspec.Struct, frozen=True, gc=False):
    """The missing feature on which most of the model rests, and what an answer to it would change.

    `half_width80` and `half_width80_then` are in the score's unit, null where coverage is too low for any score.
    `narrows_by` is the difference and 0 where that one answer is not enough to reach the narrower interval.
    """

    feature: str
    label: str
    coverage_then: float
    half_width80: float | None
    half_width80_then: float | None
    narrows_by: float
    reaches_full_coverage: bool
    message: str


class Explanation(msgspec.Struct, frozen=True, gc=False):
    """An explained score. `base_value` and all `points` add up to `raw`, or to its log-odds (`points_of`)."""

    id: str | None
    attribute: str
    score: float
    raw: float
    unit: str
    points_of: Literal["raw", "log_odds"]
    base_value: float
    contributions: list[Contribution]
    reasons: list[str]
    would_narrow_most: Narrowing | None
    coverage: float
    missing: tuple[str, ...]
    warnings: tuple[str, ...]
    model: ModelRef
    not_for: tuple[str, ...]


class Unexplained(msgspec.Struct, frozen=True, gc=False):
    """Too little is known for a score, so there is nothing to explain but what is needed most."""

    id: str | None
    attribute: str
    status: Literal["insufficient_data"]
    would_narrow_most: Narrowing | None
    coverage: float
    missing: tuple[str, ...]
    warnings: tuple[str, ...]
    model: ModelRef
    not_for: tuple[str, ...]


def explain(attribute: Attribute, record: Record) -> Explanation | Unexplained:
    """Explain one record in the calling thread: 0.1 ms and more, so meant for a pool.

    AppError `internal_error` should contributions ever fail to add up to the score: a wrong reason is worse than none.
    """
    covered = attribute.coverage(record.missing) if record.missing else 1.0
    if covered < MIN_COVERAGE:
        return Unexplained(
            record.id,
            attribute.id,
            "insufficient_data",
            narrowing(attribute, record, covered),
            covered,
            record.missing,
            record.warnings,
            attribute.model_ref,
            attribute.metadata.not_for,
        )
    raw = attribute.model.predict_one(record.values)
    *points, base_value = attribute.model.contributions(record.values)
    _check_sum(attribute, raw, math.fsum(points) + base_value)
    answer = attribute.answer(record, covered, raw)
    contributions = _sorted_contributions(attribute, record, points)
    return Explanation(
        record.id,
        attribute.id,
        answer.score,
        raw,
        answer.unit,
        "log_odds" if attribute.is_probability else "raw",
        base_value,
        contributions,
        reasons(attribute, contributions),
        narrowing(attribute, record, covered),
        covered,
        record.missing,
        record.warnings,
        attribute.model_ref,
        attribute.metadata.not_for,
    )


def reasons(attribute: Attribute, contributions: Sequence[Contribution]) -> list[str]:
    """Return at most three sentences for the largest contributions, largest first; none for a contribution of 0."""
    return [_sentence(attribute, contribution) for contribution in contributions[:MAX_REASONS] if contribution.points]


def narrowing(attribute: Attribute, record: Record, covered: float) -> Narrowing | None:
    """Return the missing feature with the largest share of the model's gain; None where none is missing or counts."""
    feature = max(record.missing, key=attribute.gain_shares.__getitem__, default=None)
    if feature is None or not attribute.gain_shares[feature]:
        return None
    interval = attribute.metadata.interval
    then = attribute.coverage([name for name in record.missing if name != feature])
    now_half = half_width(interval, covered) if covered >= MIN_COVERAGE else None
    then_half = half_width(interval, then) if then >= MIN_COVERAGE else None
    gained = to_4_decimals(now_half - then_half) if now_half is not None and then_half is not None else 0.0
    label = attribute.metadata.features[feature].label or feature
    reaches_full = covered < FULL_COVERAGE <= then
    effect = _effect(attribute, covered, then)
    message = f"“{label.rstrip('.')}” is the missing answer that this model would use most: {effect}"
    return Narrowing(feature, label, then, now_half, then_half, gained, reaches_full, message)


def _effect(attribute: Attribute, covered: float, then: float) -> str:
    """Say honestly what one more answer does to the interval: often nothing yet."""
    interval, word = attribute.metadata.interval, _unit_word(attribute)
    if then < MIN_COVERAGE:
        return f"it would raise coverage from {covered:.1%} to {then:.1%}, still too little for a score."
    if covered < MIN_COVERAGE:
        return f"with it there would be a score, ± {half_width(interval, then):.1f} {word}."
    if covered < FULL_COVERAGE <= then and interval.half_width_full < interval.half_width_partial:
        before, after = interval.half_width_partial, interval.half_width_full
        return f"with it the interval would narrow from ± {before:.1f} to ± {after:.1f} {word}."
    return f"it would raise coverage from {covered:.1%} to {then:.1%}; the stated interval would stay as wide."


def _sorted_contributions(attribute: Attribute, record: Record, points: Sequence[float]) -> list[Contribution]:
    notes = attribute.metadata.features
    found = [
        Contribution(
            feature.name, notes[feature.name].label or feature.name, None if math.isnan(value) else value, share
        )
        for feature, value, share in zip(attribute.features, record.values, points, strict=True)
    ]
    return sorted(found, key=lambda contribution: -abs(contribution.points))


def _check_sum(attribute: Attribute, raw: float, total: float) -> None:
    """Contributions must add up to the score (for a probability: to its log-odds, so compare after the link)."""
    expected = 1 / (1 + math.exp(-total)) if attribute.is_probability else total
    if not abs(expected - raw) <= 1e-9 * max(1.0, abs(raw)):
        raise AppError("internal_error", reason="contributions_do_not_add_up")


def _sentence(attribute: Attribute, contribution: Contribution) -> str:
    note = attribute.metadata.features[contribution.feature]
    low, high = attribute.metadata.score_range
    size = abs(contribution.points) / (high - low)
    way = "higher" if contribution.points > 0 else "lower"
    if attribute.is_probability:
        return f"{way.capitalize()} because {_cause(note, contribution)}."
    words = f"much {way}" if size >= _MUCH else f"clearly {way}" if size >= _CLEARLY else f"slightly {way}"
    amount = f"{contribution.points:+.1f}" if abs(contribution.points) >= 0.05 else f"{contribution.points:+.2g}"
    return f"{words.capitalize()} ({amount} {_unit_word(attribute)}) because {_cause(note, contribution)}."


def _cause(note: FeatureNote, contribution: Contribution) -> str:
    """Return the second half of a sentence; it says only what is true of the value, never which way it worked."""
    quoted = f"“{contribution.label.rstrip('.')}”"
    value = contribution.value
    if value is None:
        return f"there is no answer for {quoted}"
    side = 0 if note.median is None else (value > note.median) - (value < note.median)
    contrary = note.direction * side * contribution.points < 0
    half = {1: note.reason_more, -1: note.reason_less}.get(side, "")
    return half if half and not contrary else f"of the value {value:g} for {quoted}"


def _unit_word(attribute: Attribute) -> str:
    unit = attribute.metadata.unit
    return _POINT_UNITS.get(unit, unit)
