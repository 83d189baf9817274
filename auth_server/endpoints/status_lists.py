"""Status lists as they go out (draft-ietf-oauth-status-list-21 section 8): computed from the one truth, never stored.

Whatever ends a token (its id, a watermark of its client or subject, its key) sets its bit, since each entry is judged
just as our own verifiers judge the token.
"""

import asyncio
import re
from dataclasses import dataclass, field

import msgspec
from starlette.types import Receive, Scope, Send

from auth_server.endpoints.documents import Document, DocumentEndpoint
from auth_server.endpoints.statements import CHECK_AFTER_S, Knowledge, SignedStatement, Statements
from auth_server.keyring.signer import Statement
from auth_server.oauth.status import TTL_S, encode_list, list_claims, list_uri
from auth_server.stores.status_lists import StatusLists
from auth_server.stores.status_records import ListedToken, decode_record, list_authenticator
from shared.access_token import LEEWAY_S
from shared.errors import AppError
from shared.events import Event, emit
from shared.http import send_json
from shared.revocations.entries import NotAuthentic
from shared.revocations.feed_key import Authenticator, FeedKey
from shared.revocations.revoked import SKEW_S

MAX_HELD = 8
_LIST_ID = re.compile(r"[0-9a-f]{16}\Z")
_AT_A_TIME = 4096  # judged without a look at other tasks: 3 ms
_MEDIA_TYPE = (b"content-type", b"application/statuslist+jwt")
_CACHE = b"public, max-age=%d" % TTL_S


@dataclass(slots=True)
class _HeldList:
    """One list in memory. ``n_read`` records of it were read; ``tokens`` are those among them that may be good."""

    authenticator: Authenticator
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    n_read: int = 0
    tokens: list[ListedToken] = field(default_factory=list)
    checked_at: float = 0.0
    signed: SignedStatement | None = None


class PublishedLists:
    """Makes the Status List Tokens.

    Holds up to eight lists (10 MiB each at most, the least recently asked for let go first), so that only new records
    are read. What was read once counts even if the store loses it. Computes a list at most once a second.
    """

    def __init__(
        self, issuer: str, lists: StatusLists, feed_key: FeedKey, *, knowledge: Knowledge, statements: Statements
    ) -> None:
        self._issuer = issuer
        self._lists = lists
        self._key = feed_key
        self._knowledge = knowledge
        self._statements = statements
        self._held: dict[str, _HeldList] = {}

    async def uris(self) -> list[str]:
        """Addresses of all lists with tokens that may be good."""
        return [list_uri(self._issuer, list_id) for list_id in await self._lists.ids(self._statements.clock())]

    async def document(self, list_id: str) -> Document:
        """Give a list as it is now.

        Raises AppError not_found for one that does not exist or is over, store_unavailable if it can't be known now.
        """
        self._knowledge.check()
        if not _LIST_ID.match(list_id):
            raise _no_such_list()
        held = await self._known(list_id)
        async with held.lock:
            now = self._statements.clock()
            if held.signed is None or not 0 <= now - held.checked_at < CHECK_AFTER_S:
                await self._read_on(held, list_id, now)
                encoded = encode_list(await self._revoked_indexes(held), self._lists.size)
                self._knowledge.check()  # it is still so after all the waiting
                held.signed = await self._statements.renewed(
                    held.signed,
                    Statement.STATUS_LIST,
                    encoded.encode(),
                    lambda at: list_claims(self._issuer, list_id, encoded, at),
                )
                held.checked_at = now
        return held.signed.document

    async def _known(self, list_id: str) -> _HeldList:
        """Give a list that is held or exists, as the one that was asked for last."""
        held = self._held.pop(list_id, None)
        if held is None and not await self._lists.exists(list_id, self._statements.clock()):
            raise _no_such_list()
        held = held or self._held.pop(list_id, None) or _HeldList(list_authenticator(self._key, list_id))
        self._held[list_id] = held
        while len(self._held) > MAX_HELD:
            del self._held[next(iter(self._held))]
        return held

    async def _read_on(self, held: _HeldList, list_id: str, now: float) -> None:
        """Take the records that are new since the last time."""
        shared_names: dict[bytes, bytes] = {}
        useless_before = now - LEEWAY_S - SKEW_S
        held.tokens = [token for token in held.tokens if token.expires_at > useless_before]
        while True:
            page = await self._lists.read(list_id, held.n_read, now)
            if page is None:
                self._held.pop(list_id, None)
                raise _no_such_list()
            if page.n_records < held.n_read:  # a failover that lost writes: what we know stays, the rest is read anew
                emit(Event.STATUS_LIST_PROBLEM, list_id=list_id, reason="records_lost")
                held.n_read = 0
                continue
            for raw in page.records:
                token = self._decoded(held, list_id, raw, shared_names)
                if token.expires_at > useless_before:
                    held.tokens.append(token)
            held.n_read += len(page.records)
            if held.n_read >= page.n_records:
                return

    def _decoded(self, held: _HeldList, list_id: str, raw: bytes, share: dict[bytes, bytes]) -> ListedToken:
        try:
            return decode_record(held.authenticator, raw, share)
        except NotAuthentic:
            emit(Event.STATUS_LIST_PROBLEM, list_id=list_id, reason="record_not_authentic")
            raise AppError("store_unavailable", reason="status_record_not_authentic") from None

    async def _revoked_indexes(self, held: _HeldList) -> list[int]:
        is_revoked = self._knowledge.revoked.is_revoked
        found: list[int] = []
        for start in range(0, len(held.tokens), _AT_A_TIME):
            found += [token.index for token in held.tokens[start : start + _AT_A_TIME] if is_revoked(token.marks)]
            await asyncio.sleep(0)
        return found


class StatusListEndpoint:
    """``GET /oauth2/status-lists/{list_id}``: one list, signed; open, since it says nothing about whom it concerns."""

    def __init__(self, lists: PublishedLists) -> None:
        self._lists = lists

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer GET or HEAD."""
        check_readable(scope)
        if scope["query_string"]:  # section 8.4: the status at another time, which nobody keeps
            raise AppError("not_found", "Only the list as it is now is kept.")
        current = await self._lists.document(scope["path_params"]["list_id"])
        await DocumentEndpoint(lambda: current, cache_control=_CACHE, media_type=_MEDIA_TYPE)(scope, receive, send)


class AggregationEndpoint:
    """``GET /oauth2/status-lists``: the addresses of all lists (section 9.3)."""

    def __init__(self, lists: PublishedLists) -> None:
        self._lists = lists

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        """Answer GET or HEAD."""
        check_readable(scope)
        await send_json(send, 200, msgspec.json.encode({"status_lists": await self._lists.uris()}))


def check_readable(scope: Scope) -> None:
    """Raise AppError method_not_allowed for anything but GET and HEAD."""
    if scope["method"] not in {"GET", "HEAD"}:
        raise AppError("method_not_allowed", allow=("GET", "HEAD"))


def _no_such_list() -> AppError:
    return AppError("not_found", "There is no status list at this address, or all of its tokens have ended.")
