"""What the model server answers when it is asked why."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from flex_client.answers import Model, number


@dataclass(frozen=True, slots=True)
class Contribution:
    """By how many points one feature moved the model's number; ``value`` is None where it was missing."""

    feature: str
    label: str
    value: float | None
    points: float

    @classmethod
    def read(cls, members: Mapping[str, Any]) -> Self:
        """Read one contribution."""
        return cls(
            feature=str(members["feature"]),
            label=str(members.get("label", members["feature"])),
            value=number(members.get("value")),
            points=float(members["points"]),
        )


@dataclass(frozen=True, slots=True)
class Narrowing:
    """The missing answer that would help most; ``message`` says what it would change."""

    feature: str
    label: str
    message: str
    narrows_by: float

    @classmethod
    def read(cls, members: Mapping[str, Any]) -> Self:
        """Read the ``would_narrow_most`` object of an explanation."""
        return cls(
            feature=str(members["feature"]),
            label=str(members.get("label", members["feature"])),
            message=str(members.get("message", "")),
            narrows_by=float(members.get("narrows_by", 0.0)),
        )


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a score is what it is: ``base_value`` and all contributions add up to ``raw`` (see ``points_of``).

    ``status`` is ``ok`` or ``insufficient_data``; with the latter there is only ``would_narrow_most``.
    """

    id: str | None
    attribute: str
    status: str
    score: float | None
    raw: float | None
    unit: str
    points_of: str
    base_value: float | None
    contributions: tuple[Contribution, ...]
    reasons: tuple[str, ...]
    would_narrow_most: Narrowing | None
    coverage: float
    missing: tuple[str, ...]
    warnings: tuple[str, ...]
    model: Model
    not_for: tuple[str, ...]

    @classmethod
    def read(cls, members: Mapping[str, Any]) -> Self:
        """Read the answer. KeyError, TypeError or ValueError if it is none."""
        narrowing = members.get("would_narrow_most")
        return cls(
            id=members.get("id"),
            attribute=str(members["attribute"]),
            status=str(members.get("status", "ok")),
            score=number(members.get("score")),
            raw=number(members.get("raw")),
            unit=str(members.get("unit", "")),
            points_of=str(members.get("points_of", "raw")),
            base_value=number(members.get("base_value")),
            contributions=tuple(Contribution.read(entry) for entry in members.get("contributions", ())),
            reasons=tuple(map(str, members.get("reasons", ()))),
            would_narrow_most=None if narrowing is None else Narrowing.read(narrowing),
            coverage=float(members["coverage"]),
            missing=tuple(members.get("missing", ())),
            warnings=tuple(members.get("warnings", ())),
            model=Model.read(members["model"]),
            not_for=tuple(members.get("not_for", ())),
        )
