"""The client credentials grant (RFC 6749 section 4.4)."""

from authlib.oauth2.rfc6749.grants import ClientCredentialsGrant

from auth_server.oauth import authorization_details
from auth_server.oauth.claims import UnsignedToken, access_token_claims, audience, granted
from auth_server.oauth.requests import TokenRequest
from auth_server.records import SECRET_BASIC, SECRET_POST


class ClientCredentials(ClientCredentialsGrant):
    """A client asks for a token for itself. Authlib authenticates and checks the grant type, then calls the hooks."""

    TOKEN_ENDPOINT_AUTH_METHODS = [SECRET_BASIC, SECRET_POST]  # noqa: RUF012 - Authlib's list, never changed

    request: TokenRequest

    def validate_requested_scope(self) -> None:
        """Narrow the requested scope to what the client was granted; raises AppError invalid_scope."""
        self.request.scopes = granted(self.request.client.record.scopes, self.request.payload.scope or "")

    def create_token_response(self) -> tuple[int, UnsignedToken, object]:
        """Give the claims to sign; raises AppError invalid_target, invalid_scope or invalid_authorization_details.

        Authlib's own would write the token into its debug log and save it: a JWT costs no row in the store.
        """
        client = self.request.client.record
        policy = self.server.policy
        token = access_token_claims(
            client,
            issuer=policy.issuer,
            aud=audience(
                client, self.request.resources, self.request.scopes, issuer=policy.issuer, default=policy.resource
            ),
            scopes=self.request.scopes,
            ttl_s=client.token_ttl_s or policy.access_token_ttl_s,
            now=self.request.now,
            budgets=authorization_details.granted(
                client.budgets, self.request.payload.data.get(authorization_details.PARAMETER, "")
            ),
        )
        return 200, token, self.TOKEN_RESPONSE_HEADER
