"""``POST /oauth2/revoke`` (RFC 7009): the early end of one access token, at every verifier.

The answer is 200 only after the revocation is written. A token that nobody takes any more has nothing left to revoke.
"""

from starlette.types import Scope

from auth_server.endpoints.client_requests import ClientRequests, OAuthEndpoint, RawRequest
from auth_server.oauth.tokens import check_may_revoke, own_token, required_token
from auth_server.stores.revocations import Revocations
from shared.access_token import KeySet
from shared.events import Event
from shared.revocations.entries import token_revoked
from shared.telemetry import CLIENT_REQUESTS_REFUSED


class RevokeEndpoint(OAuthEndpoint):
    """The revocation endpoint. ``keys`` are the issuer's own, ``revocations`` where the end is written."""

    name = "revoke"
    refused = Event.REVOCATION_REFUSED

    def __init__(self, *, requests: ClientRequests, keys: KeySet, issuer: str, revocations: Revocations) -> None:
        self._requests = requests
        self._keys = keys
        self._issuer = issuer
        self._revocations = revocations

    def count_refusal(self, word: str) -> None:
        """Count a refused revocation."""
        CLIENT_REQUESTS_REFUSED.labels(self.name, word).inc()

    async def answer(self, scope: Scope, raw: RawRequest) -> bytes:
        """Revoke one token; nothing is said about one that is not good (RFC 7009 section 2.2)."""
        client, form = await self._requests.authenticate(scope, raw)
        raw_token = required_token(form.parameters)
        token = own_token(raw_token, self._keys, issuer=self._issuer, now=self._requests.clock())
        if token is None:
            return b""
        check_may_revoke(client, token)
        await self._revocations.write(token_revoked(token.token_id, token.expires_at), by=client.client_id)
        return b""
