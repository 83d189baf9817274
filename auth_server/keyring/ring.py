"""The key ring as a value: the states of a key, and the rules that say when a state may be left.

A key goes standby → active → retired → removed. A standby key is published long before it signs, so every verifier
holds it by then; a retired key stays published until no live token can need it.
"""

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from shared.errors import AppError

MAX_PUBLISHED = 16  # verifiers refuse a key set with more keys than this
NEVER = 0.0


class KeyState(StrEnum):
    """Where a key is in its life; it only ever moves forward."""

    STANDBY = "standby"
    ACTIVE = "active"
    RETIRED = "retired"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPolicy:
    """The bounds that make a rotation safe, in seconds.

    ``max_age_s``: how long a verifier may go on with a key set that it fetched; ``stale_s``: how much longer a cache
    may serve it (RFC 5861). ``takeover_s``: how long a server may take to notice a new ring. ``leeway_s``: clock
    tolerance of verifiers. ``ttl_s``: usual life of a token; ``longer_ttl_s``: what single clients may have beyond it.
    ``reserve_s``: how far beyond a life the high-water mark is reserved in one write.
    """

    max_age_s: float
    stale_s: float = 0.0
    ttl_s: float = 3600.0
    longer_ttl_s: float = 0.0
    takeover_s: float = 2.0
    leeway_s: float = 30.0
    reserve_s: float = 120.0

    @property
    def longest_ttl_s(self) -> float:
        """Longest life of a token signed here."""
        return max(self.ttl_s, self.longer_ttl_s)

    @property
    def spread_s(self) -> float:
        """How long after its first publication a key may still be unknown to a verifier."""
        return self.max_age_s + self.stale_s + self.takeover_s


@dataclass(frozen=True, slots=True, kw_only=True)
class FreshKey:
    """A key that was just made: its public members (RFC 7518 section 6.3.1, base64url) and the digest of its PEM."""

    kid: str
    n: str
    e: str
    n_bits: int
    pem_sha256: str
    encrypted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """One key of the ring, without its private part. Times are UTC seconds.

    ``last_expiry_at`` is an upper bound of every ``exp`` ever signed with this key (0: never signed). A removed key
    keeps its ``kid`` for ever, so that it is never used again; its public members and digest are emptied.
    """

    kid: str
    state: KeyState
    n: str
    e: str
    n_bits: int
    pem_sha256: str
    encrypted: bool
    created_at: float
    published_at: float
    activated_at: float | None = None
    retired_at: float | None = None
    removed_at: float | None = None
    last_expiry_at: float = NEVER
    compromised: bool = False


@dataclass(frozen=True, slots=True)
class KeyRing:
    """All keys, oldest first. ``generation`` grows by one with every change of a state, never with a reservation."""

    generation: int
    keys: tuple[SigningKey, ...]

    def in_state(self, state: KeyState) -> tuple[SigningKey, ...]:
        """The keys in one state, oldest first."""
        return tuple(key for key in self.keys if key.state is state)

    @property
    def active(self) -> SigningKey:
        """The one key that signs."""
        (key,) = self.in_state(KeyState.ACTIVE)
        return key

    @property
    def next_standby(self) -> SigningKey:
        """The standby key that has been published longest: the next to sign."""
        return min(self.in_state(KeyState.STANDBY), key=lambda key: (key.published_at, key.kid))

    @property
    def published(self) -> tuple[SigningKey, ...]:
        """The keys of the JWKS: everything that is not removed."""
        return tuple(key for key in self.keys if key.state is not KeyState.REMOVED)

    def find(self, kid: str) -> SigningKey:
        """The key with this kid, removed ones too. Raises AppError not_found."""
        for key in self.keys:
            if key.kid == kid:
                return key
        raise AppError("not_found", "The key ring has no key with this kid.")


def reservation(now: float, policy: KeyPolicy, exp: float = 0.0) -> float:
    """The high-water mark to reserve at ``now``: room for ``reserve_s`` more, for tokens of the usual life or, where
    that does not reach ``exp``, of a longer one.
    """
    usual = math.ceil(now + policy.ttl_s + policy.reserve_s)
    return usual if exp <= usual else math.ceil(exp + policy.reserve_s)


def activation_safe_at(key: SigningKey, policy: KeyPolicy) -> float:
    """When every verifier that can fetch at all holds a key set with this key."""
    return key.published_at + policy.spread_s


def removal_safe_at(key: SigningKey, policy: KeyPolicy) -> float:
    """After when no live token can need this retired key: two facts, both must hold."""
    retired_at = math.inf if key.retired_at is None else key.retired_at
    return max(key.last_expiry_at + policy.leeway_s, retired_at + policy.takeover_s)


def removable(key: SigningKey, now: float, policy: KeyPolicy) -> bool:
    """Whether a retired key's last token is certainly over."""
    return key.state is KeyState.RETIRED and now > removal_safe_at(key, policy)


def age_sentence(key: SigningKey, now: float, policy: KeyPolicy) -> str:
    """Say how young a standby key is, and when that is no obstacle any more."""
    return (
        f"Standby key {key.kid} has been published for {max(0, int(now - key.published_at))} s; verifiers may hold "
        f"a key set without it for {math.ceil(policy.spread_s)} s. "
        f"It can be activated safely at {when(activation_safe_at(key, policy), now)}."
    )


def faults(ring: KeyRing) -> list[str]:
    """What is wrong with a ring, as sentences; an intact one gives none."""
    found = []
    if len(ring.in_state(KeyState.ACTIVE)) != 1:
        found.append("there must be exactly one active key")
    if not ring.in_state(KeyState.STANDBY):
        found.append("there must be a standby key")
    if len({key.kid for key in ring.keys}) != len(ring.keys):
        found.append("a kid is there twice")
    if ring.generation < 1:
        found.append("the generation must be positive")
    return found


def when(at: float, now: float) -> str:
    """A moment for people: ``2026-11-21 23:36:05 UTC (in 290 s)``."""
    moment = datetime.fromtimestamp(math.ceil(at), UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return f"{moment} (in {seconds_until(at, now)} s)"


def seconds_until(at: float, now: float) -> int:
    """Whole seconds to wait, at least one."""
    return max(1, math.ceil(at - now))
