"""The figures on a card mean what their names say."""

import numpy as np
import pytest

from training import metrics
from training.folds import uniforms
from training.referees import fit_ridge


def test_r2_is_1_for_the_truth_and_0_for_the_mean() -> None:
    """The two ends that everybody knows; a bad guess is below 0."""
    y = np.array([1.0, 2.0, 3.0, 6.0])
    assert metrics.r2(y, y) == 1.0
    assert metrics.r2(y, np.full(4, 3.0)) == 0.0
    assert metrics.r2(y, -y) < 0.0


def test_ordering_probability_is_a_half_without_correlation_and_1_with_all_of_it() -> None:
    """And for R² 0.49 it is the documented 75 %."""
    y = np.array([1.0, 2.0, 3.0, 4.0])
    assert metrics.ordering_probability(y, y) == pytest.approx(1.0)
    assert metrics.ordering_probability(y, np.array([1.0, -1.0, -1.0, 1.0])) == pytest.approx(0.5)


def test_auc_counts_ties_as_half() -> None:
    """A model that says the same for everybody is a coin."""
    y = np.arange(100.0)
    assert metrics.auc_top_quarter(y, y) == 1.0
    assert metrics.auc_top_quarter(y, np.zeros(100)) == 0.5


def test_slope_below_1_means_predictions_too_far_apart() -> None:
    """Doubling well-calibrated predictions halves the slope."""
    y = np.array([1.0, 2.0, 3.0])
    assert metrics.slope(y, y) == pytest.approx(1.0)
    assert metrics.slope(y, 2.0 * y) == pytest.approx(0.5)


def test_the_bootstrap_range_holds_the_estimate() -> None:
    """And it is the same every time."""
    y = uniforms("metrics/y", 300)
    p = y + 0.3 * uniforms("metrics/noise", 300)
    low, high = metrics.r2_range(y, p, "metrics", n_draws=50)
    assert low < metrics.r2(y, p) < high
    assert (low, high) == metrics.r2_range(y, p, "metrics", n_draws=50)


def test_ridge_finds_a_line_and_bears_gaps() -> None:
    """With a tiny penalty against 2,000 rows the line comes back; a missing input counts as its mean."""
    inputs = uniforms("ridge", 6000).reshape(2000, 3)
    y = 5.0 + inputs @ np.array([2.0, -1.0, 0.0])
    ridge = fit_ridge(inputs, y)
    assert metrics.r2(y, ridge.predict(inputs)) > 0.999
    nothing = np.full((1, 3), np.nan)
    assert ridge.predict(nothing)[0] == pytest.approx(y.mean())
