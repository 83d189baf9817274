"""What the age of our knowledge allows."""

import math

import pytest

from shared.revocations.policy import Freshness, ScopeKind, freshness

OK, DEGRADED, REFUSE = Freshness.OK, Freshness.DEGRADED, Freshness.REFUSE
MODEL, MANAGEMENT = ScopeKind.MODEL, ScopeKind.MANAGEMENT


@pytest.mark.parametrize(
    ("staleness_s", "kind", "limit_s", "expected"),
    [
        (0.0, MODEL, 900, OK),
        (5.0, MODEL, 900, OK),
        (5.001, MODEL, 900, DEGRADED),
        (900.0, MODEL, 900, DEGRADED),
        (900.001, MODEL, 900, REFUSE),
        (3.0, MODEL, 2, REFUSE),
        (math.inf, MODEL, 900, REFUSE),
        (math.inf, MODEL, 0, DEGRADED),
        (math.nan, MODEL, 900, REFUSE),
        (60.0, MANAGEMENT, 900, DEGRADED),
        (60.001, MANAGEMENT, 900, REFUSE),
        (11.0, MANAGEMENT, 10, REFUSE),
        (61.0, MANAGEMENT, 0, REFUSE),
        (math.inf, MANAGEMENT, 0, REFUSE),
        (1.0, MANAGEMENT, 900, OK),
    ],
)
def test_policy_flips_exactly_at_its_bounds(
    staleness_s: float, kind: ScopeKind, limit_s: float, expected: Freshness
) -> None:
    """Bounds are inclusive; management stays within a minute whatever the operator says."""
    assert freshness(staleness_s, kind, limit_s) is expected
