"""Small models trained on the spot and bundles written around them, for the tests of this package."""

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import tomli_w

SHIPPED = sorted((Path(__file__).parents[2] / "models").glob("*/*/model.txt"))


@dataclass(frozen=True)
class Trained:
    """A model text with what made it."""

    text: bytes
    booster: lightgbm.Booster
    names: tuple[str, ...]


@cache
def train(
    *,
    n_features: int = 4,
    n_trees: int = 12,
    n_leaves: int = 5,
    low: float = 0.0,
    high: float = 1.0,
    missing: float = 0.2,
    objective: str = "regression",
    seed: int = 7,
    extra: tuple[tuple[str, Any], ...] = (),
) -> Trained:
    """Train on uniform rows from low to high; the first feature matters most, all rise with the target."""
    rng = np.random.default_rng(seed)
    rows = rng.uniform(low, high, size=(600, n_features))
    target = rows @ np.arange(n_features, 0, -1.0) + rng.normal(scale=0.1 * (high - low), size=600)
    if objective == "binary":
        target = (target > np.median(target)).astype(float)
    rows[rng.random(rows.shape) < missing] = np.nan
    names = tuple(f"answer_{index}" for index in range(n_features))
    settings = {
        "objective": objective,
        "num_leaves": n_leaves,
        "min_data_in_leaf": 20,
        "learning_rate": 0.2,
        "num_threads": 1,
        "seed": seed,
        "deterministic": True,
        "verbose": -1,
        **dict(extra),
    }
    booster = lightgbm.train(settings, lightgbm.Dataset(rows, target, feature_name=list(names)), n_trees)
    text = booster.model_to_string(num_iteration=-1)
    return Trained(text.encode("ascii"), lightgbm.Booster(model_str=text), names)


def metadata(trained: Trained, attribute_id: str = "focus", version: str = "1", **changes: Any) -> dict[str, Any]:
    """Return a complete attribute.toml as a table; `changes` replace top-level entries (None removes one)."""
    table: dict[str, Any] = {
        "id": attribute_id,
        "version": version,
        "title": attribute_id.title(),
        "target": "sum of uniform answers",
        "unit": "pomp_0_100",
        "score_range": [0.0, 10.0],
        "data": "600 made-up rows",
        "not_for": ["hiring", "pay"],
        "model": {"sha256": hashlib.sha256(trained.text).hexdigest()},
        "interval": {"level": 0.8, "half_width_full": 1.0, "half_width_partial": 1.5},
        "bands": {"low_below": 4.0, "high_from": 6.0},
        "reference": {"percentiles": [round(0.1 * index, 4) for index in range(1, 100)]},
        "features": {
            name: {
                "label": f"Answer {index}.",
                "min": -1.0,
                "max": 2.0,
                "example": 0.5,
                "median": 0.5,
                "direction": 1,
                "reason_more": f"answer {index} is more",
                "reason_less": f"answer {index} is less",
            }
            for index, name in enumerate(trained.names)
        },
        **changes,
    }
    return {name: value for name, value in table.items() if value is not None}


def golden(model: Trained, rows: list[dict[str, float | None]] | None = None) -> bytes:
    """Return ten golden lines with what the Python package says to them; the last row misses everything."""
    rng = np.random.default_rng(3)
    if rows is None:
        rows = [dict(zip(model.names, map(float, rng.uniform(0, 1, len(model.names))), strict=True)) for _ in range(9)]
        rows.append(dict.fromkeys(model.names))
    matrix = np.array([[np.nan if row[name] is None else row[name] for name in model.names] for row in rows])
    raws = model.booster.predict(matrix)
    return b"".join(
        json.dumps({"features": row, "raw": float(raw)}).encode() + b"\n" for row, raw in zip(rows, raws, strict=True)
    )


def write_bundle(
    models: Path,
    trained: Trained,
    *,
    contents: dict[str, bytes] | None = None,
    text: bytes | None = None,
    **changes: Any,
) -> Path:
    """Write one version folder under `models`; `text` replaces the model behind the back of its hash, `contents` do not."""
    table = metadata(trained, **changes)
    contents = {"golden.jsonl": golden(trained), "card.md": b"# A card\n", **(contents or {})}
    if "files" not in changes:
        table["files"] = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    folder = models / table["id"] / table["version"]
    folder.mkdir(parents=True)
    (folder / "attribute.toml").write_text(tomli_w.dumps(table), encoding="utf-8")
    for name, content in {**contents, "model.txt": text or trained.text}.items():
        (folder / name).write_bytes(content)
    return folder


def repair_sizes(text: bytes) -> bytes:
    """Make `tree_sizes` fit trees that were edited, so that only the edit itself is wrong."""
    head, rest = text.split(b"\n\n", 1)
    trees = re.split(rb"(?=^Tree=)", rest[: rest.index(b"end of trees")], flags=re.MULTILINE)[1:]
    sizes = b" ".join(b"%d" % len(tree) for tree in trees)
    return re.sub(rb"tree_sizes=.*", b"tree_sizes=" + sizes, head) + b"\n\n" + rest
