"""``/openapi.json`` and ``/docs``: the same facts for programs and for people.

The page is plain HTML made here once, without scripts and without anything from elsewhere.
"""

import base64
import hashlib
from html import escape
from typing import Any

from starlette.types import Receive, Scope, Send

from model_server.endpoints.places import encode
from model_server.endpoints.resource import Handler
from shared.http import send_body

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem}"
    "table{border-collapse:collapse;width:100%}"
    "td,th{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #ddd}"
    "code{font:14px/1.5 ui-monospace,monospace}summary{cursor:pointer}"
    "pre{overflow:auto;background:#f6f8fa;padding:1rem}"
)
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_CSP = f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; frame-ancestors 'none'"


def openapi_json(document: dict[str, Any]) -> Handler:
    """``GET /openapi.json``."""
    return _fixed(encode(document), [(b"content-type", b"application/json")])


def docs_page(document: dict[str, Any]) -> Handler:
    """``GET /docs``: every address with its method, scopes and, where there is one, an example body."""
    return _fixed(
        _page(document).encode(),
        [(b"content-type", b"text/html; charset=utf-8"), (b"content-security-policy", _CSP.encode())],
    )


def _fixed(body: bytes, headers: list[tuple[bytes, bytes]]) -> Handler:
    async def handle(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send_body(send, 200, body, [*headers, (b"cache-control", b"public, max-age=60")])

    return handle


def _page(document: dict[str, Any]) -> str:
    rows = [
        _row(path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    token_url = document["components"]["securitySchemes"]["oauth2"]["flows"]["clientCredentials"]["tokenUrl"]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Flex model server</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><h1>Flex model server</h1>"
        f"<p>{escape(document['info']['summary'])} Get a token with the client-credentials grant at "
        f"<code>{escape(token_url)}</code> and send it as <code>Authorization: Bearer …</code>. "
        'For programs: <a href="/openapi.json">openapi.json</a>.</p>'
        "<table><thead><tr><th>Call</th><th>What it does</th><th>Scope</th></tr></thead><tbody>"
        f"{''.join(rows)}</tbody></table></body></html>"
    )


def _row(path: str, method: str, operation: dict[str, Any]) -> str:
    security = operation.get("security")
    open_to_all = security == []
    scopes = " ".join(security[0]["oauth2"]) if security else ""
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    example = ""
    if "example" in content:
        body = escape(encode(content["example"]).decode())
        example = f"<details><summary>Example body</summary><pre>{body}</pre></details>"
    return (
        f"<tr><td><code>{method.upper()} {escape(path)}</code></td><td>{escape(operation['summary'])}{example}</td>"
        f"<td><code>{escape(scopes) or ('none needed' if open_to_all else 'any token')}</code></td></tr>"
    )
