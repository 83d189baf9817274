"""The bundle: a folder of five files, put in place whole or not at all."""

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tomli_w

from training import card, golden, picture
from training.conformal import LEVEL
from training.fit import LIGHTGBM_VERSION
from training.folds import SEED
from training.problem import Feature, Problem
from training.recipes import NOT_FOR
from training.report import Report

VERSION = "1"


@dataclass(frozen=True, slots=True)
class Bundle:
    """One attribute's files by name, ready to be written to `<models>/<id>/<version>/`."""

    id: str
    version: str
    files: dict[str, bytes]


def assemble(problem: Problem, text: str, report: Report) -> Bundle:
    """Make all five files. `attribute.toml` comes last because it holds the digests of the others."""
    files = {
        "model.txt": text.encode("ascii"),
        "golden.jsonl": golden.lines(problem, text).encode("utf-8"),
        "card.png": picture.draw(problem, report),
    }
    files["card.md"] = card.write(problem, report, _sha256(files["model.txt"])).encode("utf-8")
    files["attribute.toml"] = tomli_w.dumps(_metadata(problem, report, files)).encode("utf-8")
    return Bundle(problem.attribute.id, VERSION, files)


def publish(bundle: Bundle, models: Path) -> bool:
    """Write the folder beside its place, sync it to disk, and rename it in. False if it was there byte for byte.

    A reader never sees a half-written bundle. Replacing an old one takes two renames; a crash between them leaves
    the old folder under a name with a leading dot, never a mixture.
    """
    place = models / bundle.id / bundle.version
    if same(bundle, models):
        return False
    place.parent.mkdir(parents=True, exist_ok=True)
    fresh, old = place.with_name(f".{bundle.version}.new"), place.with_name(f".{bundle.version}.old")
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    fresh.mkdir()
    for name, content in bundle.files.items():
        with (fresh / name).open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    _sync_folder(fresh)
    if place.exists():
        place.rename(old)
    fresh.rename(place)
    _sync_folder(place.parent)
    shutil.rmtree(old, ignore_errors=True)
    return True


def same(bundle: Bundle, models: Path) -> bool:
    """Whether the folder in place holds exactly these files with exactly these bytes."""
    return not differences(bundle, models)


def differences(bundle: Bundle, models: Path) -> list[str]:
    """Names of files that are missing, extra or different in `models`."""
    place = models / bundle.id / bundle.version
    present = {path.name: path.read_bytes() for path in place.iterdir()} if place.is_dir() else {}
    names = sorted({*present, *bundle.files})
    return [name for name in names if present.get(name) != bundle.files.get(name)]


def _metadata(problem: Problem, report: Report, files: dict[str, bytes]) -> dict[str, object]:
    """The content of `attribute.toml`; features in the model's column order."""
    attribute, s = problem.attribute, report.scores
    metrics = {
        "r2": s.r2,
        "r2_ridge": s.r2_ridge,
        "mae": s.mae,
        "mae_mean": s.mae_mean,
        "coverage80": s.coverage80,
        "ordering_probability": s.ordering_probability,
        "calibration_slope": s.calibration_slope,
        "r2_missing25": s.r2_missing25,
    }
    return {
        "id": attribute.id,
        "version": VERSION,
        "title": attribute.title,
        "pack": attribute.pack,
        "target": attribute.target,
        "unit": attribute.unit,
        "score_range": list(attribute.score_range),
        "data": attribute.sample,
        "data_licence": attribute.data_licence,
        "not_for": list(NOT_FOR),
        "seed": SEED,
        "model": {
            "sha256": _sha256(files["model.txt"]),
            "objective": "regression",
            "n_trees": attribute.recipe.n_trees,
            "lightgbm": LIGHTGBM_VERSION,
        },
        "files": {name: _sha256(files[name]) for name in ("golden.jsonl", "card.md", "card.png")},
        "interval": {
            "level": LEVEL,
            "half_width_full": round(report.half_width_full, 2),
            "half_width_partial": round(report.half_width_partial, 2),
        },
        "bands": {
            "low_below": round(float(report.percentiles[24]), 2),
            "high_from": round(float(report.percentiles[74]), 2),
        },
        "reference": {"percentiles": [round(float(value), 4) for value in report.percentiles]},
        "metrics": {name: round(value, 4) for name, value in metrics.items()},
        "features": {
            feature.name: _feature(problem, report, feature, place) for place, feature in enumerate(problem.features)
        },
    }


def _feature(problem: Problem, report: Report, feature: Feature, place: int) -> dict[str, object]:
    median = float(np.nanmedian(problem.X[problem.folds.train, place]))
    return {
        "label": feature.label,
        "unit": feature.unit,
        "min": feature.low,
        "max": feature.high,
        "integer": feature.integer,
        "gain": float(report.gains[place]),
        "direction": problem.directions[place],
        "example": feature.example,
        "median": round(median, 4),
        "reason_more": feature.reason_more,
        "reason_less": feature.reason_less,
    }


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _sync_folder(path: Path) -> None:
    """Make renames in this folder survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
