"""Grows the trees. One thread, fixed seeds, missing values taught by masked copies of the rows."""

import re

import lightgbm as lgb
import numpy as np

from training.folds import SEED, masked
from training.problem import Problem
from training.tables import Floats

LIGHTGBM_VERSION: str = lgb.__version__
_MISSING_BITS = 0b1100
_MISSING_IS_NAN = 0b1000
_FIXED: dict[str, object] = {
    "objective": "regression",
    "learning_rate": 0.04,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 5.0,
    "monotone_constraints_method": "advanced",
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "seed": SEED,
    "verbosity": -1,
}


def fit(problem: Problem) -> str:
    """Fit on the training fold and return the model as LightGBM text.

    Raises ValueError if a split did not learn what to do with a missing value: such a model would read a gap as 0
    and give a confidently low score.
    """
    recipe = problem.attribute.recipe
    X, y = problem.X[problem.folds.train], problem.y[problem.folds.train]
    copies = [X, *(masked(X, share, f"{problem.attribute.id}/train") for share in recipe.masks)]
    rows = lgb.Dataset(
        np.vstack(copies),
        label=np.tile(y, len(copies)),
        feature_name=[feature.name for feature in problem.features],
        categorical_feature=[],
        free_raw_data=True,
    )
    parameters = {
        **_FIXED,
        "num_leaves": recipe.n_leaves,
        "min_data_in_leaf": recipe.min_rows_per_leaf,
        "monotone_constraints": list(problem.directions),
    }
    booster = lgb.train(parameters, rows, num_boost_round=recipe.n_trees)
    text = str(booster.model_to_string(importance_type="gain"))
    deaf = deaf_splits(text)
    if deaf:
        raise ValueError(f"{problem.attribute.id}: {deaf} splits never learned a missing value")
    return text


def deaf_splits(text: str) -> int:
    """How many splits of a model text lack missing type NaN (bits 2 and 3 of `decision_type`)."""
    kinds = [int(word) for line in re.findall(r"^decision_type=(.*)$", text, re.MULTILINE) for word in line.split()]
    return sum(kind & _MISSING_BITS != _MISSING_IS_NAN for kind in kinds)


def predict(text: str, X: Floats) -> Floats:
    """Raw predictions of a model text for `X` (n, p) in the model's column order, shape (n,)."""
    result: Floats = np.asarray(lgb.Booster(model_str=text).predict(X, num_threads=1), dtype=np.float64)
    return result


def gain_shares(text: str) -> Floats:
    """Each feature's share of the total split gain, six decimals, summing to 1. Shape (p,)."""
    gain = np.asarray(lgb.Booster(model_str=text).feature_importance("gain"), dtype=np.float64)
    shares: Floats = np.round(gain / gain.sum(), 6)
    shares[int(np.argmax(shares))] += 1.0 - shares.sum()
    return np.round(shares, 6)
