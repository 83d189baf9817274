"""``POST /oauth2/introspect`` (RFC 7662): what an access token says, if it is good at this moment."""

import msgspec
from starlette.types import Scope

from auth_server.endpoints.client_requests import RawRequest
from auth_server.endpoints.issued_tokens import IssuedTokenEndpoint
from auth_server.oauth.tokens import NOT_ACTIVE, introspection
from shared.events import Event
from shared.telemetry import INTROSPECTIONS

_encode = msgspec.json.Encoder().encode


class IntrospectEndpoint(IssuedTokenEndpoint):
    """The introspection endpoint, for any authenticated client (RFC 7662 section 2.1)."""

    name = "introspect"
    refused = Event.INTROSPECTION_REFUSED

    async def answer(self, scope: Scope, raw: RawRequest) -> bytes:
        """Answer the token's claims, or that it is not active without saying why (RFC 7662 section 2.2)."""
        _, token, now = await self.asked(scope, raw)
        active = token is not None and now < token.expires_at and not self._revocations.why_revoked(token)
        INTROSPECTIONS.labels("true" if active else "false").inc()
        return _encode(introspection(token) if token is not None and active else NOT_ACTIVE)
