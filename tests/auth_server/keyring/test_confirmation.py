"""Which verifiers hold an activation up, and what state of a key follows from what they say."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auth_server.keyring import transitions
from auth_server.keyring.confirmation import (
    Lag,
    Stage,
    check_activation,
    has_proved,
    laggards,
    obstacles,
    stage,
)
from auth_server.keyring.ring import FreshKey, KeyPolicy, KeyState
from shared.errors import AppError
from shared.verifiers import LIVE_S, VerifierReport

POLICY = KeyPolicy(max_age_s=300, stale_s=30, ttl_s=900)
T0 = 1_000_000.0
SAFE = T0 + POLICY.spread_s
KIDS = st.lists(st.sampled_from(["a", "b", "x"]), max_size=3, unique=True).map(tuple)


def fresh(kid: str) -> FreshKey:
    return FreshKey(kid=kid, n="n", e="AQAB", n_bits=2048, pem_sha256=kid, encrypted=False)


RING = transitions.first_ring(fresh("a"), fresh("b"), T0, POLICY)
STANDBY = RING.next_standby


def said(*, name="v", seen_at=SAFE, kids=("a", "b"), proofs=("a", "b")) -> VerifierReport:
    return VerifierReport(
        id=name,
        started_at=T0,
        seen_at=seen_at,
        kids=kids,
        proofs=dict.fromkeys(proofs, seen_at),
        feed_state="",
        staleness_s=None,
        generation=0,
    )


def test_key_that_every_verifier_proved_is_confirmed_and_may_be_activated():
    """Old enough and proved: nothing speaks against it."""
    reports = (said(name="v1"), said(name="v2"))
    assert not obstacles(STANDBY, reports, SAFE, POLICY)
    assert stage(STANDBY, reports, SAFE, POLICY) is Stage.CONFIRMED
    assert transitions.activate(RING, SAFE, POLICY, fresh=fresh("c"), reports=reports).active.kid == "b"


def test_live_verifier_without_proof_is_named_and_blocks():
    """However old the key is."""
    reports = (said(name="good"), said(name="host-8000-1", seen_at=SAFE + 9_000, proofs=("a",)))
    with pytest.raises(AppError, match=r"host-8000-1 \(live, has not verified with it\)") as refused:
        check_activation(STANDBY, reports, SAFE + 9_001, POLICY)
    assert "good" not in refused.value.detail
    assert refused.value.retry_after_s == 2
    assert stage(STANDBY, reports, SAFE + 9_001, POLICY) is Stage.PUBLISHED


def test_verifier_that_lost_the_key_again_blocks():
    """Its issuer's key set was rolled back after the proof."""
    (behind,) = laggards("b", (said(kids=("a",)),), SAFE, POLICY)
    assert behind.lag is Lag.DROPPED


def test_silent_verifier_blocks_until_its_key_set_is_over():
    """It may serve on where nobody sees it; one that proved the key before it fell silent holds nothing up."""
    silent = said(seen_at=SAFE, proofs=("a",))
    end = SAFE + POLICY.spread_s
    (behind,) = laggards("b", (silent,), SAFE + LIVE_S + 1, POLICY)
    assert (behind.lag, behind.until) == (Lag.SILENT, end)
    with pytest.raises(AppError, match="silent for 331 s, waited for until"):
        check_activation(STANDBY, (silent,), end - 1, POLICY)
    check_activation(STANDBY, (silent,), end, POLICY)
    check_activation(STANDBY, (said(seen_at=SAFE),), SAFE + LIVE_S + 1, POLICY)


def test_everything_that_is_missing_is_named_at_once():
    """Age and verifiers in one refusal; no more than five names."""
    reports = tuple(said(name=f"v{number}", seen_at=T0, proofs=()) for number in range(7))
    with pytest.raises(AppError) as refused:
        check_activation(STANDBY, reports, T0 + 1, POLICY)
    assert "It can be activated safely at" in refused.value.detail
    assert "v4" in refused.value.detail
    assert "; and 2 more." in refused.value.detail
    assert "v5" not in refused.value.detail


def test_unknown_verifiers_refuse_what_no_verifiers_allow():
    """A store that can't be read is not a store without reports."""
    with pytest.raises(AppError, match="nobody knows which verifiers hold the key"):
        check_activation(STANDBY, None, SAFE, POLICY)
    check_activation(STANDBY, (), SAFE, POLICY)
    assert stage(STANDBY, None, SAFE, POLICY) is Stage.PUBLISHED


def test_force_skips_both_checks():
    """Young, unproved and unknown: it is activated all the same."""
    assert transitions.rotate(RING, T0, POLICY, fresh=fresh("c"), reports=None, force=True).active.kid == "b"
    reports = (said(seen_at=T0, proofs=()),)
    forced = transitions.activate(RING, T0, POLICY, fresh=fresh("c"), reports=reports, force=True)
    assert forced.active.kid == "b"


def test_stages_follow_from_the_ring_and_the_clock():
    """Staged for as long as a server may not have noticed; the other states have one name each."""
    assert stage(STANDBY, (), T0 + 1, POLICY) is Stage.STAGED
    assert stage(STANDBY, (), T0 + 2, POLICY) is Stage.PUBLISHED
    names = {
        state: stage(dataclasses.replace(STANDBY, state=state), (), SAFE, POLICY)
        for state in KeyState
        if state is not KeyState.STANDBY
    }
    assert names == {
        KeyState.ACTIVE: Stage.ACTIVE,
        KeyState.RETIRED: Stage.RETIRING,
        KeyState.REMOVED: Stage.REMOVED,
    }


REPORTS = st.lists(
    st.builds(
        said,
        name=st.sampled_from(["v1", "v2", "v3"]),
        seen_at=st.floats(T0 - 1000, T0 + 3000),
        kids=KIDS,
        proofs=KIDS,
    ),
    max_size=3,
    unique_by=lambda report: report.id,
).map(tuple)


@given(reports=REPORTS, now=st.floats(T0, T0 + 3000))
@settings(max_examples=300, deadline=None, database=None)
def test_no_live_verifier_without_proof_is_ever_passed_over(reports, now):
    """What may be activated is old enough, proved by all that live, and unproved only by those that are over."""
    found = obstacles(STANDBY, reports, now, POLICY)
    unproved = [report for report in reports if not has_proved(report, "b")]
    if any(report.is_live(now) for report in unproved):
        assert found.laggards
    if not found:
        assert now >= SAFE
        assert all(now >= report.seen_at + POLICY.spread_s for report in unproved)
    confirmed = stage(STANDBY, reports, now, POLICY) is Stage.CONFIRMED
    assert confirmed is not bool(found)
