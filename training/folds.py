"""Everything random: the 60/20/20 split and the masks, drawn from named streams.

The standard library's `random.Random(text).random()` is guaranteed to repeat over Python versions; numpy's
generators are not, so they would quietly change the shipped models.
"""

import random
from dataclasses import dataclass

import numpy as np

from training.tables import Floats, Ints

SEED = 2026
"""One seed for everything. It was fixed before the first result was seen."""


@dataclass(frozen=True, slots=True)
class Folds:
    """Row numbers of the three disjoint parts; together they are every row once."""

    train: Ints
    calibrate: Ints
    test: Ints

    @property
    def held_out(self) -> Ints:
        """Rows that chose no feature and grew no tree."""
        return np.concatenate([self.calibrate, self.test])


def uniforms(stream: str, n: int) -> Floats:
    """`n` numbers in [0, 1), the same for the same stream name everywhere. Shape (n,)."""
    source = random.Random(f"{SEED}/{stream}")
    return np.array([source.random() for _ in range(n)], dtype=np.float64)


def split(n_rows: int, stream: str) -> Folds:
    """60 % to train, 20 % to calibrate, 20 % to test."""
    order = np.argsort(uniforms(f"{stream}/split", n_rows), kind="stable")
    first, second = round(0.6 * n_rows), round(0.8 * n_rows)
    return Folds(np.sort(order[:first]), np.sort(order[first:second]), np.sort(order[second:]))


def masked(X: Floats, share: float, stream: str) -> Floats:
    """A copy of `X` in which each value is missing (NaN) with probability `share`."""
    hidden = uniforms(f"{stream}/mask/{share}", X.size).reshape(X.shape) < share
    return np.where(hidden, np.nan, X)
