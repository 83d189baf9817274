"""What the model server answers, as frozen dataclasses.

Members that this client does not know are ignored, so that it works with a newer server. A member that it needs and
does not find is a FlexError of the call (``replies.unexpected``).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from flex_client.errors import FieldProblem
from flex_client.replies import field_problems

Features = Mapping[str, float | int | str | bool | None]
"""Answers by feature name; None for one that is missing (never NaN)."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a batch: its features, and an id of the caller's own that comes back with the answer."""

    features: Features
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """Which model gave an answer: its version, and the SHA-256 of its file in hexadecimal."""

    version: str
    sha256: str

    @classmethod
    def read(cls, members: Mapping[str, Any]) -> Self:
        """Read the ``model`` object of an answer."""
        return cls(version=str(members["version"]), sha256=str(members["sha256"]))


@dataclass(frozen=True, slots=True)
class Prediction:
    """One score. ``status`` is ``ok`` or ``insufficient_data``; with the latter there is no score.

    ``score`` is in ``unit`` (``raw`` before it was clipped to the scale); ``interval80`` holds the truth in 80 % of
    cases; ``percentile`` is 1 to 99; ``band`` is low, typical or high; ``coverage`` is the share (0 to 1) of the
    model's information that was present; ``not_for`` names uses that the attribute is not meant for.
    """

    id: str | None
    attribute: str
    status: str
    score: float | None
    raw: float | None
    unit: str
    interval80: tuple[float, float] | None
    percentile: int | None
    band: str | None
    coverage: float
    missing: tuple[str, ...]
    warnings: tuple[str, ...]
    model: Model
    not_for: tuple[str, ...]

    @classmethod
    def read(cls, members: Mapping[str, Any]) -> Self:
        """Read an answer of predict, batch or profile. KeyError, TypeError or ValueError if it is none."""
        interval = members.get("interval80")
        return cls(
            id=members.get("id"),
            attribute=str(members["attribute"]),
            status=str(members.get("status", "ok")),
            score=number(members.get("score")),
            raw=number(members.get("raw")),
            unit=str(members.get("unit", "")),
            interval80=None if interval is None else (float(interval[0]), float(interval[1])),
            percentile=members.get("percentile"),
            band=members.get("band"),
            coverage=float(members["coverage"]),
            missing=tuple(members.get("missing", ())),
            warnings=tuple(members.get("warnings", ())),
            model=Model.read(members["model"]),
            not_for=tuple(members.get("not_for", ())),
        )


@dataclass(frozen=True, slots=True)
class RecordError:
    """What stands in a record's place when it could not be scored; in a profile ``attribute`` says by which model."""

    id: str | None
    attribute: str | None
    status: int
    title: str
    detail: str
    errors: tuple[FieldProblem, ...]

    @classmethod
    def read(cls, members: Mapping[str, Any]) -> Self:
        """Read an error of a batch. KeyError, TypeError or ValueError if it is none."""
        return cls(
            id=members.get("id"),
            attribute=members.get("attribute"),
            status=int(members["status"]),
            title=str(members.get("title", "")),
            detail=str(members.get("detail", members.get("error", ""))),
            errors=field_problems(members.get("errors")),
        )


def read_result(members: Mapping[str, Any]) -> Prediction | RecordError:
    """Read one place of a batch: an error has an ``error`` member, a score has none."""
    return RecordError.read(members) if "error" in members else Prediction.read(members)


@dataclass(frozen=True, slots=True)
class AttributeSummary:
    """An attribute that the token may use; ``endpoints`` has the path for each thing it may be used for."""

    id: str
    title: str
    version: str
    endpoints: Mapping[str, str]

    @classmethod
    def read(cls, members: Mapping[str, Any]) -> Self:
        """Read one entry of the list."""
        return cls(
            id=str(members["id"]),
            title=str(members["title"]),
            version=str(members["version"]),
            endpoints={str(name): str(path) for name, path in members["endpoints"].items()},
        )


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute in full: its card (Markdown), the JSON Schema of its record, and a request body ready to send."""

    id: str
    title: str
    version: str
    card: str
    schema: Mapping[str, Any]
    example: Mapping[str, Any]

    @classmethod
    def read(cls, members: Mapping[str, Any]) -> Self:
        """Read the answer."""
        return cls(
            id=str(members["id"]),
            title=str(members["title"]),
            version=str(members["version"]),
            card=str(members["card"]),
            schema=dict(members["schema"]),
            example=dict(members["example"]),
        )


@dataclass(frozen=True, slots=True)
class Profile:
    """One record on every attribute that the token allows, in the server's order."""

    id: str | None
    attributes: tuple[Prediction | RecordError, ...]

    @classmethod
    def read(cls, members: Mapping[str, Any]) -> Self:
        """Read the answer. KeyError, TypeError or ValueError if it is none."""
        return cls(id=members.get("id"), attributes=tuple(read_result(entry) for entry in members["attributes"]))


def number(member: object) -> float | None:
    """Read a number that may be absent. TypeError or ValueError if it is something else."""
    return None if member is None else float(member)  # type: ignore[arg-type]
