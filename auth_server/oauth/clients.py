"""Client authentication (RFC 6749 section 2.3) as Authlib calls it: synchronous, on the snapshot, in constant time."""

import hmac
from collections.abc import Callable

from authlib.oauth2.rfc6749 import ClientMixin

from auth_server.oauth.requests import Presented, TokenRequest
from auth_server.records import Client, proves
from shared.errors import AppError


def why_refused(client: Client | None, secret_hash: bytes, method: str, now: float) -> str:
    """One word for the log about a client authentication that failed; never for the wire."""
    if not method:
        return "no_credentials"
    if client is None:
        return "unknown_client"
    held = [secret for secret in client.secrets if hmac.compare_digest(secret_hash, secret.secret_hash)]
    if not held:
        return "wrong_secret"
    if client.disabled:
        return "disabled_client"
    return "method_not_allowed" if any(secret.live(now) for secret in held) else "ended_secret"


def authenticated(client: Client | None, presented: Presented, now: float) -> Client:
    """Give the client if it proved who it is, by a method that it may use. Raises AppError invalid_client."""
    proven = proves(client, presented.secret_hash, now)
    if client is None or not proven or presented.method not in client.auth_methods:
        reason = why_refused(client, presented.secret_hash, presented.method, now)
        raise AppError("invalid_client", reason=reason)
    return client


class AuthenticatedClient(ClientMixin):
    """A client that proved who it is, in the shape that Authlib's grants ask."""

    __slots__ = ("record",)

    def __init__(self, record: Client) -> None:
        self.record = record

    def get_client_id(self) -> str:
        """The client id."""
        return self.record.client_id

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:  # noqa: ARG002 - Authlib's signature
        """Whether the client is registered for this authentication method."""
        return method in self.record.auth_methods

    def check_grant_type(self, grant_type: str) -> bool:
        """Whether the client is registered for this grant type."""
        return grant_type in self.record.grant_types

    def __repr__(self) -> str:
        return f"AuthenticatedClient({self.record.client_id})"


def authentication_by(method: str) -> Callable[[object, TokenRequest], AuthenticatedClient | None]:
    """Make the function that Authlib calls for one authentication method."""

    def authenticate(query_client: object, request: TokenRequest) -> AuthenticatedClient | None:  # noqa: ARG001
        client = request.snapshot
        if request.method_presented != method or client is None:
            return None
        return AuthenticatedClient(client) if proves(client, request.secret_hash, request.now) else None

    return authenticate
