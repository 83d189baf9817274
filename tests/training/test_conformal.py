"""Intervals hold what they promise on data where the truth is known."""

import numpy as np
import pytest

from training.conformal import coverage, half_width, partly_hidden
from training.folds import uniforms


def test_an_80_percent_interval_covers_80_percent_of_new_errors() -> None:
    """Averaged over many calibrations, new errors fall inside at least as often as promised, and hardly more."""
    errors = (uniforms("conformal", 400_000) - 0.5).reshape(200, 2000)
    shares = [np.mean(np.abs(row[200:]) <= half_width(row[:200])) for row in errors]
    assert 0.8 <= np.mean(shares) < 0.81


def test_the_half_width_is_the_finite_sample_quantile() -> None:
    """Nine errors at 80 %: the eighth smallest, not the interpolated 80th percentile; signs don't matter."""
    assert half_width(np.array([-9.0, 8.0, -7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0])) == 8.0


def test_too_few_calibration_rows_are_refused() -> None:
    """Three rows can promise nothing at 80 %; answering anyway would be a lie."""
    with pytest.raises(ValueError, match="3 calibration rows"):
        half_width(np.array([1.0, 2.0, 3.0]))


def test_coverage_is_the_gain_of_what_is_present() -> None:
    """Full is 1, empty is 0, and one heavy feature counts by its weight."""
    gains = np.array([0.7, 0.2, 0.1])
    inputs = np.array([[1.0, 1.0, 1.0], [np.nan, 1.0, 1.0], [np.nan, np.nan, np.nan]])
    assert coverage(inputs, gains) == pytest.approx([1.0, 0.3, 0.0])


def test_partial_copies_lie_in_their_band_and_change_no_value() -> None:
    """Every copy is between 50 and 90 % covered, and what is left is what was there."""
    inputs = uniforms("partial", 4000).reshape(400, 10)
    gains = np.full(10, 0.1)
    copies, rows = partly_hidden(inputs, gains, "partial")
    reached = coverage(copies, gains)
    assert len(rows) > 390
    assert (reached >= 0.5).all()
    assert (reached < 0.9).all()
    kept = ~np.isnan(copies)
    assert (copies[kept] == inputs[rows][kept]).all()
