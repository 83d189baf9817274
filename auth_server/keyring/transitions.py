"""The pure decisions that lead from one key ring to the next.

Nothing here reads a clock, a file or a random number: callers pass ``now`` (UTC seconds) and fresh keys. After every
step there is exactly one active key and at least one standby key that never signed; a step that would break this is
a bug (ValueError), a step that is not safe yet is refused (AppError conflict).
"""

import dataclasses

from auth_server.keyring.confirmation import Reports, check_activation
from auth_server.keyring.ring import (
    MAX_PUBLISHED,
    FreshKey,
    KeyPolicy,
    KeyRing,
    KeyState,
    SigningKey,
    faults,
    removable,
    removal_safe_at,
    reservation,
    seconds_until,
    when,
)
from shared.errors import AppError


def first_ring(active: FreshKey, standby: FreshKey, now: float, policy: KeyPolicy) -> KeyRing:
    """Make the first ring: nobody holds an older key set yet, so its first key may sign at once."""
    first = dataclasses.replace(
        _standby(active, now),
        state=KeyState.ACTIVE,
        activated_at=now,
        last_expiry_at=reservation(now, policy),
    )
    return _settled(KeyRing(1, (first, _standby(standby, now))))


def prepare(ring: KeyRing, fresh: FreshKey, now: float) -> KeyRing:
    """Publish one more standby key. Raises AppError conflict if the key set would grow past what verifiers take."""
    return _next(ring, (*ring.keys, _standby(fresh, now)))


def activate(
    ring: KeyRing,
    now: float,
    policy: KeyPolicy,
    *,
    fresh: FreshKey,
    reports: Reports,
    kid: str = "",
    force: bool = False,
) -> KeyRing:
    """Let a standby key sign and retire the one that signed, in one step.

    ``kid``: which one (default: published longest). ``fresh`` becomes standby if none would be left. Raises AppError
    conflict, naming what is missing, while a verifier may still hold a key set without it or has not proved it in its
    report; ``force`` skips that check only.
    """
    chosen = ring.find(kid) if kid else ring.next_standby
    if chosen.state is not KeyState.STANDBY:
        raise AppError("conflict", f"Only a standby key can be activated; {chosen.kid} is {chosen.state}.")
    if not force:
        check_activation(chosen, reports, now, policy)
    signing = dataclasses.replace(
        chosen, state=KeyState.ACTIVE, activated_at=now, last_expiry_at=reservation(now, policy)
    )
    retired = dataclasses.replace(ring.active, state=KeyState.RETIRED, retired_at=now)
    return _next(ring, _with_standby(_swap(ring.keys, signing, retired), fresh, now))


def rotate(
    ring: KeyRing, now: float, policy: KeyPolicy, *, fresh: FreshKey, reports: Reports, force: bool = False
) -> KeyRing:
    """Planned rotation in one step: activate, retire, new standby, and remove what no live token needs any more.

    Raises AppError conflict as :func:`activate` does.
    """
    rotated = activate(sweep(ring, now, policy), now, policy, fresh=fresh, reports=reports, force=force)
    return dataclasses.replace(rotated, generation=ring.generation + 1)


def retire(ring: KeyRing, kid: str, now: float, *, fresh: FreshKey) -> KeyRing:
    """Withdraw a standby key that shall never sign; ``fresh`` takes its place if it was the only one.

    Raises AppError conflict for a key in any other state: the active key is retired by activating another.
    """
    key = ring.find(kid)
    if key.state is KeyState.ACTIVE:
        raise AppError("conflict", "The active key is retired by activating a standby key: flex keys rotate.")
    if key.state is not KeyState.STANDBY:
        raise AppError("conflict", f"Only a standby key can be withdrawn; {key.kid} is {key.state}.")
    gone = dataclasses.replace(key, state=KeyState.RETIRED, retired_at=now)
    return _next(ring, _with_standby(_swap(ring.keys, gone), fresh, now))


