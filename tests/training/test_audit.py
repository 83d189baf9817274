"""The audit sees a group that is treated worse and a statement that works differently."""

from dataclasses import replace

import numpy as np
import pytest

from training import audit
from training.folds import split, uniforms
from training.pipeline import problem_of
from training.problem import Problem


def _sample() -> Problem:
    y = 100.0 * uniforms("audit/y", 1000)
    answers = 1.0 + y / 25.0
    sexes = np.where(uniforms("audit/sex", 1000) < 0.5, "men", "women")
    inputs = np.column_stack([answers, answers + 0.8 * (sexes == "women")])
    base = problem_of("play_teamwork")
    return replace(
        base,
        features=base.features[:2],
        X=inputs,
        y=y,
        folds=split(1000, "audit"),
        groups={"sex": sexes, "few": few(1000)},
    )


def few(n: int) -> np.ndarray:
    """A grouping in which one label is rare and most are unknown."""
    return np.array(["rare" if row < 10 else "" for row in range(n)])


def test_an_under_predicted_group_has_a_positive_residual() -> None:
    """Women predicted ten points too low show as +10; rare and unknown labels are left out."""
    problem = _sample()
    predicted = problem.y - 10.0 * (problem.groups["sex"] == "women")
    men, women = audit.groups(problem, predicted, half_width=5.0)
    assert (men.label, women.label) == ("men", "women")
    assert men.residual == pytest.approx(0.0)
    assert women.residual == pytest.approx(10.0)
    assert (men.coverage80, women.coverage80) == (1.0, 0.0)


def test_the_thirds_show_where_one_width_is_too_narrow() -> None:
    """Errors that grow with the prediction leave the highest third outside the interval."""
    problem = _sample()
    lowest, _, highest = audit.thirds(problem, 0.8 * problem.y, half_width=10.0)
    assert lowest.coverage80 == 1.0
    assert highest.coverage80 == 0.0


def test_a_statement_that_works_differently_is_found() -> None:
    """The second column is 0.8 points higher for women with the same score; the first is fair."""
    fair, skewed = audit.item_gaps(_sample(), "sex", "women", "men")
    assert abs(fair.gap) < 0.1
    assert skewed.gap == pytest.approx(0.8, abs=0.1)


def test_the_missing_curve_starts_with_everything_known_and_falls() -> None:
    """Less known is less explained."""
    problem = _sample()
    curve = audit.missing_curve(
        problem, lambda inputs: 25.0 * (np.nan_to_num(inputs[:, 0], nan=3.0) - 1.0), lambda inputs: inputs[:, 0]
    )
    assert [point.share for point in curve] == list(audit.SHARES_MISSING)
    assert curve[0].r2 == pytest.approx(1.0)
    assert curve[-1].r2 < curve[1].r2
