"""``/admin/v1/revocations``: end tokens early, one by one or all of a client, subject, grant, API key or signing key,
and see what is in force. Scope ``tokens:revoke``.
"""

import heapq
from collections.abc import Callable, Iterator
from typing import Annotated, Literal

import msgspec

from auth_server.endpoints.admin import AdminRequest, AdminRoute
from auth_server.oauth.tokens import REVOKE_ANY, own_token
from auth_server.stores.revocations import Revocations
from shared.access_token import KeySet
from shared.errors import AppError
from shared.revocations import entries
from shared.revocations.entries import Kind, Revocation
from shared.revocations.revoked import RevokedSet

PATH = "/admin/v1/revocations"
CLOCK_SLACK_S = 5.0
_BY_KIND: dict[str, Callable[[str, float], Revocation]] = {
    "client": entries.client_revoked,
    "subject": entries.subject_revoked,
    "grant": entries.grant_revoked,
    "api_key": entries.api_key_revoked,
}
_NAMES = {kind.name.lower(): kind for kind in Kind}
_WATERMARKS = tuple(_NAMES[name] for name in _BY_KIND)


class RevocationRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to end. ``value``: the token itself, a jti, an id or a kid; ``not_before`` in UTC seconds (default: now)."""

    kind: Literal["token", "jti", "client", "subject", "grant", "api_key", "signing_key"]
    value: Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
    not_before: Annotated[float, msgspec.Meta(ge=0)] | None = None
    reason: Annotated[str, msgspec.Meta(max_length=100, pattern=r"\A[ -~]*\Z")] = ""


class Written(msgspec.Struct, frozen=True):
    """Where a revocation stands in the feed: followers that have read so far know it."""

    kind: str
    epoch: str
    sequence: int
    stream_id: str


class Item(msgspec.Struct, frozen=True, omit_defaults=True):
    """One revocation in force. Tokens: the jti (a digest of one that is not ours) and when it needs no more holding;
    the others: the not-before. Times in UTC seconds.
    """

    kind: str
    value: str
    not_before: float | None = None
    until: float | None = None


class Listed(msgspec.Struct, frozen=True):
    """A page of what is in force here, and how old that knowledge is (None: there is none)."""

    items: tuple[Item, ...]
    next: str | None
    counts: dict[str, int]
    as_of: float | None


class AdminRevocations:
    """The handlers. ``signs`` says whether a kid signs now or may soon; ``life_s`` is the longest life of a token."""

    def __init__(
        self, revocations: Revocations, keys: KeySet, *, issuer: str, signs: Callable[[str], bool], life_s: float
    ) -> None:
        self._revocations = revocations
        self._keys = keys
        self._issuer = issuer
        self._signs = signs
        self._life_s = life_s

    def routes(self) -> tuple[AdminRoute, ...]:
        """What this adds to the admin API."""
        return (
            AdminRoute("POST", PATH, REVOKE_ANY, self.revoke, body=RevocationRequest),
            AdminRoute("GET", PATH, REVOKE_ANY, self.list, query=("kind", "limit", "cursor")),
        )

    async def revoke(self, request: AdminRequest) -> Written:
        """Revoke a token, or all tokens of a client, subject, grant, API key or signing key."""
        asked = request.body_as(RevocationRequest)
        revocation = self._revocation(asked, request)
        position = await self._revocations.write(revocation, by=request.caller.client_id, reason=asked.reason)
        kind = revocation.kind.name.lower()
        return Written(kind, position.epoch.hex(), position.sequence, position.stream_id)

    async def list(self, request: AdminRequest) -> Listed:
        """List the revocations in force, with their counts by kind."""
        limit, revoked = request.limit(), self._revocations.revoked
        wanted = request.query.get("kind", "")
        if wanted and wanted not in _NAMES:
            raise AppError("invalid_request", "kind must be one of " + ", ".join(_NAMES) + ".")
        found, cursor = page(revoked, request.query.get("cursor", ""), limit, _NAMES.get(wanted))
        counts = {kind.name.lower(): count for kind, count in revoked.counts().items()}
        return Listed(found, cursor, counts, self._revocations.follower.as_of)

    def _revocation(self, asked: RevocationRequest, request: AdminRequest) -> Revocation:
        if asked.not_before is not None and asked.kind not in _BY_KIND:
            raise AppError("invalid_request", "not_before is for client, subject, grant and api_key only.")
        if asked.kind == "token":
            token = own_token(asked.value, self._keys, issuer=self._issuer, now=request.now)
            if token is None:
                raise AppError("invalid_request", "This is no token of this issuer that anybody would take now.")
            return entries.token_revoked(token.token_id, token.expires_at)
        if asked.kind == "jti":
            return entries.token_revoked(asked.value, request.now + self._life_s)
        try:
            if asked.kind == "signing_key":
                self._check_signing_key(asked.value, request)
                return entries.signing_key_revoked(asked.value)
            return _BY_KIND[asked.kind](asked.value, self._not_before(asked, request.now))
        except ValueError:
            raise AppError("invalid_request", "value is too long.") from None

    def _not_before(self, asked: RevocationRequest, now: float) -> float:
        if asked.not_before is not None and asked.not_before > now + CLOCK_SLACK_S:
            raise AppError("invalid_request", "not_before must not be in the future.")
        return now if asked.not_before is None else min(asked.not_before, now)

    def _check_signing_key(self, kid: str, request: AdminRequest) -> None:
        request.caller.require("keys:manage")
        if self._signs(kid):
            raise AppError(
                "conflict",
                "This key signs now or will soon, so every new token would be refused; revoke it in the key ring, "
                "which puts another in its place.",
            )


def page(revoked: RevokedSet, cursor: str, limit: int, only: Kind | None) -> tuple[tuple[Item, ...], str | None]:
    """Give up to ``limit`` revocations after ``cursor`` (empty: from the start), and the next cursor.

    Reads no more than the page needs, whatever is in the set. Raises AppError invalid_request for a foreign cursor.
    """
    start, place = _read_cursor(cursor) if cursor else (Kind.SIGNING_KEY, "")
    found: list[tuple[str, Item]] = []
    order = (Kind.SIGNING_KEY, *_WATERMARKS, Kind.TOKEN)
    for kind in order[order.index(start) :]:
        if only in {None, kind}:
            for each in _items(revoked, kind, place if kind == start else "", limit + 1):
                found.append(each)
                if len(found) > limit:
                    return tuple(item for _, item in found[:limit]), found[limit - 1][0]
    return tuple(item for _, item in found), None


def _read_cursor(cursor: str) -> tuple[Kind, str]:
    name, _, place = cursor.partition(".")
    try:
        kind = _NAMES[name]
        if kind is Kind.TOKEN:
            _place(place)
        else:
            bytes.fromhex(place)
    except (LookupError, ValueError):
        raise AppError("invalid_request", "cursor must be the next of an earlier page.") from None
    return kind, place


def _place(place: str) -> tuple[int, int]:
    if not place:
        return 0, 0
    end_ms, _, number = place.partition("-")
    return int(end_ms), int(number) + 1


def _items(revoked: RevokedSet, kind: Kind, place: str, at_most: int) -> Iterator[tuple[str, Item]]:
    """Revocations of one kind after a place, each with the cursor that stands after it."""
    name = kind.name.lower()
    if kind is Kind.TOKEN:
        for end_ms, number, key in revoked.tokens_from(*_place(place)):
            yield f"{name}.{end_ms}-{number}", Item(name, key.hex(), until=end_ms / 1000)
        return
    after = bytes.fromhex(place)
    held = revoked.watermarks(kind) if kind in _WATERMARKS else {kid.encode(): 0 for kid in revoked.signing_keys}
    for key in heapq.nsmallest(at_most, (key for key in held if key > after)):
        not_before = held[key] / 1000 if kind in _WATERMARKS else None
        yield f"{name}.{key.hex()}", Item(name, key.decode("utf-8", "replace"), not_before=not_before)
