"""The set of what is revoked, in this process's memory: asked for every call, so it only looks up.

Holds one entry for each live revocation (about 100 bytes a token), however many there are: dropping one would take it
back. Tokens lie in at most ten sets by the time at which they are of no more use, and such a set is let go as a whole;
watermarks are swept when that happens; revoked signing keys stay (they are few, and a stolen key dates its tokens as it
likes).
"""

from enum import StrEnum

import msgspec

from shared.revocations.entries import Entry, Kind, TokenMarks

SKEW_S = 5.0  # how far apart the clocks of one installation may be
_N_BUCKETS = 8
_SHORTEST_BUCKET_MS = 60_000
_TOKEN_KEY_BYTES = 16
_WATERMARKS = (Kind.CLIENT, Kind.SUBJECT, Kind.GRANT, Kind.API_KEY)


class Reason(StrEnum):
    """Why a token is refused, for log and metrics; callers get one answer."""

    TOKEN = "token_revoked"  # noqa: S105
    CLIENT = "client_revoked"
    SUBJECT = "subject_revoked"
    GRANT = "grant_revoked"
    API_KEY = "api_key_revoked"
    SIGNING_KEY = "signing_key_revoked"


class Contents(msgspec.Struct, frozen=True):
    """All of a set, for the disk: token keys of 16 bytes one after the other by the time (UTC ms) that ends their use,
    not-befores (UTC ms) by kind and key, and kids.
    """

    tokens: dict[int, bytes]
    watermarks: dict[int, dict[bytes, int]]
    signing_keys: list[bytes]


def retention_s(max_token_life_s: float, leeway_s: float) -> float:
    """How long after it was written a revocation can matter: to the last moment at which any verifier takes a token."""
    return max_token_life_s + leeway_s + SKEW_S


