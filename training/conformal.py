"""Interval widths by split conformal prediction, one for records that are nearly full and one for partial ones.

The promise: for rows like the calibration rows, the true value lies within the half-width in at least 80 % of cases,
whatever the model does. It is a promise on average over people, not for each group (the card shows groups).
"""

import math

import numpy as np

from training.folds import uniforms
from training.tables import Floats, Ints

LEVEL = 0.8
FULL_COVERAGE = 0.9
MIN_COVERAGE = 0.5
_LEAST_HIDDEN, _MOST_HIDDEN = 0.1, 0.5
_DRAWS = 16


def half_width(errors: Floats, level: float = LEVEL) -> float:
    """The conformal quantile of absolute `errors` (n,): the ceil((n + 1) * level)-th smallest.

    Raises ValueError when there are too few errors to promise `level` at all.
    """
    rank = math.ceil((len(errors) + 1) * level)
    if rank > len(errors):
        raise ValueError(f"{len(errors)} calibration rows can't promise {level:.0%}")
    return float(np.sort(np.abs(errors))[rank - 1])


def coverage(X: Floats, gains: Floats) -> Floats:
    """Share of the gain whose feature is present, per row of `X` (n, p); 0 to 1, shape (n,)."""
    result: Floats = (~np.isnan(X)).astype(np.float64) @ gains
    return result


def partly_hidden(X: Floats, gains: Floats, stream: str) -> tuple[Floats, Ints]:
    """One copy of each row with so much hidden that its coverage is at least 0.5 and below 0.9.

    Returns the copies (m, p) and the numbers of their rows (m,); a row that no draw fitted is left out.
    One copy a row keeps the rows exchangeable, which the conformal promise needs.
    """
    copies, found = X.copy(), np.zeros(len(X), dtype=np.bool_)
    for turn in range(_DRAWS):
        share = _LEAST_HIDDEN + (_MOST_HIDDEN - _LEAST_HIDDEN) * uniforms(f"{stream}/share/{turn}", len(X))
        hidden = uniforms(f"{stream}/partial/{turn}", X.size).reshape(X.shape) < share[:, None]
        drawn = np.where(hidden, np.nan, X)
        reached = coverage(drawn, gains)
        fits = ~found & (reached >= MIN_COVERAGE) & (reached < FULL_COVERAGE)
        copies[fits] = drawn[fits]
        found |= fits
    rows = np.flatnonzero(found).astype(np.int64)
    return copies[rows], rows
