"""``GET /oauth2/revocations``: everything that is revoked, in one signed document, for verifiers without the feed.

It names clients and subjects, so it is for tokens with ``audit:read`` or ``tokens:revoke`` only.
"""

import asyncio
import hashlib
from collections.abc import Callable, Collection

import msgspec
from starlette.types import Receive, Scope, Send

from auth_server.endpoints.documents import Document, DocumentEndpoint
from auth_server.endpoints.statements import CHECK_AFTER_S, Knowledge, SignedStatement, Statements
from auth_server.endpoints.status_lists import check_readable
from auth_server.keyring.signer import Statement
from auth_server.oauth.status import LIFE_S
from shared import base64url
from shared.errors import AppError
from shared.revocations.entries import Kind
from shared.revocations.revoked import Contents
from shared.scopes import covers

SNAPSHOT_PATH = "/oauth2/revocations"
_SCOPES = ("audit:read", "tokens:revoke")
_MEDIA_TYPE = (b"content-type", b"application/revocations+jwt")
_encode = msgspec.json.Encoder(order="sorted").encode


class LiveRevocations(msgspec.Struct, frozen=True):
    """All that is revoked.

    ``tokens``: by the time (UTC seconds, as text) until which it can matter, the 16-byte keys of revoked tokens, one
    after the other, in base64url. Not-befores in UTC milliseconds by name; ``signing_keys``: kids.
    """

    tokens: dict[str, str]
    clients: dict[str, int]
    subjects: dict[str, int]
    grants: dict[str, int]
    api_keys: dict[str, int]
    signing_keys: list[str]


def live_revocations(contents: Contents) -> LiveRevocations:
    """Put the contents of a set into words. Tokens stay in the order of the stream: sorting a million takes 0.6 s in
    which nothing else runs.
    """

    def watermarks(kind: Kind) -> dict[str, int]:
        return {name.decode(): not_before_ms for name, not_before_ms in contents.watermarks.get(kind, {}).items()}

    return LiveRevocations(
        tokens={str(end_ms // 1000): base64url.encode(keys).decode() for end_ms, keys in contents.tokens.items()},
        clients=watermarks(Kind.CLIENT),
        subjects=watermarks(Kind.SUBJECT),
        grants=watermarks(Kind.GRANT),
        api_keys=watermarks(Kind.API_KEY),
        signing_keys=sorted(kid.decode() for kid in contents.signing_keys),
    )


class RevocationSnapshot:
    """The endpoint. ``authenticate`` gives the scopes of the caller's token, which must be for the issuer itself, or
    raises AppError unauthenticated, invalid_token or store_unavailable.

    Holds the last document (22 bytes a revoked token) and makes one at most once a second.
    """

    def __init__(
        self,
        issuer: str,
        *,
        knowledge: Knowledge,
        statements: Statements,
        authenticate: Callable[[Scope], Collection[str]],
    ) -> None:
        self._issuer = issuer
        self._knowledge = knowledge
        self._statements = statements
        self._authenticate = authenticate
        self._lock = asyncio.Lock()
        self._signed: SignedStatement | None = None
        self._checked_at = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer GET or HEAD."""
        check_readable(scope)
        held = self._authenticate(scope)
        if not any(covers(held, wanted) for wanted in _SCOPES):
            raise AppError("insufficient_scope", scopes=_SCOPES[:1])
        current = await self.document()
        await DocumentEndpoint(lambda: current, cache_control=b"private, no-cache", media_type=_MEDIA_TYPE)(
            scope, receive, send
        )

    async def document(self) -> Document:
        """Give everything as it is now. Raises AppError store_unavailable if it can't be known."""
        self._knowledge.check()
        async with self._lock:
            now = self._statements.clock()
            if self._signed is None or not 0 <= now - self._checked_at < CHECK_AFTER_S:
                as_of = round(now - self._knowledge.check(), 3)
                content, digest = await asyncio.to_thread(self._content)
                self._signed = await self._statements.renewed(
                    self._signed, Statement.REVOCATIONS, digest, lambda at: self._claims(content, as_of, at)
                )
                self._checked_at = now
        return self._signed.document

    def _content(self) -> tuple[bytes, bytes]:
        content = _encode(live_revocations(self._knowledge.revoked.contents()))
        return content, hashlib.sha256(content).digest()

    def _claims(self, content: bytes, as_of: float, now: float) -> dict[str, object]:
        issued_at = int(now)
        return {
            "iss": self._issuer,
            "sub": self._issuer + SNAPSHOT_PATH,
            "iat": issued_at,
            "exp": issued_at + LIFE_S,
            "as_of": as_of,
            "revocations": msgspec.Raw(content),
        }
