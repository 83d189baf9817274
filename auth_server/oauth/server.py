"""Authlib's authorization server as a pure function: a request that carries its snapshot goes in, claims come out.

No I/O and no signature here. The endpoint loads before and signs after, so no decision waits for anything and nothing
is signed that the rules did not allow.
"""

from dataclasses import dataclass
from typing import Never

from authlib.oauth2.rfc6749 import AuthorizationServer, OAuth2Error

from auth_server.oauth.claims import UnsignedToken
from auth_server.oauth.clients import authentication_by
from auth_server.oauth.grants.client_credentials import ClientCredentials
from auth_server.oauth.requests import TokenRequest
from auth_server.records import SECRET_BASIC, SECRET_POST
from shared.error_catalogue import CATALOGUE
from shared.errors import AppError

GRANT_TYPES = (ClientCredentials.GRANT_TYPE,)


@dataclass(frozen=True, slots=True)
class TokenPolicy:
    """What every token has in common: who issues it, for whom by default, and for how long by default (seconds)."""

    issuer: str
    resource: str
    access_token_ttl_s: int


class TokenRules(AuthorizationServer):
    """The token endpoint's rules. One for a process; all state of a request is on the request."""

    def __init__(self, policy: TokenPolicy) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.policy = policy
        for method in (SECRET_BASIC, SECRET_POST):
            self.register_client_auth_method(method, authentication_by(method))  # type: ignore[no-untyped-call]
        self.register_grant(ClientCredentials)  # type: ignore[no-untyped-call]

    def check_grant_type(self, grant_type: str | None) -> None:
        """Raise AppError invalid_request or unsupported_grant_type before any client is looked up."""
        if grant_type is None:
            raise AppError("invalid_request", "grant_type is missing.")
        if grant_type not in GRANT_TYPES:
            raise AppError("unsupported_grant_type")

    def decide(self, request: TokenRequest) -> UnsignedToken:
        """Decide on a token request. Raises AppError with an RFC 6749 section 5.2 or RFC 8707 code."""
        token: UnsignedToken = self.create_token_response(request)  # type: ignore[no-untyped-call]
        return token

    def create_oauth2_request(self, request: TokenRequest) -> TokenRequest:
        """Ours is made by the endpoint; Authlib passes it through here."""
        return request

    def handle_response(self, status: int, body: UnsignedToken, headers: object) -> UnsignedToken:  # noqa: ARG002
        """Hand the decision back; the endpoint writes the answer."""
        return body

    def handle_error_response(self, request: TokenRequest, error: OAuth2Error) -> Never:  # noqa: ARG002
        """Raise a refusal in our catalogue's words: Authlib's tell an unknown client from a wrong secret."""
        raise AppError(error.error if error.error in CATALOGUE else "invalid_request") from None

    def query_client(self, client_id: str) -> Never:
        """Never called: clients come with the request."""
        raise NotImplementedError

    def send_signal(self, name: str, *args: object, **kwargs: object) -> None:
        """Events are the endpoint's, where the outcome is known."""
