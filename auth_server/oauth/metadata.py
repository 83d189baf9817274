"""Authorization server metadata (RFC 8414): only what is really offered."""

import msgspec

from auth_server.oauth.server import GRANT_TYPES
from auth_server.oauth.status import LISTS_PATH
from auth_server.records import SECRET_BASIC, SECRET_POST
from shared.rate_limit.budgets import DETAIL_TYPE
from shared.scopes import ADMIN, MANAGEMENT


class Metadata(msgspec.Struct, frozen=True):
    """The members of RFC 8414 section 2 that hold here."""

    issuer: str
    token_endpoint: str
    revocation_endpoint: str
    introspection_endpoint: str
    jwks_uri: str
    service_documentation: str
    status_list_aggregation_endpoint: str  # draft-ietf-oauth-status-list-21 section 9.1
    scopes_supported: tuple[str, ...] = ("predict:*", "explain:*", *MANAGEMENT, ADMIN)
    # REQUIRED by RFC 8414, and honestly empty while there is no authorization endpoint.
    response_types_supported: tuple[str, ...] = ()
    grant_types_supported: tuple[str, ...] = GRANT_TYPES
    authorization_details_types_supported: tuple[str, ...] = (DETAIL_TYPE,)  # RFC 9396 section 10
    token_endpoint_auth_methods_supported: tuple[str, ...] = (SECRET_BASIC, SECRET_POST)
    revocation_endpoint_auth_methods_supported: tuple[str, ...] = (SECRET_BASIC, SECRET_POST)
    introspection_endpoint_auth_methods_supported: tuple[str, ...] = (SECRET_BASIC, SECRET_POST)


def metadata(issuer: str) -> Metadata:
    """Describe the server at ``issuer``."""
    return Metadata(
        issuer=issuer,
        token_endpoint=f"{issuer}/oauth2/token",
        revocation_endpoint=f"{issuer}/oauth2/revoke",
        introspection_endpoint=f"{issuer}/oauth2/introspect",
        jwks_uri=f"{issuer}/.well-known/jwks.json",
        service_documentation=f"{issuer}/docs",
        status_list_aggregation_endpoint=issuer + LISTS_PATH,
    )
