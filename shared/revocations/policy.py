"""What the age of our knowledge about revocations allows; a pure decision.

Up to 5 s is normal, above that degraded (metric, audit; readiness stays), above the limit the call is refused with 503
and Retry-After. Never 401: clients would storm the token endpoint for tokens that are
no better.
"""

from enum import StrEnum

NORMAL_S = 5.0
MANAGEMENT_LIMIT_S = 60.0


class ScopeKind(StrEnum):
    """What a call needs: MODEL for predict and explain, MANAGEMENT for everything that changes or administers."""

    MODEL = "model"
    MANAGEMENT = "management"


class Freshness(StrEnum):
    """OK, DEGRADED (serve, and say so to operators), or REFUSE (503)."""

    OK = "ok"
    DEGRADED = "degraded"
    REFUSE = "refuse"


def freshness(staleness_s: float, scope_kind: ScopeKind, limit_s: float) -> Freshness:
    """Decide for knowledge that is ``staleness_s`` old (infinite: there is none).

    ``limit_s`` is the operator's bound for model calls; 0 says that they need no feed. Management never goes beyond
    60 s, whatever the bound.
    """
    if scope_kind is ScopeKind.MANAGEMENT:
        limit_s = min(limit_s or MANAGEMENT_LIMIT_S, MANAGEMENT_LIMIT_S)
    if limit_s and not staleness_s <= limit_s:  # so written, not-a-number refuses
        return Freshness.REFUSE
    return Freshness.OK if staleness_s <= NORMAL_S else Freshness.DEGRADED
