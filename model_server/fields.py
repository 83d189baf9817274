"""One field of a record: what it accepts, how it is read, and what a caller is told when it is wrong.

Numbers are taken as they are: a string is never turned into one, true is not 1, and no value that arrived is
ever repeated in an answer.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

_NAN = math.nan


@dataclass(frozen=True, slots=True)
class Feature:
    """What one column accepts. `low` and `high` are hard limits (infinite: none), both allowed.

    `seen` is the range of training values: outside it an answer is given with a warning. Null or absence is
    accepted where not `required`.
    """

    name: str
    low: float = -math.inf
    high: float = math.inf
    seen: tuple[float, float] | None = None
    required: bool = False
    integer: bool = False

    @property
    def wanted(self) -> str:
        """What to send, in words: `a number from 1 to 5`."""
        noun = "a whole number" if self.integer else "a number"
        if math.isinf(self.low) and math.isinf(self.high):
            return noun
        if math.isinf(self.high):
            return f"{noun} of at least {self.low:g}"
        if math.isinf(self.low):
            return f"{noun} of at most {self.high:g}"
        return f"{noun} from {self.low:g} to {self.high:g}"


_FAULTS = {
    "required": "This model never learned what a missing value means here: send {wanted}.",
    "not_a_number": "Send {wanted}, not a string, true, false, a list or an object.",
    "not_finite": "The number is too large for a 64-bit float: send {wanted}.",
    "not_an_integer": "Send {wanted}.",
    "below_minimum": "Below what is possible: send {wanted}.",
    "above_maximum": "Above what is possible: send {wanted}.",
}


def advice(feature: Feature, code: str) -> str:
    """Return the sentence for a fault code of `read_number`; it says what to send instead."""
    cure = "" if feature.required or code == "required" else " Null or nothing means that it is missing."
    return _FAULTS[code].format(wanted=feature.wanted) + cure


def read_number(feature: Feature, value: object) -> tuple[str, float]:
    """Return (fault code or "", number); `value` is one parsed JSON value, None where it is null or absent.

    The number is NaN where there is a fault.
    """
    if value is None:
        return "required", _NAN
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "not_a_number", _NAN
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    code = _fault(feature, number)
    return code, _NAN if code else number


def _fault(feature: Feature, number: float) -> str:
    if not math.isfinite(number):
        return "not_finite"
    if number < feature.low:
        return "below_minimum"
    if number > feature.high:
        return "above_maximum"
    return "not_an_integer" if feature.integer and not number.is_integer() else ""


def features_type(features: tuple[Feature, ...], *, closed: bool) -> Any:
    """Return a msgspec type that accepts exactly the values that need neither an error nor a warning.

    Its fields are in column order; NaN stands for an absent feature, None for null. A `closed` type refuses
    features that it does not know.
    """
    fields = [(f"f{index}", *_field(feature)) for index, feature in enumerate(features)]
    names = {f"f{index}": feature.name for index, feature in enumerate(features)}
    # Required fields have no default and must come first in a struct, unless arguments are by keyword only.
    return msgspec.defstruct(
        "Features", fields, rename=names, forbid_unknown_fields=closed, frozen=True, kw_only=True, gc=False
    )


def _field(feature: Feature) -> tuple[Any, ...]:
    low, high = feature.low, feature.high
    if feature.seen:
        low, high = max(low, feature.seen[0]), min(high, feature.seen[1])
    limits = msgspec.Meta(
        ge=None if math.isinf(low) else low,
        le=None if math.isinf(high) else high,
        multiple_of=1.0 if feature.integer else None,
    )
    number = Annotated[float, limits]
    return (number,) if feature.required else (number | None, _NAN)
