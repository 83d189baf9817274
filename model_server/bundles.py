"""Bundles: one folder a model version, checked byte by byte before anything believes it.

`models/<id>/<version>/` holds `model.txt`, `attribute.toml` and, where the metadata names them, `golden.jsonl`,
`card.md` and `card.png`. A version never changes; the newest one that passes every check serves, and a bad one
is refused with a reason while all others load. What is hashed here is what the engine gets: no file is read twice.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from model_server.metadata import ID_PATTERN, VERSION_PATTERN, Metadata, MetadataError, read_metadata
from model_server.model_text import MAX_BYTES, ModelFacts, check_model_text
from model_server.tree_text import ModelTextError

_SIZE_LIMITS = {
    "model.txt": MAX_BYTES,
    "attribute.toml": 256 * 1024,
    "golden.jsonl": 4 * 1024 * 1024,
    "card.md": 256 * 1024,
    "card.png": 4 * 1024 * 1024,
}
_MIN_GOLDEN_ROWS = 10
_GAIN_TOLERANCE = 0.01

_T = TypeVar("_T")


class BundleError(ValueError):
    """This version can't serve; the message names the file and what is wrong in it."""


class GoldenRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A record and the exact `raw` that the trainer got for it; None is a missing value."""

    features: dict[str, float | None]
    raw: float


@dataclass(frozen=True, slots=True)
class Bundle:
    """One version whose files are what its metadata says; `model_text` has passed the structural check."""

    path: Path
    metadata: Metadata
    facts: ModelFacts
    model_text: bytes
    golden: tuple[GoldenRow, ...]
    card: str

    @property
    def gain_shares(self) -> tuple[float, ...]:
        """Share of each feature in the model's total gain, in column order; they sum to 1."""
        declared = [self.metadata.features[name].gain for name in self.facts.feature_names]
        gains = [gain for gain in declared if gain is not None]
        if len(gains) != len(declared) or not sum(gains) > 0:
            return self.facts.gain_shares
        total = sum(gains)
        return tuple(gain / total for gain in gains)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A version that does not serve. `id` and `version` are folder names and not yet verified."""

    id: str
    version: str
    reason: str


@dataclass(frozen=True, slots=True)
class Loaded(Generic[_T]):
    """What a models folder gave: one opened thing per attribute, and every version that was refused."""

    opened: dict[str, _T]
    refused: tuple[Refusal, ...]


def load_all(models_dir: Path, open_bundle: Callable[[Bundle], _T]) -> Loaded[_T]:
    """Open the newest valid version of every attribute under `models_dir`, in order of id.

    `open_bundle` may refuse too, with `BundleError`; then the next older version is tried. A folder that does
    not exist gives nothing. Never raises for what is in the folder.
    """
    opened: dict[str, _T] = {}
    refused: list[Refusal] = []
    for attribute_id, paths in versions(models_dir).items():
        for path in paths:
            try:
                opened[attribute_id] = open_bundle(load_bundle(path))
                break
            except BundleError as error:
                refused.append(Refusal(attribute_id, path.name, str(error)))
    return Loaded(opened, tuple(refused))


def versions(models_dir: Path) -> dict[str, list[Path]]:
    """Return the version folders of each attribute, newest first; other names are passed over."""
    found: dict[str, list[Path]] = {}
    if not models_dir.is_dir():
        return found
    for folder in sorted(models_dir.iterdir()):
        if ID_PATTERN.fullmatch(folder.name) and folder.is_dir():
            paths = [path for path in folder.iterdir() if VERSION_PATTERN.fullmatch(path.name) and path.is_dir()]
            if paths:
                found[folder.name] = sorted(paths, key=_version_key, reverse=True)
    return found


def _version_key(path: Path) -> tuple[int, ...]:
    return tuple(map(int, path.name.split(".")))


def load_bundle(path: Path) -> Bundle:
    """Read and check one version folder; `BundleError` with the first reason why it can't serve."""
    metadata = _read_metadata(path)
    model_text = _read(path, "model.txt")
    _check_hash("model.txt", model_text, metadata.model.sha256)
    files = {name: _read(path, name) for name in metadata.files}
    for name, content in files.items():
        _check_hash(name, content, metadata.files[name])
    try:
        facts = check_model_text(model_text)
    except ModelTextError as error:
        raise BundleError(f"model.txt: {error}") from None
    _check_agreement(metadata, facts)
    golden = _read_golden(files["golden.jsonl"], facts) if "golden.jsonl" in files else ()
    try:
        card = files.get("card.md", b"").decode("utf-8")
    except UnicodeDecodeError:
        raise BundleError("card.md: not UTF-8") from None
    return Bundle(path, metadata, facts, model_text, golden, card)


def _read_metadata(path: Path) -> Metadata:
    try:
        metadata = read_metadata(_read(path, "attribute.toml"))
    except MetadataError as error:
        raise BundleError(f"attribute.toml: {error}") from None
    if (metadata.id, metadata.version) != (path.parent.name, path.name):
        raise BundleError("attribute.toml: `id` and `version` are not those of the folders it lies in")
    return metadata


def _read(path: Path, name: str) -> bytes:
    """Read one file whole, but never more than its limit."""
    limit = _SIZE_LIMITS[name]
    if not (path / name).is_file():
        raise BundleError(f"{name}: there is no such file")
    try:
        with (path / name).open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise BundleError(f"{name}: {error.strerror or 'unreadable'}") from None
    if len(content) > limit:
        raise BundleError(f"{name}: larger than {limit} bytes")
    return content


def _check_hash(name: str, content: bytes, expected: str) -> None:
    if hashlib.sha256(content).hexdigest() != expected:
        raise BundleError(f"{name}: SHA-256 is not the one in attribute.toml")


def _check_agreement(metadata: Metadata, facts: ModelFacts) -> None:
    """The two files must speak of the same model: same features, same objective, same importance."""
    if set(metadata.features) != set(facts.feature_names):
        missing = sorted(set(facts.feature_names) - set(metadata.features))[:5]
        extra = sorted(set(metadata.features) - set(facts.feature_names))[:5]
        raise BundleError(f"attribute.toml: `features` differ from model.txt: lacks {missing}, has too many {extra}")
    if metadata.model.objective not in {"", facts.objective}:
        raise BundleError("attribute.toml: `model.objective` is not the model's")
    if metadata.model.n_trees not in {None, facts.n_trees}:
        raise BundleError("attribute.toml: `model.n_trees` is not the model's")
    for name, share, sign in zip(facts.feature_names, facts.gain_shares, facts.monotone, strict=True):
        note = metadata.features[name]
        if note.gain is not None and abs(note.gain - share) > _GAIN_TOLERANCE:
            raise BundleError(f"attribute.toml: `features.{name}.gain` is not the model's")
        if note.direction * sign < 0:
            raise BundleError(f"attribute.toml: `features.{name}.direction` is the reverse of the model's")


def _read_golden(raw: bytes, facts: ModelFacts) -> tuple[GoldenRow, ...]:
    try:
        rows = tuple(msgspec.json.Decoder(GoldenRow).decode_lines(raw))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"golden.jsonl: {error}") from None
    if len(rows) < _MIN_GOLDEN_ROWS:
        raise BundleError(f"golden.jsonl: fewer than {_MIN_GOLDEN_ROWS} rows")
    if any(not set(row.features) <= set(facts.feature_names) for row in rows):
        raise BundleError("golden.jsonl: a row has a feature that the model does not have")
    return rows
