"""The pure decisions: what may follow what, and when."""

import dataclasses

import pytest

from auth_server.keyring import transitions
from auth_server.keyring.ring import (
    MAX_PUBLISHED,
    FreshKey,
    KeyPolicy,
    KeyRing,
    KeyState,
    faults,
    removal_safe_at,
)
from shared.errors import AppError

POLICY = KeyPolicy(max_age_s=300, ttl_s=900)
T0 = 1_000_000.0
SAFE = T0 + 302  # published at T0, 300 s in caches, 2 s for servers to take over


def fresh(name: str) -> FreshKey:
    return FreshKey(kid=name, n=f"n-{name}", e="AQAB", n_bits=2048, pem_sha256=f"d-{name}", encrypted=False)


@pytest.fixture
def ring() -> KeyRing:
    return transitions.first_ring(fresh("a"), fresh("b"), T0, POLICY)


def states(ring: KeyRing) -> dict[str, str]:
    return {key.kid: str(key.state) for key in ring.keys}


def test_first_ring_signs_at_once_and_publishes_a_standby_key(ring):
    """Nobody holds an older key set, so the first key need not wait."""
    assert states(ring) == {"a": "active", "b": "standby"}
    assert ring.active.last_expiry_at == T0 + 900 + 120


def test_planned_rotation_is_one_step(ring):
    """Standby signs, active retires, a new standby key is there: one generation further."""
    rotated = transitions.rotate(ring, SAFE, POLICY, fresh=fresh("c"), reports=())
    assert states(rotated) == {"a": "retired", "b": "active", "c": "standby"}
    assert rotated.generation == ring.generation + 1
    assert rotated.active.last_expiry_at == SAFE + 900 + 120


def test_standby_key_younger_than_the_cache_bound_is_refused_with_the_safe_moment(ring):
    """The refusal names the key, its age, what is missing and when it will be there."""
    with pytest.raises(AppError) as refused:
        transitions.rotate(ring, SAFE - 0.5, POLICY, fresh=fresh("c"), reports=())
    assert refused.value.code == "conflict"
    assert refused.value.retry_after_s == 1
    assert "published for 301 s" in refused.value.detail
    assert "1970-01-12 13:51:42 UTC (in 1 s)" in refused.value.detail


def test_emergency_activation_skips_the_age_only(ring):
    """A young standby key signs, the former key stays published."""
    rotated = transitions.activate(ring, T0 + 1, POLICY, fresh=fresh("c"), reports=(), force=True)
    assert states(rotated) == {"a": "retired", "b": "active", "c": "standby"}


@pytest.mark.parametrize("kid", ["a", "r"])
def test_only_a_standby_key_can_be_activated(ring, kid):
    """Neither the active key nor a retired one signs (again)."""
    retired = dataclasses.replace(ring.active, kid="r", state=KeyState.RETIRED, retired_at=T0)
    ring = KeyRing(1, (*ring.keys, retired))
    with pytest.raises(AppError, match="conflict"):
        transitions.activate(ring, SAFE, POLICY, fresh=fresh("c"), reports=(), kid=kid)


def test_chosen_standby_key_is_activated_and_the_other_one_stays(ring):
    """With a second standby key no fresh one is needed."""
    ring = transitions.prepare(ring, fresh("b2"), T0)
    rotated = transitions.activate(ring, SAFE, POLICY, fresh=fresh("c"), reports=(), kid="b2")
    assert states(rotated) == {"a": "retired", "b": "standby", "b2": "active"}


def test_retired_key_stays_until_its_last_token_is_over(ring):
    """Removal waits for the high-water mark and the leeway, to the second; then the key is gone for ever."""
    ring = transitions.rotate(ring, SAFE, POLICY, fresh=fresh("c"), reports=())
    end = ring.find("a").last_expiry_at + POLICY.leeway_s
    with pytest.raises(AppError) as refused:
        transitions.remove(ring, "a", end, POLICY)
    assert refused.value.retry_after_s == 1
    assert transitions.sweep(ring, end, POLICY) is ring
    swept = transitions.remove(ring, "a", end + 0.001, POLICY)
    gone = swept.find("a")
    assert (gone.state, gone.n, gone.pem_sha256) == (KeyState.REMOVED, "", "")
    assert "a" not in {key.kid for key in swept.published}


