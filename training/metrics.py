"""Figures about predictions against what was observed. All arrays have shape (n,) and one unit."""

import math

import numpy as np

from training.folds import uniforms
from training.tables import Floats


def r2(observed: Floats, predicted: Floats) -> float:
    """Share of variance explained; below 0 is worse than always answering the mean."""
    return float(1.0 - ((observed - predicted) ** 2).sum() / ((observed - observed.mean()) ** 2).sum())


def r2_range(observed: Floats, predicted: Floats, stream: str, n_draws: int = 400) -> tuple[float, float]:
    """2.5th and 97.5th percentile of R² over bootstrap samples of these rows: how far luck of the test set reaches."""
    n = len(observed)
    draws = (uniforms(f"{stream}/bootstrap", n * n_draws) * n).astype(np.int64).reshape(n_draws, n)
    values = [r2(observed[rows], predicted[rows]) for rows in draws]
    return float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975))


def mean_error(observed: Floats, predicted: Floats) -> float:
    """Mean absolute error, in the target's unit."""
    return float(np.abs(observed - predicted).mean())


def correlation(observed: Floats, predicted: Floats) -> float:
    """Pearson's r."""
    return float(np.corrcoef(observed, predicted)[0, 1])


def ordering_probability(observed: Floats, predicted: Floats) -> float:
    """Chance that two random people are put in the right order: 0.5 + asin(r) / pi (bivariate normal)."""
    return 0.5 + math.asin(correlation(observed, predicted)) / math.pi


def slope(observed: Floats, predicted: Floats) -> float:
    """Slope of observed on predicted: 1 is calibrated, below 1 means predictions are too far apart."""
    centred = predicted - predicted.mean()
    return float((centred * observed).sum() / (centred**2).sum())


def auc_top_quarter(observed: Floats, predicted: Floats) -> float:
    """Chance that somebody of the observed top quarter is predicted above somebody of the rest; ties count half."""
    top = observed >= np.quantile(observed, 0.75)
    high, low = predicted[top][:, None], predicted[~top][None, :]
    return float((high > low).mean() + 0.5 * (high == low).mean())


def within(observed: Floats, predicted: Floats, half_width: float) -> float:
    """Share of rows whose observed value lies within `half_width` of the prediction."""
    return float((np.abs(observed - predicted) <= half_width).mean())