def remove(ring: KeyRing, kid: str, now: float, policy: KeyPolicy) -> KeyRing:
    """Take a retired key out of the key set for ever.

    Raises AppError conflict, with the earliest safe time, while a token that it signed may live.
    """
    key = ring.find(kid)
    if key.state is not KeyState.RETIRED:
        raise AppError("conflict", f"Only a retired key can be removed; {key.kid} is {key.state}.")
    if not removable(key, now, policy):
        safe_at = removal_safe_at(key, policy)
        raise AppError(
            "conflict",
            f"Key {kid} is still needed: tokens that it signed may live. It can be removed after {when(safe_at, now)}.",
            retry_after_s=seconds_until(safe_at, now),
        )
    return _next(ring, _swap(ring.keys, _removed(key, now)))


def sweep(ring: KeyRing, now: float, policy: KeyPolicy) -> KeyRing:
    """Remove every retired key that no live token needs; the same ring if there is none."""
    due = [key for key in ring.in_state(KeyState.RETIRED) if removable(key, now, policy)]
    return _next(ring, _swap(ring.keys, *(_removed(key, now) for key in due))) if due else ring


def revoke(ring: KeyRing, kid: str, now: float, policy: KeyPolicy, *, fresh: FreshKey) -> KeyRing:
    """Drop a compromised key at once, whatever live tokens need it.

    If it was the active one, the standby key that has been published longest signs from now on, whatever its age.
    """
    key = ring.find(kid)
    if key.state is KeyState.REMOVED:
        raise AppError("conflict", f"Key {kid} is removed already.")
    keys = _swap(ring.keys, dataclasses.replace(_removed(key, now), compromised=True))
    if key.state is KeyState.ACTIVE:
        heir = dataclasses.replace(
            ring.next_standby, state=KeyState.ACTIVE, activated_at=now, last_expiry_at=reservation(now, policy)
        )
        keys = _swap(keys, heir)
    return _next(ring, _with_standby(keys, fresh, now))


def reserve(ring: KeyRing, kid: str, until: float) -> KeyRing:
    """Raise the active key's high-water mark to ``until``; the same ring if ``kid`` signs no more or it is there."""
    key = ring.active
    if key.kid != kid or key.last_expiry_at >= until:
        return ring
    return KeyRing(ring.generation, _swap(ring.keys, dataclasses.replace(key, last_expiry_at=until)))


def _standby(fresh: FreshKey, now: float) -> SigningKey:
    return SigningKey(
        kid=fresh.kid,
        state=KeyState.STANDBY,
        n=fresh.n,
        e=fresh.e,
        n_bits=fresh.n_bits,
        pem_sha256=fresh.pem_sha256,
        encrypted=fresh.encrypted,
        created_at=now,
        published_at=now,
    )


def _removed(key: SigningKey, now: float) -> SigningKey:
    return dataclasses.replace(key, state=KeyState.REMOVED, removed_at=now, n="", e="", pem_sha256="")


def _swap(keys: tuple[SigningKey, ...], *changed: SigningKey) -> tuple[SigningKey, ...]:
    by_kid = {key.kid: key for key in changed}
    return tuple(by_kid.get(key.kid, key) for key in keys)


def _with_standby(keys: tuple[SigningKey, ...], fresh: FreshKey, now: float) -> tuple[SigningKey, ...]:
    if any(key.state is KeyState.STANDBY for key in keys):
        return keys
    return (*keys, _standby(fresh, now))


def _next(ring: KeyRing, keys: tuple[SigningKey, ...]) -> KeyRing:
    return _settled(KeyRing(ring.generation + 1, keys))


def _settled(ring: KeyRing) -> KeyRing:
    broken = faults(ring)
    if broken:
        raise ValueError(f"this change would break the key ring: {'; '.join(broken)}")
    if len(ring.published) > MAX_PUBLISHED:
        raise AppError(
            "conflict",
            f"{MAX_PUBLISHED} keys are published and verifiers take no more; wait until retired keys can be removed.",
        )
    return ring