def test_key_that_was_retired_a_moment_ago_is_not_removed_however_old_its_tokens(ring):
    """Two independent facts must hold: servers need the take-over time to stop signing."""
    old = dataclasses.replace(ring.active, last_expiry_at=T0 - 1000)
    ring = KeyRing(1, (old, *ring.keys[1:]))
    ring = transitions.activate(ring, SAFE, POLICY, fresh=fresh("c"), reports=())
    assert removal_safe_at(ring.find("a"), POLICY) == SAFE + POLICY.takeover_s
    assert transitions.sweep(ring, SAFE + 1, POLICY) is ring
    assert transitions.sweep(ring, SAFE + 3, POLICY).find("a").state is KeyState.REMOVED


def test_rotation_removes_what_is_over_in_the_same_generation(ring):
    """One commit does all of it."""
    ring = transitions.rotate(ring, SAFE, POLICY, fresh=fresh("c"), reports=())
    later = SAFE + 10_000
    rotated = transitions.rotate(ring, later, POLICY, fresh=fresh("d"), reports=())
    assert states(rotated) == {"a": "removed", "b": "retired", "c": "active", "d": "standby"}
    assert rotated.generation == ring.generation + 1


def test_withdrawn_standby_key_is_replaced(ring):
    """There is always a standby key; the withdrawn one never signed, so it goes after the take-over time."""
    ring = transitions.retire(ring, "b", T0, fresh=fresh("c"))
    assert states(ring) == {"a": "active", "b": "retired", "c": "standby"}
    assert transitions.sweep(ring, T0 + 31, POLICY).find("b").state is KeyState.REMOVED


def test_active_and_retired_keys_can_not_be_withdrawn(ring):
    """The active key is retired by activating another one."""
    ring = transitions.rotate(ring, SAFE, POLICY, fresh=fresh("c"), reports=())
    for kid in ("a", "b"):
        with pytest.raises(AppError, match="conflict"):
            transitions.retire(ring, kid, SAFE, fresh=fresh("d"))


def test_compromised_active_key_is_dropped_at_once_and_the_standby_key_signs(ring):
    """An emergency waits for nothing."""
    ring = transitions.revoke(ring, "a", T0 + 1, POLICY, fresh=fresh("c"))
    assert states(ring) == {"a": "removed", "b": "active", "c": "standby"}
    assert ring.find("a").compromised
    assert ring.find("a").removed_at == T0 + 1


@pytest.mark.parametrize("kid", ["b", "r"])
def test_compromised_standby_or_retired_key_is_dropped_and_the_active_key_stays(ring, kid):
    """Only the compromised key goes."""
    retired = dataclasses.replace(ring.active, kid="r", state=KeyState.RETIRED, retired_at=T0)
    ring = KeyRing(1, (*ring.keys, retired))
    revoked = transitions.revoke(ring, kid, T0 + 1, POLICY, fresh=fresh("c"))
    assert revoked.find(kid).compromised
    assert revoked.active.kid == "a"
    assert revoked.in_state(KeyState.STANDBY)
    with pytest.raises(AppError, match="removed already"):
        transitions.revoke(revoked, kid, T0 + 2, POLICY, fresh=fresh("d"))


def test_kid_is_never_used_again(ring):
    """A removed key's kid stays on the list; a key that came back would be a bug or an attack."""
    ring = transitions.revoke(ring, "a", T0 + 1, POLICY, fresh=fresh("c"))
    with pytest.raises(ValueError, match="twice"):
        transitions.prepare(ring, fresh("a"), T0 + 2)


def test_reservation_only_rises_and_only_for_the_active_key(ring):
    """A server that missed a rotation can't extend the life of a retired key."""
    mark = ring.active.last_expiry_at
    raised = transitions.reserve(ring, "a", mark + 60)
    assert raised.active.last_expiry_at == mark + 60
    assert raised.generation == ring.generation
    assert transitions.reserve(ring, "a", mark) is ring
    rotated = transitions.rotate(ring, SAFE, POLICY, fresh=fresh("c"), reports=())
    assert transitions.reserve(rotated, "a", mark + 60) is rotated
    assert transitions.reserve(rotated, "c", mark + 60) is rotated


def test_key_set_never_outgrows_what_verifiers_take(ring):
    """The seventeenth published key is refused; an emergency still works at the limit."""
    for number in range(MAX_PUBLISHED - 2):
        ring = transitions.prepare(ring, fresh(f"s{number}"), T0)
    with pytest.raises(AppError, match="16 keys are published"):
        transitions.prepare(ring, fresh("too-many"), T0)
    assert not faults(transitions.revoke(ring, "a", T0, POLICY, fresh=fresh("z")))


def test_unknown_kid_is_not_found(ring):
    """An operator's typing error is told as such."""
    with pytest.raises(AppError, match="not_found"):
        ring.find("nope")
