"""Documents that caches may keep: a strong ETag, ``304 Not Modified``, ``HEAD`` (RFC 9110 sections 8.8.3, 13.1.2)."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from starlette.types import Receive, Scope, Send

from shared.http import JSON, Headers, header, send_body


@dataclass(frozen=True, slots=True)
class Document:
    """A body and its strong entity tag, quotes included."""

    body: bytes
    etag: bytes


def document(body: bytes) -> Document:
    """Make a document whose tag is derived from its bytes."""
    return Document(body, b'"' + hashlib.sha256(body).hexdigest()[:32].encode() + b'"')


class DocumentEndpoint:
    """Serves what ``current`` gives at each request, with one Cache-Control."""

    def __init__(
        self,
        current: Callable[[], Document],
        *,
        cache_control: bytes,
        media_type: tuple[bytes, bytes] = JSON,
        extra: Headers | None = None,
    ) -> None:
        self._current = current
        self._headers = [(b"cache-control", cache_control), *(extra or [])]
        self._media_type = media_type

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        """Answer GET or HEAD."""
        current = self._current()
        headers = [*self._headers, (b"etag", current.etag)]
        if _matches(header(scope, b"if-none-match"), current.etag):
            await send({"type": "http.response.start", "status": 304, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
            return
        headers.append(self._media_type)
        if scope["method"] == "HEAD":
            headers.append((b"content-length", b"%d" % len(current.body)))
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
            return
        await send_body(send, 200, current.body, headers)


def _matches(if_none_match: bytes | None, etag: bytes) -> bool:
    """Weak comparison with a list of tags, or ``*`` (RFC 9110 section 13.1.2)."""
    if if_none_match is None:
        return False
    tags = [tag.strip().removeprefix(b"W/") for tag in if_none_match.split(b",")]
    return etag in tags or tags == [b"*"]
