"""``POST /oauth2/token`` (RFC 6749 section 3.2): read, load, decide, sign, answer, in that order."""

import msgspec
from starlette.types import Scope

from auth_server.endpoints.client_requests import ClientRequests, OAuthEndpoint, RawRequest, address_of, note_client
from auth_server.endpoints.repeated_requests import RepeatedRequests
from auth_server.endpoints.token_signing import TokenSigning
from auth_server.oauth.claims import UnsignedToken
from auth_server.oauth.clients import why_refused
from auth_server.oauth.requests import Presented, TokenRequest, read_form
from auth_server.oauth.server import GRANT_TYPES, TokenRules
from shared import events
from shared.errors import AppError
from shared.events import Event
from shared.telemetry import TOKENS_ISSUED, TOKENS_ISSUED_WITHOUT_STORE, TOKENS_REFUSED


class _Answer(msgspec.Struct):
    """A successful answer (RFC 6749 section 5.1)."""

    access_token: str
    expires_in: int
    scope: str
    token_type: str = "Bearer"  # noqa: S105
    # RFC 9396 section 7: as granted
    authorization_details: list[dict[str, object]] | msgspec.UnsetType = msgspec.UNSET


_encode = msgspec.json.Encoder().encode


class TokenEndpoint(OAuthEndpoint):
    """The token endpoint. ``rules`` decide on what ``requests`` gives, ``signing`` signs what they allowed."""

    name = "token"
    refused = Event.TOKEN_REFUSED

    def __init__(self, *, requests: ClientRequests, rules: TokenRules, signing: TokenSigning) -> None:
        self._requests = requests
        self._rules = rules
        self._signing = signing
        self._repeated = RepeatedRequests()
        self._issued = {grant: TOKENS_ISSUED.labels(grant) for grant in GRANT_TYPES}

    def count_refusal(self, word: str) -> None:
        """Count a refused token request."""
        TOKENS_REFUSED.labels(word).inc()

    async def answer(self, scope: Scope, raw: RawRequest) -> bytes:
        """Issue one token."""
        digest = self._repeated.digest(raw.authorizations, raw.content_type, raw.body) if not raw.query else None
        presented = self._repeated.get(digest) or self._presented(scope, raw)
        note_client(scope, presented.client_id)
        self._requests.check_ready()
        unsigned = await self._decide(presented, address_of(scope))
        self._repeated.remember(digest, presented)
        token = await self._signing.sign(unsigned)
        claims = unsigned.claims
        self._issued[presented.form.parameters["grant_type"]].inc()
        events.gather(
            Event.TOKEN_ISSUED,
            request_id=scope.get("flex.request_id"),
            client_id=claims["client_id"],
            jti=claims["jti"],
            aud=claims["aud"] if isinstance(claims["aud"], str) else list(claims["aud"]),
            scope=claims["scope"],
            expires_at=claims["exp"],
            **self._flags(),
        )
        details = claims.get("authorization_details", msgspec.UNSET)
        return _encode(_Answer(token, unsigned.expires_in, claims["scope"], authorization_details=details))

    def _flags(self) -> dict[str, bool]:
        """Mark what was decided on clients as they were before the store was lost."""
        if not self._requests.degraded:
            return {}
        TOKENS_ISSUED_WITHOUT_STORE.inc()
        return {"without_store": True}

    def _presented(self, scope: Scope, raw: RawRequest) -> Presented:
        form = read_form(raw.content_type, raw.query, raw.body)
        self._rules.check_grant_type(form.parameters.get("grant_type"))
        return self._requests.presented(scope, raw, form)

    async def _decide(self, presented: Presented, address: str | None) -> UnsignedToken:
        # The time comes first: a token decided on a client that is changed meanwhile is then not younger than the
        # revocation that follows the change (shared.revocations.entries).
        now = self._requests.clock()
        client = await self._requests.load(presented.client_id, presented.secret_hash, now, address)
        try:
            unsigned = self._rules.decide(TokenRequest(presented, client, now))
        except AppError as error:
            if error.code == "invalid_client":
                error.reason = why_refused(client, presented.secret_hash, presented.method, now)
            raise
        self._requests.note_served(presented, now)
        return unsigned
