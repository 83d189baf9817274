"""Who is the model less right about: by group, and when answers are missing. Looks, never trains."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from training.folds import masked
from training.metrics import r2, within
from training.problem import Problem
from training.tables import Floats, Ints, Words

SHARES_MISSING = (0.0, 0.15, 0.25, 0.5, 0.75)
_N_DRAWS = 10
_FEWEST = 30
THIRDS = ("1 lowest third", "2 middle third", "3 highest third")

Predict = Callable[[Floats], Floats]


@dataclass(frozen=True, slots=True)
class Group:
    """One group's held-out rows. `residual` is the mean of observed minus predicted: above 0 is under-predicted.

    `coverage80` is the share of the group's test rows inside the 80 % interval.
    """

    kind: str
    label: str
    n: int
    observed: float
    residual: float
    n_test: int
    coverage80: float


@dataclass(frozen=True, slots=True)
class MissingPoint:
    """R² on the test fold with this share of the inputs hidden, for the trees and for the ridge referee."""

    share: float
    r2: float
    r2_ridge: float


@dataclass(frozen=True, slots=True)
class ItemGap:
    """How much higher women (or the older half) answer one statement than others with the same observed score.

    In points of the 1-5 answer; far from 0 means that the statement works differently in the two groups.
    """

    kind: str
    feature: str
    gap: float


def groups(problem: Problem, predicted: Floats, half_width: float) -> tuple[Group, ...]:
    """Every group with at least 30 held-out rows. `predicted` has shape (n,) over all rows."""
    return _rows_of(problem, problem.groups, predicted, half_width)


def thirds(problem: Problem, predicted: Floats, half_width: float) -> tuple[Group, ...]:
    """The same figures for the lowest, middle and highest third of the predictions: one width can't fit all three."""
    cuts = np.quantile(predicted[problem.folds.held_out], (1 / 3, 2 / 3))
    labels: Words = np.array(THIRDS)[np.searchsorted(cuts, predicted)]
    return _rows_of(problem, {"prediction": labels}, predicted, half_width)


def _rows_of(problem: Problem, kinds: dict[str, Words], predicted: Floats, half_width: float) -> tuple[Group, ...]:
    found = []
    held_out, test = problem.folds.held_out, problem.folds.test
    for kind, labels in kinds.items():
        for label in sorted(set(labels[held_out].tolist()) - {""}):
            rows = held_out[labels[held_out] == label]
            tested = test[labels[test] == label]
            if len(rows) >= _FEWEST and len(tested):
                residual = float((problem.y[rows] - predicted[rows]).mean())
                inside = within(problem.y[tested], predicted[tested], half_width)
                mean = float(problem.y[rows].mean())
                found.append(Group(kind, label, len(rows), mean, residual, len(tested), inside))
    return tuple(found)


def missing_curve(problem: Problem, predict: Predict, ridge: Predict) -> tuple[MissingPoint, ...]:
    """R² on the test fold as more inputs are hidden at random, mean of ten draws."""
    X, y = problem.X[problem.folds.test], problem.y[problem.folds.test]
    points = []
    for share in SHARES_MISSING:
        draws = [masked(X, share, f"{problem.attribute.id}/audit/{turn}") for turn in range(_N_DRAWS if share else 1)]
        trees = float(np.mean([r2(y, predict(drawn)) for drawn in draws]))
        line = float(np.mean([r2(y, ridge(drawn)) for drawn in draws]))
        points.append(MissingPoint(share, trees, line))
    return tuple(points)


def item_gaps(problem: Problem, kind: str, group: str, reference: str) -> tuple[ItemGap, ...]:
    """Standardised differential item functioning of every feature between two groups, on all rows.

    People are matched on tenths of the observed score; the gap is `group` minus `reference` within a tenth, weighted
    by the number of people of `group` in it (Dorans and Kulick's standardisation).
    """
    labels = problem.groups[kind]
    tenth = np.searchsorted(np.quantile(problem.y, np.arange(0.1, 1.0, 0.1)), problem.y)
    return tuple(
        ItemGap(kind, feature.name, _matched_gap(problem.X[:, place], labels, tenth, group, reference))
        for place, feature in enumerate(problem.features)
    )


def _matched_gap(answers: Floats, labels: Words, stratum: Ints, group: str, reference: str) -> float:
    """Mean difference in answers within strata of the observed score, in answer points."""
    total, weight = 0.0, 0
    known = ~np.isnan(answers)
    for level in np.unique(stratum):
        here = known & (stratum == level)
        one, other = answers[here & (labels == group)], answers[here & (labels == reference)]
        if len(one) and len(other):
            total += len(one) * float(one.mean() - other.mean())
            weight += len(one)
    return total / weight if weight else 0.0
