"""What an operator sees, and whether it is true."""

import pytest

from auth_server.keyring.policy import ring_policy
from auth_server.keyring.ring import KeyState
from auth_server.keyring.status import ring_status
from auth_server.settings import AuthSettings
from shared.errors import AppError


def test_safe_moments_are_the_ones_that_the_rules_enforce(changes, folder, policy, clock):
    """A step at its ``safe_at`` is done; one second earlier it is refused."""
    status = ring_status(folder.read()[0], (), clock.now, policy)
    active, standby = status.keys
    assert (active.next_step, standby.next_step) == ("retire", "activate")
    assert active.safe_at == standby.safe_at == clock.now + 302
    clock.now = standby.safe_at - 1
    with pytest.raises(AppError):
        changes.activate(reports=())
    clock.now = standby.safe_at
    changes.activate(reports=())

    retired = next(key for key in ring_status(folder.read()[0], (), clock.now, policy).keys if key.state == "retiring")
    assert retired.next_step == "remove"
    clock.now = retired.safe_at - 1
    with pytest.raises(AppError):
        changes.retire(retired.kid)
    clock.now = retired.safe_at
    assert changes.retire(retired.kid).moved_to(KeyState.REMOVED)


def test_advice_names_the_next_thing_to_do(changes, folder, policy, clock):
    """Wait, rotate, or clear what is over."""

    def advice() -> str:
        return ring_status(folder.read()[0], (), clock.now, policy).advice

    assert "safe at 2027-01-15 08:05:02 UTC (in 302 s)" in advice()
    clock.advance(302)
    assert "'flex keys rotate' is safe" in advice()
    changes.rotate(seen_active=folder.read()[0].active.kid, reports=())
    clock.advance(5000)
    assert "1 retired key(s) can be removed" in advice()


def test_states_come_in_an_order_that_reads(changes, folder, policy, clock):
    """The key that signs first, what is gone last; a compromised key is marked."""
    changes.revoke(folder.read()[0].next_standby.kid)
    clock.advance(400)
    changes.rotate(seen_active=folder.read()[0].active.kid, reports=())
    keys = ring_status(folder.read()[0], (), clock.now, policy).keys
    assert [key.state for key in keys] == ["active", "staged", "retiring", "removed"]
    assert [key.compromised for key in keys] == [False, False, False, True]
    assert keys[1].last_expiry_at is None
    assert keys[3].safe_at is None


def test_policy_counts_the_time_for_which_a_cache_may_serve_stale_keys():
    """330 s in caches, 2 s for the servers; a client may have tokens of an hour whatever the default is."""
    policy = ring_policy(AuthSettings.read({"FLEX_JWKS_MAX_AGE_S": "300", "FLEX_ACCESS_TOKEN_TTL_S": "60"}))
    assert policy.spread_s == 332
    assert (policy.ttl_s, policy.longest_ttl_s, policy.reserve_s) == (60, 3600, 10)
