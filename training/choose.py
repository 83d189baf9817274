"""Picks which statements to ask: greedy forward choice by explained variance, for one or several targets at once."""

from collections.abc import Sequence

import numpy as np

from training.tables import Floats, Ints

_RIDGE = 1e-3
"""Keeps the small systems solvable when two statements say the same thing; far below any real effect."""


def standardized(values: Floats) -> Floats:
    """Columns with mean 0 and standard deviation 1; a missing value becomes the mean. Shape as given."""
    filled = np.where(np.isnan(values), np.nanmean(values, axis=0), values)
    result: Floats = (filled - filled.mean(axis=0)) / filled.std(axis=0)
    return result


def greedy(X: Floats, Y: Floats, rows: Ints, n_wanted: int, start: Sequence[int] = ()) -> list[int]:
    """Choose `n_wanted` columns of `X` (n, p) that together explain most of the targets `Y` (n, k).

    Only `rows` are looked at; hand in the training fold. `start` are columns that are taken first without asking.
    The order of choice is returned; ties go to the lower column number.
    """
    predictors, targets = standardized(X[rows]), standardized(Y[rows])
    C = predictors.T @ predictors / len(rows)
    B = predictors.T @ targets / len(rows)
    chosen = list(start)
    while len(chosen) < n_wanted:
        left = [column for column in range(X.shape[1]) if column not in chosen]
        gains = [_explained(C, B, [*chosen, column]) for column in left]
        chosen.append(left[int(np.argmax(gains))])
    return chosen


def _explained(C: Floats, B: Floats, columns: list[int]) -> float:
    """Mean R² over the targets of least squares on `columns`, from correlations alone; rounded so ties are ties."""
    inner = C[np.ix_(columns, columns)] + _RIDGE * np.eye(len(columns))
    weights = np.linalg.solve(inner, B[columns])
    return round(float((weights * B[columns]).sum(axis=0).mean()), 9)


def directions(X: Floats, y: Floats, rows: Ints, free_below: float = 0.10) -> tuple[int, ...]:
    """Sign of each column's correlation with `y` on `rows`; 0 where it is weaker than `free_below`."""
    r = standardized(X[rows]).T @ standardized(y[rows, None])[:, 0] / len(rows)
    return tuple(0 if abs(value) < free_below else int(np.sign(value)) for value in r)
