"""Keys that the issuer's set no longer has, kept for as long as a token of theirs may live.

A set that lacks a key may be an old one (a cache, a backup put back), and what the key has signed is good. A key that
was dropped on purpose is in the revocation feed: so one is kept only where that feed is followed, and verifies only
while it is fresh. At most 16, and the first to vanish is the first to go.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import msgspec

from shared.access_token import LEEWAY_S
from shared.key_sets import MAX_KEYS, VerificationKey, as_jwk, parse_key_set
from shared.settings import MAX_ACCESS_TOKEN_TTL_S

KEEP_S = MAX_ACCESS_TOKEN_TTL_S + LEEWAY_S
MAX_KEPT = MAX_KEYS


@dataclass(frozen=True, slots=True)
class KeyFeed:
    """What the revocation feed says: whether it is fresh, and whether a kid is revoked. No I/O."""

    is_fresh: Callable[[], bool]
    is_revoked: Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class KeptKey:
    """A key that has vanished, and when it is let go (UTC seconds)."""

    key: VerificationKey
    until: float


Kept = Mapping[str, KeptKey]


def still_kept(kept: Kept, published: Iterable[str], feed: KeyFeed | None, now: float) -> dict[str, KeptKey]:
    """Leave out what is published again, over, or revoked; everything, if there is no feed."""
    if feed is None:
        return {}
    back = frozenset(published)
    return {kid: one for kid, one in kept.items() if kid not in back and now < one.until and not feed.is_revoked(kid)}


def keep_vanished(
    kept: Kept,
    before: Mapping[str, VerificationKey],
    published: Mapping[str, VerificationKey],
    feed: KeyFeed | None,
    now: float,
) -> dict[str, KeptKey]:
    """Give what is kept once the set ``before`` was replaced by the ``published`` one; the last to vanish first."""
    gone = {kid: KeptKey(key, now + KEEP_S) for kid, key in before.items()}
    found = still_kept({**gone, **kept}, published, feed, now)
    newest = sorted(found.items(), key=lambda item: item[1].until, reverse=True)
    return dict(newest[:MAX_KEPT])


def to_text(kept: Kept) -> str:
    """Write kept keys as a JWK set."""
    return msgspec.json.encode({"keys": [as_jwk(one.key) for one in kept.values()]}).decode() if kept else ""


def from_text(jwks: str, until: Mapping[str, float], issuer: str, now: float) -> dict[str, KeptKey]:
    """Read them back; none is kept for longer than one that vanishes ``now``. Raises KeySetRefused."""
    found = parse_key_set(jwks.encode(), issuer) if jwks else {}
    return {kid: KeptKey(key, min(until.get(kid, now), now + KEEP_S)) for kid, key in found.items()}
