"""What holds while the store is away: a share of each limit for every worker, under a cap, decided locally.

First what is left of the leases is spent. Then each worker has its share of what the store said was left, refilled at
its share of the rate, so that all workers together stay near the limit; what they admit is told to the store when it
is back. Which rule applies is data: :data:`MODEL_CALLS` keeps serving, :data:`LOGINS` fails closed to a trickle.
"""

from dataclasses import dataclass

from shared.rate_limit.gcra import Decision, Limit, decide
from shared.rate_limit.lease import Lease


@dataclass(frozen=True, slots=True)
class LossPolicy:
    """``ceiling`` bounds every key's local limit (None: only by its share); ``n_running`` calls may run at once."""

    name: str
    ceiling: Limit | None
    n_running: int


MODEL_CALLS = LossPolicy("model_calls", None, 64)
LOGINS = LossPolicy("logins", Limit(5, 60), 8)
ALONE = LossPolicy("alone", None, 1_000_000)
"""For a worker that has no store at all: its share is the rule, not an emergency."""


def share(policy: LossPolicy, limit: Limit, n_workers: int) -> Limit:
    """Give the local limit of one worker: its part, at least 1, and not above the policy's ceiling."""
    part = Limit(max(limit.count // n_workers, 1), limit.window_s)
    ceiling = policy.ceiling
    if ceiling is not None and (ceiling.count < part.count or ceiling.interval_us > part.interval_us):
        return ceiling
    return part


def try_local(policy: LossPolicy, lease: Lease, n_workers: int, now: float, cost: int) -> Decision:
    """Decide without the store, on this worker's share of the limit.

    The caller stores the new arrival in ``lease.local_arrival_us`` once all its limits agree.
    """
    limit = share(policy, lease.limit, n_workers)
    now_us = int(now * 1_000_000)
    arrival_us = lease.local_arrival_us
    if arrival_us is None:  # begin where the store left off, as far as this worker heard
        left = min(lease.room // n_workers, limit.count)
        arrival_us = now_us + (limit.count - left) * limit.interval_us
    decision = decide(limit, arrival_us, now_us, cost)
    if not decision.allowed:
        lease.local_arrival_us = arrival_us
    return decision