class RevokedSet:
    """What is revoked. Adding is idempotent and nothing is ever taken out before its time, so it can be refilled while
    it is in use: at every moment it holds at least what it held before.

    ``max_token_life_s`` is the longest life of any token, ``leeway_s`` what verifiers grant beyond ``exp``.
    """

    __slots__ = (
        "_api_keys",
        "_buckets",
        "_by_end",
        "_clients",
        "_grants",
        "_leeway_ms",
        "_next_end_ms",
        "_retention_ms",
        "_signing_keys",
        "_subjects",
        "_width_ms",
        "n_applied",
    )

    def __init__(self, max_token_life_s: float, leeway_s: float) -> None:
        self._leeway_ms = round((leeway_s + SKEW_S) * 1000)
        self._retention_ms = round(retention_s(max_token_life_s, leeway_s) * 1000)
        self._width_ms = max(_SHORTEST_BUCKET_MS, self._retention_ms // _N_BUCKETS)
        self._by_end: dict[int, set[bytes]] = {}
        self._buckets: tuple[set[bytes], ...] = ()
        self._clients: dict[bytes, int] = {}
        self._subjects: dict[bytes, int] = {}
        self._grants: dict[bytes, int] = {}
        self._api_keys: dict[bytes, int] = {}
        self._signing_keys: dict[bytes, None] = {}
        self._next_end_ms = 0
        self.n_applied = 0

    def is_revoked(self, token: TokenMarks) -> Reason | None:
        """Say why a token is refused, or None. No I/O, no clock: about 0.5 µs."""
        key = token.token
        for bucket in self._buckets:
            if key in bucket:
                return Reason.TOKEN
        if token.signing_key in self._signing_keys:
            return Reason.SIGNING_KEY
        issued_ms = token.issued_ms
        if self._clients.get(token.client, -1) >= issued_ms:
            return Reason.CLIENT
        if self._subjects.get(token.subject, -1) >= issued_ms:
            return Reason.SUBJECT
        if token.grant and self._grants.get(token.grant, -1) >= issued_ms:
            return Reason.GRANT
        if token.api_key and self._api_keys.get(token.api_key, -1) >= issued_ms:
            return Reason.API_KEY
        return None

    def apply(self, entry: Entry) -> bool:
        """Take in one authentic entry, in any order and any number of times; whether it said something new of a kid."""
        kind = entry.kind
        if kind == Kind.TOKEN:
            self.add_token(entry.key, entry.time_ms)
            return False
        self.n_applied += 1
        if kind == Kind.SIGNING_KEY:
            new = entry.key not in self._signing_keys
            self._signing_keys[entry.key] = None
            return new
        if kind in _WATERMARKS:  # a kind of a later version changes nothing here
            _raise_to(self._watermarks(kind), entry.key, entry.time_ms)
        return False

    def add_token(self, key: bytes, expires_ms: int) -> None:
        """Revoke one token by its 16-byte key until nobody takes it any more."""
        self.n_applied += 1
        end_ms = ((expires_ms + self._leeway_ms) // self._width_ms + 1) * self._width_ms
        bucket = self._by_end.get(end_ms)
        if bucket is None:
            bucket = self._add_bucket(end_ms)
        bucket.add(key)

    def expire(self, now_ms: int) -> None:
        """Let go of what no live token needs at ``now_ms``. Cheap to call often: it works once a bucket's width."""
        if now_ms < self._next_end_ms:
            return
        self._next_end_ms = (now_ms // self._width_ms + 1) * self._width_ms
        self._by_end = {end_ms: bucket for end_ms, bucket in self._by_end.items() if end_ms > now_ms}
        self._buckets = tuple(self._by_end.values())
        oldest_ms = now_ms - self._retention_ms
        for kind in _WATERMARKS:
            held = self._watermarks(kind)
            for key in [key for key, not_before_ms in held.items() if not_before_ms < oldest_ms]:
                del held[key]

    def contents(self) -> Contents:
        """Copy everything, for a snapshot: 20 ms a million tokens."""
        return Contents(
            {end_ms: b"".join(bucket) for end_ms, bucket in self._by_end.items()},
            {int(kind): self._watermarks(kind).copy() for kind in _WATERMARKS},
            list(self._signing_keys),
        )

    def merge(self, contents: Contents) -> None:
        """Add everything of a snapshot."""
        self.n_applied += 1
        for held_until_ms, keys in contents.tokens.items():
            end_ms = -(-held_until_ms // self._width_ms) * self._width_ms  # widths may have been others then
            bucket = self._by_end[end_ms] if end_ms in self._by_end else self._add_bucket(end_ms)
            bucket.update(keys[n : n + _TOKEN_KEY_BYTES] for n in range(0, len(keys), _TOKEN_KEY_BYTES))
        for kind in _WATERMARKS:
            held = self._watermarks(kind)
            for key, not_before_ms in contents.watermarks.get(kind, {}).items():
                _raise_to(held, key, not_before_ms)
        self._signing_keys.update(dict.fromkeys(contents.signing_keys))

    @property
    def signing_keys(self) -> tuple[str, ...]:
        """The kids that are revoked."""
        return tuple(key.decode() for key in self._signing_keys)

    def __len__(self) -> int:
        n_watermarks = sum(len(self._watermarks(kind)) for kind in _WATERMARKS)
        return sum(map(len, self._buckets)) + n_watermarks + len(self._signing_keys)

    def _watermarks(self, kind: int) -> dict[bytes, int]:
        return {
            Kind.CLIENT: self._clients,
            Kind.SUBJECT: self._subjects,
            Kind.GRANT: self._grants,
            Kind.API_KEY: self._api_keys,
        }[Kind(kind)]

    def _add_bucket(self, end_ms: int) -> set[bytes]:
        bucket = self._by_end[end_ms] = set()
        self._buckets = tuple(self._by_end.values())
        return bucket


def _raise_to(held: dict[bytes, int], key: bytes, not_before_ms: int) -> None:
    if not_before_ms > held.get(key, -1):
        held[key] = not_before_ms
