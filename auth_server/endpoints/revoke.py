"""``POST /oauth2/revoke`` (RFC 7009): the early end of one access token, at every verifier.

The answer is 200 only after the revocation is written. A token that nobody takes any more has nothing left to revoke.
"""

from starlette.types import Scope

from auth_server.endpoints.client_requests import RawRequest
from auth_server.endpoints.issued_tokens import IssuedTokenEndpoint
from auth_server.oauth.tokens import check_may_revoke
from shared.events import Event
from shared.revocations.entries import token_revoked


class RevokeEndpoint(IssuedTokenEndpoint):
    """The revocation endpoint."""

    name = "revoke"
    refused = Event.REVOCATION_REFUSED

    async def answer(self, scope: Scope, raw: RawRequest) -> bytes:
        """Revoke one token; nothing is said about one that is not good (RFC 7009 section 2.2)."""
        client, token, _ = await self.asked(scope, raw)
        if token is not None:
            check_may_revoke(client, token)
            await self._revocations.write(token_revoked(token.token_id, token.expires_at), by=client.client_id)
        return b""
