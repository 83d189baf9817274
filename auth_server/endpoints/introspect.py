"""``POST /oauth2/introspect`` (RFC 7662): what an access token says, if it is good at this moment."""

import msgspec
from starlette.types import Scope

from auth_server.endpoints.client_requests import ClientRequests, OAuthEndpoint, RawRequest
from auth_server.oauth.tokens import NOT_ACTIVE, Introspection, introspection, own_token, required_token
from auth_server.stores.revocations import Revocations
from shared.access_token import KeySet
from shared.events import Event
from shared.telemetry import CLIENT_REQUESTS_REFUSED, INTROSPECTIONS

_encode = msgspec.json.Encoder().encode


class IntrospectEndpoint(OAuthEndpoint):
    """The introspection endpoint, for any authenticated client (RFC 7662 section 2.1)."""

    name = "introspect"
    refused = Event.INTROSPECTION_REFUSED

    def __init__(self, *, requests: ClientRequests, keys: KeySet, issuer: str, revocations: Revocations) -> None:
        self._requests = requests
        self._keys = keys
        self._issuer = issuer
        self._revocations = revocations

    def count_refusal(self, word: str) -> None:
        """Count a refused introspection."""
        CLIENT_REQUESTS_REFUSED.labels(self.name, word).inc()

    async def answer(self, scope: Scope, raw: RawRequest) -> bytes:
        """Answer the token's claims, or that it is not active without saying why (RFC 7662 section 2.2)."""
        _, form = await self._requests.authenticate(scope, raw)
        seen = self._look(required_token(form.parameters), self._requests.clock())
        INTROSPECTIONS.labels("true" if seen.active else "false").inc()
        return _encode(seen)

    def _look(self, raw_token: str, now: float) -> Introspection:
        token = own_token(raw_token, self._keys, issuer=self._issuer, now=now)
        if token is None or now >= token.expires_at or self._revocations.why_revoked(token):
            return NOT_ACTIVE
        return introspection(token)
