"""What the server offers, for programs (OpenAPI 3.1). ``description_page`` shows the same to people."""

from collections.abc import Sequence
from typing import Any

import msgspec

from auth_server.endpoints.admin import AdminRoute
from auth_server.endpoints.description_page import page
from auth_server.endpoints.documents import DocumentEndpoint, document
from auth_server.endpoints.revocation_snapshot import SNAPSHOT_PATH
from auth_server.oauth.server import GRANT_TYPES
from auth_server.oauth.status import LISTS_PATH

Json = dict[str, Any]
TOKENS, ADMIN, VERIFIERS, OPEN = "Tokens", "Administration", "Keys and revocations, for verifiers", "This server"
_CACHE = b"public, max-age=300"
_CSP = (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
_CLIENT = {
    "client_id": "With client_secret, where HTTP Basic is not used.",
    "client_secret": "With client_id, where HTTP Basic is not used.",
}
_ASK = {
    "grant_type": "One of: " + ", ".join(GRANT_TYPES) + ".",
    **_CLIENT,
    "scope": "Space-separated; left out: everything that the client was granted.",
    "resource": "Resource indicator (RFC 8707), may repeat; left out: the client's default.",
    "authorization_details": "Budgets that the token shall carry (RFC 9396), a JSON array such as "
    '[{"type":"model_call","attributes":["grit"],"rows":500,"period":"day"}].',
}
_NAME = {"token": "The access token.", "token_type_hint": "Is ignored: there is one kind.", **_CLIENT}
_FORMS = {
    "/oauth2/token": ("Issue an access token (RFC 6749)", _ASK, "grant_type"),
    "/oauth2/revoke": ("Revoke an access token at every verifier (RFC 7009)", _NAME, "token"),
    "/oauth2/introspect": ("What an access token says, if it is good now (RFC 7662)", _NAME, "token"),
}
_FOR_VERIFIERS = {
    "/.well-known/jwks.json": "Public keys that verify access tokens (RFC 7517)",
    LISTS_PATH: "Addresses of the Token Status Lists",
    LISTS_PATH + "/{list_id}": "One Token Status List: a signed JWT (draft-ietf-oauth-status-list)",
    SNAPSHOT_PATH: "Everything that is revoked, as a signed JWT; scope audit:read or tokens:revoke",
}
_ABOUT = {
    "/.well-known/oauth-authorization-server": "Server metadata (RFC 8414)",
    "/.well-known/openid-configuration": "The same metadata under the address of OpenID Connect Discovery",
    "/health/live": "Is the process alive",
    "/health/ready": "Can tokens be issued now",
    "/metrics": "Prometheus metrics, for the loopback and configured networks",
    "/openapi.json": "This description for programs",
    "/docs": "This description for people",
}


def openapi(issuer: str, admin: Sequence[AdminRoute] = ()) -> Json:
    """Describe the server at ``issuer``, with its admin API, as OpenAPI 3.1."""
    paths: Json = {path: {"post": _form_operation(*form)} for path, form in _FORMS.items()}
    paths["/oauth2/token"]["post"]["responses"]["200"] = _token_answer()
    paths |= {path: {"get": _get(path, summary, VERIFIERS)} for path, summary in _FOR_VERIFIERS.items()}
    paths[SNAPSHOT_PATH]["get"]["security"] = [{"bearer": []}]
    for route in admin:
        paths.setdefault(route.path, {})[route.method.lower()] = _admin_operation(route)
    paths |= {path: {"get": _get(path, summary, OPEN)} for path, summary in _ABOUT.items()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Flex auth server",
            "version": "1",
            "summary": "Access tokens for services (OAuth 2.0 client credentials, RS256), and their early end.",
        },
        "servers": [{"url": issuer}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "client_secret_basic": {"type": "http", "scheme": "basic"},
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
            }
        },
    }


def openapi_endpoint(issuer: str, admin: Sequence[AdminRoute]) -> DocumentEndpoint:
    """Serve the OpenAPI document."""
    described = document(msgspec.json.encode(openapi(issuer, admin)))
    return DocumentEndpoint(lambda: described, cache_control=_CACHE)


def docs_endpoint(issuer: str, admin: Sequence[AdminRoute]) -> DocumentEndpoint:
    """Serve the page for people: plain text in plain HTML, no scripts."""
    described = document(page(openapi(issuer, admin)).encode())
    media_type = (b"content-type", b"text/html; charset=utf-8")
    return DocumentEndpoint(lambda: described, cache_control=_CACHE, media_type=media_type, extra=[_CSP])


def _get(path: str, summary: str, tag: str) -> Json:
    operation: Json = {"summary": summary, "tags": [tag], "security": [], "responses": {"200": _answer("As named.")}}
    if "{" in path:
        name = path.partition("{")[2].rstrip("}")
        operation["parameters"] = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}}]
    return operation


def _token_answer() -> Json:
    token = {
        "type": "object",
        "properties": {
            "access_token": {"type": "string", "description": "RFC 9068 JWT"},
            "token_type": {"const": "Bearer"},
            "expires_in": {"type": "integer", "description": "Seconds"},
            "scope": {"type": "string"},
            "authorization_details": {"type": "array", "description": "The budgets that the token carries, if any."},
        },
    }
    return _answer("A token.") | {"content": {"application/json": {"schema": token}}}


def _admin_operation(route: AdminRoute) -> Json:
    operation: Json = {
        "summary": route.summary.rstrip("."),
        "description": f"Scope `{route.scope}`; a token for the issuer itself.",
        "tags": [ADMIN],
        "security": [{"bearer": [route.scope]}],
        "responses": {"2XX": _answer("Done."), "4XX": _answer("A problem (RFC 9457 members).")},
    }
    if route.query:
        operation["parameters"] = [{"name": name, "in": "query", "schema": {"type": "string"}} for name in route.query]
    if route.body is not None:
        (_, schemas) = msgspec.json.schema_components([route.body])
        form = {key: value for key, value in schemas[route.body.__name__].items() if key in _FORM_KEYS}
        needed = bool(form.get("required"))
        operation["requestBody"] = {"required": needed, "content": {"application/json": {"schema": form}}}
    return operation


_FORM_KEYS = frozenset({"type", "properties", "required", "additionalProperties"})


def _form_operation(summary: str, parameters: dict[str, str], required: str) -> Json:
    form = {
        "type": "object",
        "required": [required],
        "properties": {name: {"type": "string", "description": text} for name, text in parameters.items()},
    }
    refusal = {
        "type": "object",
        "properties": {"error": {"type": "string"}, "error_description": {"type": "string"}},
    }
    refusals = {
        "400": "The request is refused.",
        "401": "Client authentication failed.",
        "429": "Too many failed logins from this network; try again after Retry-After seconds.",
        "503": "Try again after Retry-After seconds.",
    }
    content = {"content": {"application/json": {"schema": refusal}}}
    return {
        "summary": summary,
        "tags": [TOKENS],
        "security": [{"client_secret_basic": []}, {}],
        "requestBody": {"required": True, "content": {"application/x-www-form-urlencoded": {"schema": form}}},
        "responses": {"200": _answer("Done.")} | {status: _answer(text) | content for status, text in refusals.items()},
    }


def _answer(text: str) -> Json:
    return {"description": text}
