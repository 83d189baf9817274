"""Golden records: made-up people with the raw score that `lightgbm.Booster.predict` gives them.

No row is anybody's: each value is drawn on its own from the values that its feature takes in the training rows.
"""

import json

import numpy as np

from training.fit import predict
from training.folds import uniforms
from training.problem import Problem
from training.tables import Floats

_N_FULL, _N_PARTIAL = 5, 5


def lines(problem: Problem, text: str) -> str:
    """JSON lines {"features": {...}, "raw": float}; the last one has every feature null."""
    X = _records(problem)
    raw = predict(text, X)
    names = [(feature.name, feature.integer) for feature in problem.features]
    rows = []
    for values, score in zip(X, raw, strict=True):
        features = {name: _plain(value, whole) for (name, whole), value in zip(names, values, strict=True)}
        rows.append(json.dumps({"features": features, "raw": float(score)}))
    return "\n".join(rows) + "\n"


def _records(problem: Problem) -> Floats:
    """13 records: median, lowest, highest, five drawn, five of those with gaps (20 to 80 %), and nothing known."""
    known = problem.X[problem.folds.train]
    ordinary = np.nanmedian(known, axis=0)
    drawn = np.column_stack([_draw(known[:, place], feature.name) for place, feature in enumerate(problem.features)])
    gaps = uniforms(f"{problem.attribute.id}/golden/gaps", drawn.size).reshape(drawn.shape)
    hidden = np.where(gaps < np.array([0.2, 0.3, 0.4, 0.6, 0.8])[:, None], np.nan, drawn)
    ends = [ordinary, np.nanmin(known, axis=0), np.nanmax(known, axis=0)]
    nothing = np.full_like(ordinary, np.nan)
    return np.vstack([*ends, drawn, hidden, nothing])


def _draw(column: Floats, name: str) -> Floats:
    """Values that this feature really takes, each picked on its own. Shape (5,)."""
    values = np.sort(column[~np.isnan(column)])
    places = (uniforms(f"golden/{name}", _N_FULL) * len(values)).astype(np.int64)
    picked: Floats = values[places]
    return picked


def _plain(value: float, whole: bool) -> float | int | None:  # noqa: FBT001 (a column's property, not a switch)
    if np.isnan(value):
        return None
    return round(value) if whole else float(value)
