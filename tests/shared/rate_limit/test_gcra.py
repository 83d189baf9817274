"""The pure rule against a simple model: a bucket of exact fractions."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.rate_limit.gcra import MAX_COUNT, Limit, decide, next_unit_us

HUNDRED = Limit(100, 3600)
NOW = 1_800_000_000_000_000


def test_a_hundred_an_hour_is_a_hundred_at_once_and_then_one_every_36_seconds() -> None:
    """Exactly 100 in a burst, the next one 36 s later to the microsecond, and so on."""
    arrival = 0
    for n in range(100):
        decision = decide(HUNDRED, arrival, NOW)
        assert (decision.allowed, decision.remaining, decision.retry_after_s) == (True, 99 - n, 0)
        arrival = decision.arrival_us
    for n in range(1, 5):
        early = decide(HUNDRED, arrival, NOW + n * 36_000_000 - 1)
        assert (early.allowed, early.arrival_us, early.retry_after_s) == (False, arrival, 1)
        decision = decide(HUNDRED, arrival, NOW + n * 36_000_000)
        assert decision.allowed
        arrival = decision.arrival_us


def test_a_refusal_says_when_the_same_cost_fits() -> None:
    """Retry-After is for the cost asked for, reset for one unit; at that time it fits, a second earlier it does not."""
    full = decide(HUNDRED, 0, NOW, 100)
    refused = decide(HUNDRED, full.arrival_us, NOW, 10)
    assert (refused.retry_after_s, refused.reset_s, refused.remaining) == (360, 36, 0)
    assert decide(HUNDRED, full.arrival_us, NOW + 360_000_000, 10).allowed
    assert not decide(HUNDRED, full.arrival_us, NOW + 359_000_000, 10).allowed


def test_more_than_the_whole_limit_never_fits() -> None:
    """No time helps, so none is named, and nothing is charged."""
    decision = decide(HUNDRED, 0, NOW, 101)
    assert (decision.allowed, decision.retry_after_s, decision.remaining, decision.arrival_us) == (False, None, 100, 0)


def test_looking_costs_nothing() -> None:
    """A cost of 0 is always allowed and changes nothing."""
    assert decide(HUNDRED, 0, NOW, 0).remaining == 100
    full = decide(HUNDRED, 0, NOW, 100).arrival_us
    assert decide(HUNDRED, full, NOW, 0).arrival_us == full


def test_a_clock_that_goes_back_is_stricter() -> None:
    """An hour back means an hour more to wait, never more units."""
    arrival = decide(HUNDRED, 0, NOW, 100).arrival_us
    assert decide(HUNDRED, arrival, NOW - 3_600_000_000).retry_after_s == 36 + 3600
    assert next_unit_us(HUNDRED, 2 * HUNDRED.burst_us) == HUNDRED.burst_us + HUNDRED.interval_us


@pytest.mark.parametrize(("count", "window_s"), [(0, 1), (1, 0), (MAX_COUNT + 1, 3600), (1_000_001, 1), (1, 2_678_401)])
def test_limits_outside_of_the_bounds_are_refused(count: int, window_s: int) -> None:
    """The bounds keep all numbers exact in the store's doubles."""
    with pytest.raises(ValueError, match=r"a limit (is|has)"):
        Limit(count, window_s)


@given(
    limit=st.builds(Limit, st.integers(1, 10_000), st.integers(1, 86_400)),
    steps=st.lists(st.tuples(st.integers(0, 50_000_000_000), st.integers(1, 40)), max_size=60),
)
def test_it_decides_like_a_bucket(limit: Limit, steps: list[tuple[int, int]]) -> None:
    """Same answers as a bucket that holds ``count`` and fills by one unit an interval, for any calls at any times."""
    arrival, now, level = 0, NOW, Fraction(limit.count)
    for pause_us, cost in steps:
        now += pause_us
        level = min(level + Fraction(pause_us, limit.interval_us), Fraction(limit.count))
        decision = decide(limit, arrival, now, cost)
        assert decision.allowed == (level >= cost)
        if decision.allowed:
            level -= cost
        arrival = decision.arrival_us
        assert decision.remaining == int(level)
        if decision.retry_after_s:
            assert decide(limit, arrival, now + decision.retry_after_s * 1_000_000, cost).allowed


@given(count=st.integers(1, MAX_COUNT), window_s=st.integers(101, 86_400))
def test_the_rate_is_never_above_the_limit(count: int, window_s: int) -> None:
    """Rounding is to the strict side, by less than a microsecond an interval; a burst is the exact count."""
    limit = Limit(count, window_s)
    assert 0 <= limit.interval_us * count - window_s * 1_000_000 < count
    assert decide(limit, 0, NOW, count).allowed
    assert not decide(limit, decide(limit, 0, NOW, count).arrival_us, NOW, 1).allowed
