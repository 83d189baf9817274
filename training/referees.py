"""The two models LightGBM has to answer to: ridge regression in closed form, and the training mean."""

from dataclasses import dataclass

import numpy as np

from training.tables import Floats

_PENALTY = 10.0
"""Added to the diagonal of the correlation sums; between 1 and 50 the results differ in the third decimal."""


@dataclass(frozen=True, slots=True)
class Ridge:
    """A fitted line: `centre`, `spread` and `weights` have shape (p,); a missing input counts as its mean."""

    centre: Floats
    spread: Floats
    weights: Floats
    intercept: float

    def predict(self, X: Floats) -> Floats:
        """Predictions in the target's unit, shape (n,), for `X` of shape (n, p) with NaN allowed."""
        Z = (np.where(np.isnan(X), self.centre, X) - self.centre) / self.spread
        result: Floats = Z @ self.weights + self.intercept
        return result


def fit_ridge(X: Floats, y: Floats) -> Ridge:
    """Fit on `X` (n, p), NaN allowed, and `y` (n,)."""
    centre = np.nanmean(X, axis=0)
    filled = np.where(np.isnan(X), centre, X)
    spread = np.maximum(filled.std(axis=0), 1e-12)
    Z = (filled - centre) / spread
    weights = np.linalg.solve(Z.T @ Z + _PENALTY * np.eye(Z.shape[1]), Z.T @ (y - y.mean()))
    return Ridge(centre, spread, weights, float(y.mean()))
