"""Medians, spreads and paired ratios."""

import pytest

from bench.spread import paired_ratio, percentile, spread


def test_spread_gives_median_and_both_ends():
    """The order of the rounds does not matter."""
    figure = spread([3.0, 1.0, 2.0, 10.0])
    assert (figure.median, figure.low, figure.high, figure.n_rounds) == (2.5, 1.0, 10.0, 4)


def test_spread_of_nothing_is_nothing():
    """A case that was not loaded has no figure, not a zero."""
    assert spread([]) is None


def test_ratio_is_taken_round_by_round():
    """A round in which the whole machine was slow changes both sides and so not the ratio."""
    figure = paired_ratio([800.0, 400.0, 880.0], [1000.0, 500.0, 1100.0])
    assert (figure.median, figure.low, figure.high) == pytest.approx((0.8, 0.8, 0.8))


def test_ratio_needs_both_sides():
    """Without the other side there is no ratio; a zero is left out."""
    assert paired_ratio([1.0], []) is None
    assert paired_ratio([1.0, 2.0], [0.0, 4.0]).median == 0.5


def test_spread_changes_its_unit():
    """Requests a second become records a second."""
    assert spread([2.0, 4.0]).times(1000).median == 3000


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.001, 1)])
def test_percentile_of_a_hundred_values(share, expected):
    """Nearest rank, in any order."""
    assert percentile(list(range(100, 0, -1)), share) == expected
