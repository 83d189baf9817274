"""What the server offers, for programs (OpenAPI 3.1) and for people. Nothing is loaded from elsewhere."""

import html
from collections.abc import Sequence
from typing import Any

import msgspec

from auth_server.endpoints.admin import AdminRoute
from auth_server.endpoints.documents import DocumentEndpoint, document
from auth_server.oauth.server import GRANT_TYPES

_CACHE = b"public, max-age=300"
_CSP = (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
_PARAMETERS = {
    "grant_type": "One of: " + ", ".join(GRANT_TYPES) + ".",
    "client_id": "With client_secret, where HTTP Basic is not used.",
    "client_secret": "With client_id, where HTTP Basic is not used.",
    "scope": "Space-separated; left out: everything that the client was granted.",
    "resource": "Resource indicator (RFC 8707), may repeat; left out: the client's default.",
}
_TOKEN_PARAMETERS = {
    "token": "The access token.",
    "token_type_hint": "Is ignored: there is one kind.",
    "client_id": _PARAMETERS["client_id"],
    "client_secret": _PARAMETERS["client_secret"],
}
_TOKEN_SUMMARIES = {
    "/oauth2/revoke": "Revoke an access token at every verifier (RFC 7009)",
    "/oauth2/introspect": "What an access token says, if it is good now (RFC 7662)",
}
_SUMMARIES = {
    "/.well-known/jwks.json": "Public keys that verify access tokens (RFC 7517)",
    "/.well-known/oauth-authorization-server": "Server metadata (RFC 8414)",
    "/.well-known/openid-configuration": "The same metadata under the address of OpenID Connect Discovery",
    "/oauth2/status-lists": "Addresses of the Token Status Lists, for verifiers of other makers",
    "/health/live": "Is the process alive",
    "/health/ready": "Can tokens be issued now",
    "/metrics": "Prometheus metrics, for the loopback and configured networks",
    "/openapi.json": "This description for programs",
    "/docs": "This description for people",
}


def openapi(issuer: str, admin: Sequence[AdminRoute] = ()) -> dict[str, Any]:
    """Describe the server at ``issuer``, with its admin API, as OpenAPI 3.1."""
    paths: dict[str, Any] = {"/oauth2/token": {"post": _token_operation()}}
    for path, summary in _TOKEN_SUMMARIES.items():
        paths[path] = {"post": _form_operation(summary, _TOKEN_PARAMETERS, "token")}
    for route in admin:
        paths.setdefault(route.path, {})[route.method.lower()] = _admin_operation(route)
    for path, summary in _SUMMARIES.items():
        paths[path] = {"get": {"summary": summary, "security": [], "responses": {"200": {"description": "As named."}}}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Flex auth server", "version": "1", "description": "OAuth 2.0 client credentials, RS256."},
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
    page = document(_page(issuer, admin).encode())
    media_type = (b"content-type", b"text/html; charset=utf-8")
    return DocumentEndpoint(lambda: page, cache_control=_CACHE, media_type=media_type, extra=[_CSP])


def _token_operation() -> dict[str, Any]:
    operation = _form_operation("Issue an access token (RFC 6749)", _PARAMETERS, "grant_type")
    token = {
        "type": "object",
        "properties": {
            "access_token": {"type": "string", "description": "RFC 9068 JWT"},
            "token_type": {"const": "Bearer"},
            "expires_in": {"type": "integer", "description": "Seconds"},
            "scope": {"type": "string"},
        },
    }
    operation["responses"]["200"] = {"description": "A token.", "content": {"application/json": {"schema": token}}}
    return operation


def _admin_operation(route: AdminRoute) -> dict[str, Any]:
    return {
        "summary": route.summary,
        "description": f"Scope `{route.scope}`; a token for the issuer itself.",
        "security": [{"bearer": []}],
        "responses": {"2XX": {"description": "Done."}, "4XX": {"description": "A problem (RFC 9457 members)."}},
    }


def _form_operation(summary: str, parameters: dict[str, str], required: str) -> dict[str, Any]:
    form = {
        "type": "object",
        "required": [required],
        "properties": {name: {"type": "string", "description": text} for name, text in parameters.items()},
    }
    refusal = {
        "type": "object",
        "properties": {"error": {"type": "string"}, "error_description": {"type": "string"}},
    }
    return {
        "summary": summary,
        "security": [{"client_secret_basic": []}, {}],
        "requestBody": {"required": True, "content": {"application/x-www-form-urlencoded": {"schema": form}}},
        "responses": {
            "200": {"description": "Done."},
            **{
                status: {"description": text, "content": {"application/json": {"schema": refusal}}}
                for status, text in (
                    ("400", "The request is refused."),
                    ("401", "Client authentication failed."),
                    ("503", "Try again after Retry-After seconds."),
                )
            },
        },
    }


def _page(issuer: str, admin: Sequence[AdminRoute]) -> str:
    rows = "".join(
        f"<tr><td>GET</td><td><a href='{path}'>{path}</a></td><td>{html.escape(text)}</td></tr>"
        for path, text in _SUMMARIES.items()
    )
    rows += "".join(
        f"<tr><td>POST</td><td>{path}</td><td>{html.escape(text)}</td></tr>" for path, text in _TOKEN_SUMMARIES.items()
    )
    rows += "".join(
        f"<tr><td>{route.method}</td><td>{html.escape(route.path)}</td><td>{html.escape(route.summary)} "
        f"(scope {route.scope})</td></tr>"
        for route in admin
    )
    parameters = "".join(f"<li><code>{name}</code>: {html.escape(text)}</li>" for name, text in _PARAMETERS.items())
    call = html.escape(f"curl -u CLIENT_ID:CLIENT_SECRET -d grant_type=client_credentials {issuer}/oauth2/token")
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Flex auth server</title>"
        "<style>body{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
        "td{padding:.2em 1em .2em 0}pre{overflow:auto}</style>"
        f"<h1>Flex auth server</h1><h2>POST /oauth2/token</h2><pre>{call}</pre><ul>{parameters}</ul>"
        f"<h2>Other addresses</h2><table>{rows}</table></html>"
    )
