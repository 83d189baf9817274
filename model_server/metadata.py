"""`attribute.toml`: what a bundle says about its model, as typed and checked values.

Types and presence are checked by msgspec while converting; what one field alone can't show (order, ranges,
sums) is checked by `problems`. Unknown names are refused: a misspelt `requird` must not pass unnoticed.
"""

import math
import re
import tomllib
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec

ID_PATTERN = re.compile(r"[a-z][a-z0-9_]{0,63}")
VERSION_PATTERN = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9}){0,2}")
RESERVED_IDS = frozenset({"stats", "index", "repository"})  # words of the inference protocol's own paths
FILES = frozenset({"golden.jsonl", "card.md", "card.png"})

_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=1_000)]
_Label = Annotated[str, msgspec.Meta(max_length=300)]
_Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class MetadataError(ValueError):
    """The metadata can't be used; the message names each field and what is wrong with it."""


class FeatureNote(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What people know about one feature and the model text does not.

    `min` and `max` are hard limits of a sensible record (None: no limit). `required` may demand a feature that
    the model could do without, never the reverse. `reason_more` ends "higher because …" for a value above `median`.
    """

    label: _Label = ""
    unit: _Label = ""
    min: float | None = None
    max: float | None = None
    integer: bool = False
    required: bool = False
    gain: float | None = None
    direction: Literal[-1, 0, 1] = 0
    example: float | None = None
    median: float | None = None
    reason_more: _Label = ""
    reason_less: _Label = ""


class ModelNote(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which model text belongs to this metadata; `sha256` is of `model.txt`, in lower-case hex."""

    sha256: _Sha256
    objective: str = ""
    n_trees: int | None = None
    lightgbm: str = ""


class Interval(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Half-widths of the 80 % interval in the score's unit: coverage of at least 0.9, and of 0.5 to 0.9."""

    half_width_full: float
    half_width_partial: float
    level: float = 0.8


class Bands(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A score under `low_below` is low, one of at least `high_from` high, between them typical."""

    low_below: float
    high_from: float


class Reference(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The 1st to 99th percentile of the model's own predictions on rows it never saw."""

    percentiles: Annotated[tuple[float, ...], msgspec.Meta(min_length=99, max_length=99)]


class Metadata(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One whole `attribute.toml`."""

    id: str
    version: str
    title: _Text
    target: _Text
    unit: Annotated[str, msgspec.Meta(min_length=1, max_length=40)]
    score_range: tuple[float, float]
    data: _Text
    not_for: tuple[_Label, ...]
    model: ModelNote
    interval: Interval
    bands: Bands
    reference: Reference
    features: dict[str, FeatureNote]
    pack: str = ""
    data_licence: _Label = ""
    seed: int | None = None
    files: dict[str, _Sha256] = {}
    metrics: dict[str, float] = {}


def read_metadata(raw: bytes) -> Metadata:
    """Parse and check the bytes of an `attribute.toml`; `MetadataError` names every problem found."""
    try:
        table = tomllib.loads(raw.decode("utf-8"))
    except UnicodeDecodeError:
        raise MetadataError("not UTF-8") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise MetadataError(f"not TOML: {error}") from None
    try:
        metadata = msgspec.convert(table, Metadata)
    except msgspec.ValidationError as error:
        raise MetadataError(_name_entry(table, str(error)).replace("`$.", "`")) from None
    found = list(problems(metadata))
    if found:
        raise MetadataError("; ".join(found))
    return metadata


def _name_entry(table: dict[str, Any], message: str) -> str:
    """Name the entry of a table that msgspec only calls `features[...]`."""
    for section, kind in (("features", FeatureNote), ("files", _Sha256), ("metrics", float)):
        place = f"$.{section}[...]"
        if place in message:
            for name, entry in table[section].items():
                try:
                    msgspec.convert(entry, kind)
                except msgspec.ValidationError:
                    return message.replace(place, f"$.{section}.{name[:64]}")
    return message


def problems(metadata: Metadata) -> Iterator[str]:
    """Yield one sentence for each field whose value makes no sense."""
    if not ID_PATTERN.fullmatch(metadata.id) or metadata.id in RESERVED_IDS:
        yield "`id` must be lower-case letters, digits and _, start with a letter and not be a reserved word"
    if not VERSION_PATTERN.fullmatch(metadata.version):
        yield "`version` must be 1 to 3 whole numbers with dots"
    yield from _scale_problems(metadata)
    if unknown := set(metadata.files) - FILES:
        yield f"`files` names {len(unknown)} file(s) that are not part of a bundle"
    for name, note in metadata.features.items():
        yield from _feature_problems(name, note)


def _scale_problems(metadata: Metadata) -> Iterator[str]:
    low, high = metadata.score_range
    if not (_finite(low, high) and low < high):
        yield "`score_range` must be two finite numbers, the lower first"
    interval = metadata.interval
    if not (_finite(interval.half_width_full, interval.half_width_partial) and interval.half_width_full > 0):
        yield "`interval.half_width_full` and `interval.half_width_partial` must be finite and above 0"
    elif interval.half_width_partial < interval.half_width_full:
        yield "`interval.half_width_partial` is narrower than `interval.half_width_full`: fewer answers can't say more"
    if interval.level != 0.8:
        yield "`interval.level` must be 0.8, the level that answers promise"
    bands = metadata.bands
    if not (_finite(bands.low_below, bands.high_from) and bands.low_below <= bands.high_from):
        yield "`bands` must be finite, low_below not above high_from"
    percentiles = metadata.reference.percentiles
    if not _finite(*percentiles) or list(percentiles) != sorted(percentiles):
        yield "`reference.percentiles` must be finite and never fall"


def _feature_problems(name: str, note: FeatureNote) -> Iterator[str]:
    place = f"`features.{name[:64]}`"
    numbers = [number for number in (note.min, note.max, note.gain, note.example, note.median) if number is not None]
    if not _finite(*numbers):
        yield f"{place} holds a number that is not finite"
        return
    low = -math.inf if note.min is None else note.min
    high = math.inf if note.max is None else note.max
    if low >= high:
        yield f"{place}: min must be below max"
    if note.example is not None and not low <= note.example <= high:
        yield f"{place}: example is outside min and max"
    if note.gain is not None and not 0 <= note.gain <= 1:
        yield f"{place}: gain must be a share between 0 and 1"


def _finite(*numbers: float) -> bool:
    return all(map(math.isfinite, numbers))
