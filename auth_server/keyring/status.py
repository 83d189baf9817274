"""The operator's view of the ring: every key's state and age, and the earliest safe next step."""

import math

import msgspec

from auth_server.keyring.ring import (
    KeyPolicy,
    KeyRing,
    KeyState,
    SigningKey,
    activation_safe_at,
    removal_safe_at,
    when,
)

_STEP_OF = {
    KeyState.STANDBY: "activate",
    KeyState.ACTIVE: "retire",
    KeyState.RETIRED: "remove",
    KeyState.REMOVED: "",
}


class KeyStatus(msgspec.Struct, frozen=True):
    """One key. Times are UTC seconds; ``last_expiry_at`` is an upper bound of the last expiry signed (null: none).

    ``next_step`` is ``activate``, ``retire``, ``remove`` or empty; ``safe_at`` is the earliest moment for it.
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


class RingStatus(msgspec.Struct, frozen=True):
    """The whole ring. ``advice`` is one sentence: what to do next. ``verifiers`` is empty until verifiers report."""

    generation: int
    jwks_max_age_s: float
    advice: str
    keys: tuple[KeyStatus, ...]
    verifiers: tuple[str, ...] = ()


def ring_status(ring: KeyRing, now: float, policy: KeyPolicy) -> RingStatus:
    """Describe ``ring`` at ``now``: the active key first, then standby, retired and removed keys, oldest first."""
    order = list(_STEP_OF)
    order.insert(0, order.pop(order.index(KeyState.ACTIVE)))
    keys = sorted(ring.keys, key=lambda key: order.index(key.state))
    return RingStatus(
        generation=ring.generation,
        jwks_max_age_s=policy.max_age_s,
        advice=_advice(ring, now, policy),
        keys=tuple(_key_status(key, ring, now, policy) for key in keys),
    )


def _key_status(key: SigningKey, ring: KeyRing, now: float, policy: KeyPolicy) -> KeyStatus:
    return KeyStatus(
        kid=key.kid,
        state=key.state,
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
    )


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


def _advice(ring: KeyRing, now: float, policy: KeyPolicy) -> str:
    rotate_at = activation_safe_at(ring.next_standby, policy)
    due = [key for key in ring.in_state(KeyState.RETIRED) if now > removal_safe_at(key, policy)]
    if due:
        return f"{len(due)} retired key(s) can be removed: flex keys retire (a rotation does it too)."
    if now < rotate_at:
        return f"Nothing to do; a planned rotation is safe at {when(rotate_at, now)}."
    return "Nothing is due; 'flex keys rotate' is safe whenever you want it."
