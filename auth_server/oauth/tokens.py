"""What the issuer decides about its own access tokens: which are good, who may revoke them, what they say. Pure.

Authlib's endpoints for this refuse JWTs or look at no revocation, so these are our own (RFC 7009, RFC 7662).
"""

from collections.abc import Mapping

import msgspec

from auth_server.records import Client
from shared.access_token import AccessToken, KeySet, TokenRefused, verify_access_token
from shared.errors import AppError
from shared.scopes import covers

REVOKE_ANY = "tokens:revoke"


class Introspection(msgspec.Struct, frozen=True, omit_defaults=True):
    """The members of RFC 7662 section 2.2; for a token that is not active, only that it is not."""

    active: bool
    scope: str = ""
    client_id: str = ""
    token_type: str = ""
    exp: int = 0
    iat: int = 0
    sub: str = ""
    aud: str | tuple[str, ...] = ""
    iss: str = ""
    jti: str = ""


NOT_ACTIVE = Introspection(active=False)


def own_token(raw_token: str, keys: KeySet, *, issuer: str, now: float) -> AccessToken | None:
    """Verify a token of this issuer, whoever it is for; None for anything that no verifier would take now."""
    try:
        return verify_access_token(raw_token, keys, issuer=issuer, audience=None, now=now)
    except TokenRefused:
        return None


def required_token(parameters: Mapping[str, str]) -> str:
    """The ``token`` parameter. ``token_type_hint`` may say anything: there is one kind (RFC 7009 section 2.1)."""
    if "token" not in parameters:
        raise AppError("invalid_request", "token is missing.")
    return parameters["token"]


def check_may_revoke(client: Client, token: AccessToken) -> None:
    """Raise AppError unauthorized_client unless the token is the client's own, or it may revoke any."""
    if token.client_id != client.client_id and not covers(client.scopes, REVOKE_ANY):
        raise AppError(
            "unauthorized_client", "The token was issued to another client.", reason="token_of_another_client"
        )


def introspection(token: AccessToken) -> Introspection:
    """Say what an active token says."""
    return Introspection(
        active=True,
        scope=" ".join(sorted(token.scopes)),
        client_id=token.client_id,
        token_type="Bearer",  # noqa: S106
        exp=int(token.expires_at),
        iat=int(token.issued_at),
        sub=token.subject,
        aud=token.audiences[0] if len(token.audiences) == 1 else token.audiences,
        iss=token.key.issuer,
        jti=token.token_id,
    )
