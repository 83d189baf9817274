"""The parser's callbacks: one request head, checked as a whole before anything is made of it.

What llhttp itself refuses (and the tests pin): Content-Length beside Transfer-Encoding, two Content-Length, control
characters, folded lines, bare LF, codings other than chunked at the end.
"""

import asyncio
import re
from collections import deque
from typing import Any, cast
from urllib.parse import unquote

import httptools
from starlette.types import Scope
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from shared.errors import AppError
from shared.http_limits import Limits

_SPEC = {"version": "3.0", "spec_version": "2.3"}
_HOST = re.compile(rb"([A-Za-z0-9._~%!$&'()*+,;=\-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]*)?")  # RFC 9110 section 7.2
# Swallows every header after the head, that is, trailers.
_TRAILERS = cast("list[tuple[bytes, bytes]]", deque(maxlen=0))
# Names that need no look by us, in the spellings of clients; every other one goes through _note_header.
_COMMON = {
    spelling: name
    for name in (
        *(b"accept", b"accept-encoding", b"accept-language", b"authorization", b"cache-control", b"connection"),
        *(b"content-length", b"content-type", b"cookie", b"dnt", b"forwarded", b"if-none-match", b"origin", b"pragma"),
        *(b"referer", b"sec-fetch-dest", b"sec-fetch-mode", b"sec-fetch-site", b"traceparent", b"tracestate"),
        *(b"user-agent", b"x-api-key", b"x-forwarded-for", b"x-forwarded-proto", b"x-request-id"),
    )
    for spelling in (name, name.title())
}
_METHODS: dict[bytes, str] = {}  # llhttp knows 46 methods; grows to that


class HeadParser(HttpToolsProtocol):
    """Collects and checks request heads; what happens with them is the subclass's (:meth:`on_head`).

    ``_room`` is how many bytes the parser may be handed before we look again: all of ``max_head_bytes`` outside a
    head, what is left of it inside one, 0 where every byte needs a look.
    """

    limits = Limits()

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._refusal: AppError | None = None
        self._room = self.limits.max_head_bytes
        self._n_heads = 0
        self._n_hosts = 0
        self._n_silent = 0  # bytes of a chunked body that held no content
        self._good_host = b"\0"  # none yet
        self._head_open = False
        self._head_in_pieces = False
        self._chunked = False
        self._upgrade = False
        self._expects_continue = False
        self._n_past_parser = 0  # bytes still to come of a body that the parser can't take

    def on_head(self, scope: Scope, *, keep_alive: bool) -> None:
        """Take a whole and good request head."""
        raise NotImplementedError

    def on_message_begin(self) -> None:
        """A request line begins."""
        self._n_heads += 1
        self._room = self.limits.max_head_bytes
        self._head_open = True
        self._head_in_pieces = self._chunked = self._upgrade = self._expects_continue = False
        self._n_hosts = self._n_silent = 0
        self.url = b""
        self.headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header under its lower-case name (a trailer is dropped)."""
        self.headers.append((_COMMON.get(name) or self._note_header(name, value), value))

    def _note_header(self, raw_name: bytes, value: bytes) -> bytes:
        name = raw_name.lower()
        if not self._head_open:
            return name
        if name == b"host":
            if value != self._good_host:  # nearly always the same for a whole connection
                if _HOST.fullmatch(value) is None:
                    self._n_hosts += 1  # counts twice, so the head is refused
                else:
                    self._good_host = value
            self._n_hosts += 1
        elif name == b"transfer-encoding":
            self._chunked = True
        elif name == b"upgrade":
            self._upgrade = True
        elif name == b"expect":
            self._expects_continue = value.lower() == b"100-continue"
        return name

    def on_headers_complete(self) -> None:
        """Check the head as a whole and hand it on; raises (into the parser) what refuses it."""
        version: str = self.parser.get_http_version()
        headers = self.headers
        self._head_open = False
        self._room = self.limits.max_head_bytes
        self.headers = _TRAILERS
        url = self.url
        plain = version == "1.1" and self._n_hosts == 1 and not self._head_in_pieces
        if not plain or len(headers) > self.limits.max_headers or len(url) > self.limits.max_url_bytes:
            self._refusal = self._size_problem(headers) or self._framing_problem(version)
            if self._refusal is not None:
                raise self._refusal
        raw_method = self.parser.get_method()
        raw_path, _, query = url.partition(b"?") if url[:1] == b"/" and b"#" not in url else self._split_target()
        path = raw_path.decode("ascii")
        scope = {
            "type": "http",
            "asgi": _SPEC,
            "http_version": version,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "root_path": "",
            "method": _METHODS.get(raw_method) or _METHODS.setdefault(raw_method, raw_method.decode("ascii")),
            "path": unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": query,
            "headers": headers,
            "state": self.app_state.copy(),
        }
        self.on_head(scope, keep_alive=version == "1.1" and self.parser.should_keep_alive())
        if self._upgrade and self.parser.should_upgrade():
            self._ignore_upgrade(headers)

    def _size_problem(self, headers: list[tuple[bytes, bytes]]) -> AppError | None:
        limits = self.limits
        if len(self.url) > limits.max_url_bytes:
            return AppError("uri_too_long")
        if len(headers) > limits.max_headers:
            return AppError("headers_too_large", f"A request may have at most {limits.max_headers} headers.")
        # A head in one piece had to fit into _room; the size of one in several pieces is only known now.
        if self._head_in_pieces and _head_size(self.url, headers) > limits.max_head_bytes:
            return AppError("headers_too_large")
        return None

    def _framing_problem(self, version: str) -> AppError | None:
        if version == "1.1":
            if self._n_hosts != 1:  # RFC 9112 section 3.2
                return AppError("invalid_request", "Send exactly one valid Host header.")
        elif version != "1.0" or self._chunked or self._n_hosts > 1:  # RFC 9112 section 6.1
            return AppError("invalid_request", "Use HTTP/1.1.")
        return None

    def _split_target(self) -> tuple[bytes, bytes, bytes]:
        if self.url == b"*":
            return self.url, b"", b""
        parts = httptools.parse_url(self.url)  # absolute form; raises for the authority form of CONNECT
        return parts.path or b"/", b"?", parts.query or b""

    def _ignore_upgrade(self, headers: list[tuple[bytes, bytes]]) -> None:
        # RFC 9110 section 7.8: Upgrade may be ignored. But the parser takes the body for the new protocol's.
        if self._chunked:
            self._refusal = AppError("invalid_request", "Upgrade is not supported together with a chunked body.")
            raise self._refusal
        self._n_past_parser = next((int(value) for name, value in headers if name == b"content-length"), 0)
        if self._n_past_parser:
            self._room = 0


def _head_size(url: bytes, headers: list[tuple[bytes, bytes]]) -> int:
    return len(url) + sum(len(name) + len(value) + 4 for name, value in headers)
