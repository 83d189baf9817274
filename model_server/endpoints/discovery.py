"""What anybody may ask: how to get a token for this resource (RFC 9728), whether the server lives, its metrics."""

from collections.abc import Callable, Iterable, Sequence
from urllib.parse import urlsplit

from starlette.types import Receive, Scope, Send

from model_server.endpoints.places import encode
from model_server.endpoints.resource import Handler
from shared import telemetry
from shared.errors import AppError
from shared.http import send_body, send_json
from shared.scopes import ADMIN

DOCUMENT = "/.well-known/oauth-protected-resource"


def document_paths(resource: str) -> list[str]:
    """Where the RFC 9728 document is served: section 3.1 puts a resource's own path behind the well-known one."""
    return list(dict.fromkeys([DOCUMENT, DOCUMENT + urlsplit(resource).path]))


def document_url(resource: str) -> str:
    """Public address of the document, as every challenge names it (RFC 9728 section 5.1)."""
    parts = urlsplit(resource)
    return f"{parts.scheme}://{parts.netloc}{DOCUMENT}{parts.path}"


def protected_resource(resource: str, issuer: str, attribute_ids: Iterable[str]) -> Handler:
    """``GET /.well-known/oauth-protected-resource``: RFC 9728 section 2."""
    scopes = [f"{action}:{name}" for name in attribute_ids for action in ("predict", "explain")]
    body = encode(
        {
            "resource": resource,
            "resource_name": "Flex model server",
            "authorization_servers": [issuer],
            "bearer_methods_supported": ["header"],
            "scopes_supported": [*scopes, "predict:*", "explain:*", ADMIN],
            "resource_documentation": resource + "/docs",
        }
    )

    async def handle(_scope: Scope, _receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"application/json"), (b"cache-control", b"public, max-age=300")]
        await send_body(send, 200, body, [*headers, (b"access-control-allow-origin", b"*")])

    return handle


async def live(_scope: Scope, _receive: Receive, send: Send) -> None:
    """``GET /health/live``: the process answers; nothing else is asked."""
    await send_json(send, 200, b'{"live":true}')


def ready(missing: Callable[[Scope], list[str]], revocations: Callable[[], object]) -> Handler:
    """``GET /health/ready``: 200 once every call could be answered, 503 naming what is missing until then.

    ``revocations`` says how the revocation feed is, for the body.
    """

    async def handle(scope: Scope, _receive: Receive, send: Send) -> None:
        lacking = missing(scope)
        if lacking:
            raise AppError("not_ready", f"Not ready: {', '.join(lacking)}.", reason=lacking[0])
        await send_json(send, 200, encode({"ready": True, "revocations": revocations()}))

    return handle


def metrics(networks: Sequence[str]) -> Handler:
    """``GET /metrics``: Prometheus text for the loopback and the configured networks; AppError ``forbidden`` else."""

    async def handle(scope: Scope, _receive: Receive, send: Send) -> None:
        peer = scope.get("client")
        if not telemetry.may_read(peer[0] if peer else None, networks):
            raise AppError("forbidden")
        body, media_type = telemetry.render()
        await send_body(send, 200, body, [(b"content-type", media_type.encode()), (b"cache-control", b"no-store")])

    return handle
