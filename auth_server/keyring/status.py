"""The operator's view of the ring: every key's state and age, and the earliest safe next step."""

import math

import msgspec

from auth_server.keyring import confirmation
from auth_server.keyring.changes import Change
from auth_server.keyring.confirmation import Reports
from auth_server.keyring.ring import (
    KeyPolicy,
    KeyRing,
    KeyState,
    SigningKey,
    activation_safe_at,
    removal_safe_at,
    when,
)
from shared.verifiers import VerifierReport

_STEP_OF = {
    KeyState.STANDBY: "activate",
    KeyState.ACTIVE: "retire",
    KeyState.RETIRED: "remove",
    KeyState.REMOVED: "",
}


class KeyStatus(msgspec.Struct, frozen=True):
    """One key; ``state`` is one of :class:`.confirmation.Stage`. Times are UTC seconds.

    ``last_expiry_at`` is an upper bound of the last expiry signed (null: none). ``next_step`` is ``activate``,
    ``retire``, ``remove`` or empty; ``safe_at`` is the earliest moment for it as far as time decides; ``waits_for``
    names the verifiers without which a standby key is not activated even then.
    """

    kid: str
    state: str
    created_at: float
    published_at: float
    activated_at: float | None
    retired_at: float | None
    removed_at: float | None
    age_s: int
    last_expiry_at: float | None
    compromised: bool
    encrypted: bool
    n_bits: int
    next_step: str
    safe_at: float | None
    waits_for: tuple[str, ...] = ()


class VerifierStatus(msgspec.Struct, frozen=True):
    """One verifier by its last report: which kids it holds (``kids``), which it verified with (``proved``) and since
    when (``proved_at``). ``age_s``: since that report; ``staleness_s`` of its revocations, null: it has none.
    """

    id: str
    live: bool
    age_s: float
    seen_at: float
    started_at: float
    kids: tuple[str, ...]
    proved: tuple[str, ...]
    proved_at: dict[str, float]
    generation: int
    feed_state: str
    staleness_s: float | None


class RingStatus(msgspec.Struct, frozen=True):
    """The whole ring. ``advice`` is one sentence: what to do next.

    ``verifiers_known`` is false where the store can't be read; ``verifiers`` is then empty.
    """

    generation: int
    jwks_max_age_s: float
    advice: str
    keys: tuple[KeyStatus, ...]
    verifiers_known: bool
    verifiers: tuple[VerifierStatus, ...]


class ChangeReport(msgspec.Struct, frozen=True):
    """What a change did, as kids. ``overtaken``: another process had done it already.

    ``pushed``: whether the revocation of a dropped key is in the feed, so that every verifier drops it within a
    second; null where there was none to push.
    """

    generation: int
    active: str
    overtaken: bool
    prepared: tuple[str, ...]
    activated: tuple[str, ...]
    retired: tuple[str, ...]
    removed: tuple[str, ...]
    revoked: tuple[str, ...]
    pushed: bool | None = None


def change_report(change: Change, *, pushed: bool | None = None) -> ChangeReport:
    """Describe what a change did."""
    gone = change.moved_to(KeyState.REMOVED)
    return ChangeReport(
        generation=change.after.generation,
        active=change.after.active.kid,
        overtaken=change.overtaken,
        prepared=tuple(key.kid for key in change.moved_to(KeyState.STANDBY)),
        activated=tuple(key.kid for key in change.moved_to(KeyState.ACTIVE)),
        retired=tuple(key.kid for key in change.moved_to(KeyState.RETIRED)),
        removed=tuple(key.kid for key in gone if not key.compromised),
        revoked=tuple(key.kid for key in gone if key.compromised),
        pushed=pushed,
    )


def ring_status(ring: KeyRing, reports: Reports, now: float, policy: KeyPolicy) -> RingStatus:
    """Describe ``ring`` at ``now``: the active key first, then standby, retired and removed keys, oldest first."""
    order = list(_STEP_OF)
    order.insert(0, order.pop(order.index(KeyState.ACTIVE)))
    keys = sorted(ring.keys, key=lambda key: order.index(key.state))
    return RingStatus(
        generation=ring.generation,
        jwks_max_age_s=policy.max_age_s,
        advice=_advice(ring, reports, now, policy),
        keys=tuple(_key_status(key, ring, reports, now, policy) for key in keys),
        verifiers_known=reports is not None,
        verifiers=verifier_statuses(reports or (), now),
    )


def verifier_statuses(reports: tuple[VerifierReport, ...], now: float) -> tuple[VerifierStatus, ...]:
    """Describe the verifiers at ``now``."""
    return tuple(
        VerifierStatus(
            id=report.id,
            live=report.is_live(now),
            age_s=max(0.0, round(now - report.seen_at, 1)),
            seen_at=report.seen_at,
            started_at=report.started_at,
            kids=tuple(report.kids),
            proved=tuple(kid for kid in report.kids if confirmation.has_proved(report, kid)),
            proved_at=dict(report.proofs),
            generation=report.generation,
            feed_state=report.feed_state,
            staleness_s=report.staleness_s,
        )
        for report in reports
    )


def _key_status(key: SigningKey, ring: KeyRing, reports: Reports, now: float, policy: KeyPolicy) -> KeyStatus:
    return KeyStatus(
        kid=key.kid,
        state=confirmation.stage(key, reports, now, policy),
        created_at=key.created_at,
        published_at=key.published_at,
        activated_at=key.activated_at,
        retired_at=key.retired_at,
        removed_at=key.removed_at,
        age_s=max(0, int(now - key.created_at)),
        last_expiry_at=key.last_expiry_at or None,
        compromised=key.compromised,
        encrypted=key.encrypted,
        n_bits=key.n_bits,
        next_step=_STEP_OF[key.state],
        safe_at=_safe_at(key, ring, policy),
        waits_for=_waits_for(key, reports, now, policy) if key.state is KeyState.STANDBY else (),
    )


def _waits_for(key: SigningKey, reports: Reports, now: float, policy: KeyPolicy) -> tuple[str, ...]:
    return tuple(lag.verifier_id for lag in confirmation.laggards(key.kid, reports or (), now, policy))


def _safe_at(key: SigningKey, ring: KeyRing, policy: KeyPolicy) -> float | None:
    match key.state:
        case KeyState.STANDBY:
            return math.ceil(activation_safe_at(key, policy))
        case KeyState.ACTIVE:
            return math.ceil(activation_safe_at(ring.next_standby, policy))
        case KeyState.RETIRED:
            return math.floor(removal_safe_at(key, policy)) + 1
        case KeyState.REMOVED:
            return None


def _advice(ring: KeyRing, reports: Reports, now: float, policy: KeyPolicy) -> str:
    heir = ring.next_standby
    rotate_at = activation_safe_at(heir, policy)
    due = [key for key in ring.in_state(KeyState.RETIRED) if now > removal_safe_at(key, policy)]
    if due:
        return f"{len(due)} retired key(s) can be removed: flex keys retire (a rotation does it too)."
    if now < rotate_at:
        return f"Nothing to do; a planned rotation is safe at {when(rotate_at, now)}."
    if reports is None:
        return "The store can't be read, so nobody knows what the verifiers hold; a planned rotation is refused."
    if behind := confirmation.laggards(heir.kid, reports, now, policy):
        return f"A planned rotation waits for verifiers: {confirmation.named(behind, now)}."
    return "Nothing is due; 'flex keys rotate' is safe whenever you want it."
