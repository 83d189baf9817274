"""Accounts that need no store, for tests of what stands before and behind them."""

from model_server.accounts import Accounts
from model_server.metering import Meter
from shared.rate_limit.gcra import Limit
from shared.rate_limit.leases import Limiter
from shared.rate_limit.networks import NetworkLimiter
from shared.rate_limit.store_loss import ALONE


def own_accounts(clock, calls_per_hour=1_000_000, **options) -> Accounts:
    """One worker's, without a store."""
    limiter = Limiter(None, n_workers=1, policy=ALONE, clock=clock)
    return Accounts(limiter, Meter(clock), calls_per_hour=calls_per_hour, **options)


def networks(clock, refused_per_minute=1_000_000) -> NetworkLimiter:
    """So many refused tokens a minute from one network."""
    return NetworkLimiter(Limit(refused_per_minute, 60), clock=clock)
