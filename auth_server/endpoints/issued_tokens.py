"""What revocation and introspection share: a client asks about one token that this issuer once issued."""

from starlette.types import Scope

from auth_server.endpoints.client_requests import ClientRequests, OAuthEndpoint, RawRequest
from auth_server.oauth.tokens import own_token, required_token
from auth_server.records import Client
from auth_server.stores.revocations import Revocations
from shared.access_token import AccessToken, KeySet
from shared.telemetry import CLIENT_REQUESTS_REFUSED


class IssuedTokenEndpoint(OAuthEndpoint):
    """An endpoint about a token. ``keys`` are the issuer's own; ``revocations``: what is revoked, and how to revoke."""

    def __init__(self, *, requests: ClientRequests, keys: KeySet, issuer: str, revocations: Revocations) -> None:
        self._requests = requests
        self._keys = keys
        self._issuer = issuer
        self._revocations = revocations

    def count_refusal(self, word: str) -> None:
        """Count a refusal under this endpoint's name."""
        CLIENT_REQUESTS_REFUSED.labels(self.name, word).inc()

    async def asked(self, scope: Scope, raw: RawRequest) -> tuple[Client, AccessToken | None, float]:
        """Authenticate the client and verify its token; None for one that nobody takes. With it: now, in UTC seconds.

        Raises AppError as the authentication of clients does, and invalid_request without a token.
        """
        client, form = await self._requests.authenticate(scope, raw)
        now = self._requests.clock()
        return client, own_token(required_token(form.parameters), self._keys, issuer=self._issuer, now=now), now
