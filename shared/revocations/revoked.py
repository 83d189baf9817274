"""The set of what is revoked, in this process's memory: asked for every call, so it only looks up.

Holds one entry for each live revocation (about 120 bytes a token), however many there are: dropping one would take it
back. Each token is let go in the minute in which it is of no more use, a bounded number at a time; watermarks are swept
once a minute; revoked signing keys stay (they are few, and a stolen key dates its tokens as it likes).

One dictionary, not a set for each minute: a look-up in nine sets that are not in the processor's cache took 1.8 µs.
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from types import MappingProxyType

import msgspec

from shared.revocations.entries import Entry, Kind, Revocation, TokenMarks

SKEW_S = 5.0  # how far apart the clocks of one installation may be
_BUCKET_MS = 60_000
_MAX_EXPIRED = 20_000  # tokens let go in one call: 5 ms
_TOKEN_KEY_BYTES = 16
_TOKEN = int(Kind.TOKEN)  # asked a million times at a start
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
        "_clients",
        "_grants",
        "_leeway_ms",
        "_next_sweep_ms",
        "_only_tokens",
        "_retention_ms",
        "_signing_keys",
        "_subjects",
        "_tokens",
    )

    def __init__(self, max_token_life_s: float, leeway_s: float) -> None:
        self._leeway_ms = round((leeway_s + SKEW_S) * 1000)
        self._retention_ms = round(retention_s(max_token_life_s, leeway_s) * 1000)
        self._tokens: dict[bytes, int] = {}  # the end of use of each, the very number that is its bucket's key
        self._buckets: dict[int, list[bytes]] = {}
        self._clients: dict[bytes, int] = {}
        self._subjects: dict[bytes, int] = {}
        self._grants: dict[bytes, int] = {}
        self._api_keys: dict[bytes, int] = {}
        self._signing_keys: dict[bytes, None] = {}
        self._only_tokens = True  # until anything else was revoked; then for ever False: it saves look-ups, no more
        self._next_sweep_ms = 0

    def is_revoked(self, token: TokenMarks) -> Reason | None:  # noqa: PLR0911 - one line a reason
        """Say why a token is refused, or None. No I/O, no clock: 0.3 to 0.9 µs."""
        if token.token in self._tokens:
            return Reason.TOKEN
        if self._only_tokens:
            return None
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
        if entry.kind == _TOKEN:
            self._hold(entry.key, ((entry.time_ms + self._leeway_ms) // _BUCKET_MS + 1) * _BUCKET_MS)
            return False
        self._only_tokens = False
        if entry.kind == Kind.SIGNING_KEY:
            new = entry.key not in self._signing_keys
            self._signing_keys[entry.key] = None
            return new
        if entry.kind in _WATERMARKS:  # a kind of a later version changes nothing here
            _raise_to(self._watermarks(entry.kind), entry.key, entry.time_ms)
        return False

    def _hold(self, key: bytes, end_ms: int) -> None:
        held_ms = self._tokens.get(key, 0)
        if held_ms >= end_ms or end_ms < self._next_sweep_ms:
            return  # known, or of no use any more
        bucket = self._buckets.get(end_ms)
        if bucket is None:
            bucket = self._buckets[end_ms] = []
        bucket.append(key)
        self._tokens[key] = end_ms

    def expire(self, now_ms: int) -> None:
        """Let go of what no live token needs at ``now_ms``; cheap to call often."""
        n_left = _MAX_EXPIRED
        while self._buckets and (end_ms := min(self._buckets)) <= now_ms and n_left:
            bucket = self._buckets[end_ms]
            for key in bucket[-n_left:]:
                if self._tokens.get(key) == end_ms:  # else it was revoked again for longer
                    del self._tokens[key]
            n_done = min(n_left, len(bucket))
            del bucket[-n_left:]
            n_left -= n_done
            if not bucket:
                del self._buckets[end_ms]
        if now_ms >= self._next_sweep_ms:
            self._next_sweep_ms = (now_ms // _BUCKET_MS + 1) * _BUCKET_MS
            self._sweep(now_ms - self._retention_ms)

    def _sweep(self, oldest_ms: int) -> None:
        for kind in _WATERMARKS:
            held = self._watermarks(kind)
            for key in [key for key, not_before_ms in held.items() if not_before_ms < oldest_ms]:
                del held[key]

    def contents(self) -> Contents:
        """Copy everything, for a snapshot: 100 ms a million tokens. May run in another thread than the rest: each copy
        is one step for the interpreter, and what is added meanwhile may or may not be in it.
        """
        return Contents(
            {end_ms: b"".join(bucket) for end_ms, bucket in list(self._buckets.items())},
            {int(kind): self._watermarks(kind).copy() for kind in _WATERMARKS},
            list(self._signing_keys),
        )

    def revocations(self) -> list[Revocation]:
        """Everything in force, in a form to be written again; a token's end is rounded up to its minute."""
        tokens = [
            Revocation(Kind.TOKEN, key, max(end_ms - self._leeway_ms, 0))
            for end_ms, bucket in self._buckets.items()
            for key in bucket
        ]
        watermarks = [
            Revocation(kind, key, not_before_ms)
            for kind in _WATERMARKS
            for key, not_before_ms in self._watermarks(kind).items()
        ]
        return [*tokens, *watermarks, *(Revocation(Kind.SIGNING_KEY, key, 0) for key in self._signing_keys)]

    def merge(self, contents: Contents) -> None:
        """Add everything of a snapshot."""
        self._only_tokens = False
        for end_ms, keys in contents.tokens.items():
            for start in range(0, len(keys), _TOKEN_KEY_BYTES):
                self._hold(keys[start : start + _TOKEN_KEY_BYTES], end_ms)
        for kind in _WATERMARKS:
            held = self._watermarks(kind)
            for key, not_before_ms in contents.watermarks.get(kind, {}).items():
                _raise_to(held, key, not_before_ms)
        self._signing_keys.update(dict.fromkeys(contents.signing_keys))

    def counts(self) -> dict[Kind, int]:
        """How many of each kind are held."""
        n_watermarks = {kind: len(self._watermarks(kind)) for kind in _WATERMARKS}
        return {Kind.TOKEN: len(self._tokens), **n_watermarks, Kind.SIGNING_KEY: len(self._signing_keys)}

    def watermarks(self, kind: Kind) -> Mapping[bytes, int]:
        """The not-befores (UTC ms) of one kind by key; a view that changes with the set."""
        return MappingProxyType(self._watermarks(kind))

    def tokens_from(self, end_ms: int, place: int) -> Iterator[tuple[int, int, bytes]]:
        """Tokens in the order of the end of their use, from a place on: (end in UTC ms, place, key), each once.

        A place stays right while entries are added; to be read without waiting for anything meanwhile.
        """
        for end in sorted(end for end in self._buckets if end >= end_ms):
            bucket = self._buckets[end]
            for number in range(place if end == end_ms else 0, len(bucket)):
                if self._tokens.get(bucket[number]) == end:
                    yield end, number, bucket[number]

    @property
    def signing_keys(self) -> tuple[str, ...]:
        """The kids that are revoked."""
        return tuple(key.decode() for key in self._signing_keys)

    def __len__(self) -> int:
        n_watermarks = sum(len(self._watermarks(kind)) for kind in _WATERMARKS)
        return len(self._tokens) + n_watermarks + len(self._signing_keys)

    def _watermarks(self, kind: int) -> dict[bytes, int]:
        return {
            Kind.CLIENT: self._clients,
            Kind.SUBJECT: self._subjects,
            Kind.GRANT: self._grants,
            Kind.API_KEY: self._api_keys,
        }[Kind(kind)]


def _raise_to(held: dict[bytes, int], key: bytes, not_before_ms: int) -> None:
    if not_before_ms > held.get(key, -1):
        held[key] = not_before_ms
