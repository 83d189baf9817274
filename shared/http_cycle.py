"""One request and its answer, between the protocol and the application (the ASGI ``receive`` and ``send``).

It replaces uvicorn's cycle and keeps its flow control. It is leaner in four ways, each of which costs microseconds on
every request: no event object where the body is already here, no timer for every answer, one write for head and body,
and one check of the whole head against response splitting where uvicorn runs two regular expressions a header.
"""

import asyncio
import logging
from http import HTTPStatus
from typing import Any, Protocol

from starlette.types import ASGIApp, Message, Scope
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl

from shared.errors import AppError

logger = logging.getLogger("flex.http")

STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_JOIN_AT_MOST = 65536
_NAMES_AT_MOST = 256
_TOKEN_CHARACTERS = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")  # RFC 9110 section 5.6.2
# Header names that were found well-formed, as sent -> lower case; ours are some 40 constants, never more than 256.
_names: dict[bytes, bytes] = {}


class Connection(Protocol):
    """What a cycle needs of its connection; a protocol only because the two classes would import each other."""

    transport: asyncio.Transport
    flow: FlowControl

    def default_head(self) -> bytes:
        """Header lines that every answer begins with (the date)."""

    def on_answered(self, cycle: "RequestCycle") -> None:
        """Take note that the whole answer has been handed to the transport."""

    def refuse_in_cycle(self, cycle: "RequestCycle", error: AppError) -> None:
        """Answer for a cycle whose application gave no answer."""


class RequestCycle:
    """State of one request.

    ``body`` holds what arrived and was not yet received by the application: ``bytes`` while it is one piece (nearly
    always), a growing ``bytearray`` after that. ``more_body`` turns False when the request has arrived whole.
    """

    __slots__ = (
        "_body_left",
        "_chunked",
        "_connection",
        "_head",
        "_is_head_request",
        "_old_client",
        "_wakeup",
        "answered",
        "body",
        "disconnected",
        "keep_alive",
        "more_body",
        "scope",
        "send_continue",
        "task",
    )

    def __init__(self, scope: Scope, connection: Connection, *, keep_alive: bool, send_continue: bool) -> None:
        self.scope = scope
        self.keep_alive = keep_alive
        self.send_continue = send_continue
        self.body: bytes | bytearray = b""
        self.more_body = True
        self.disconnected = False
        self.answered = False
        self.task: asyncio.Task[None] | None = None
        self._connection = connection
        self._wakeup: asyncio.Future[None] | None = None
        self._head: bytes | None = None  # waits for the first piece of the body; b"" once it has been sent
        self._chunked = False
        self._body_left = -1  # bytes that content-length still promises; -1: nothing promised
        self._is_head_request = scope["method"] == "HEAD"
        self._old_client = scope["http_version"] == "1.0"

    @property
    def head_sent(self) -> bool:
        """Whether bytes of the answer may have reached the client."""
        return self._head == b""

    async def run(self, app: ASGIApp, tasks: set[asyncio.Task[None]]) -> None:
        """Run the application on this request; whatever it does wrong ends as an answer or a closed connection."""
        try:
            await app(self.scope, self.receive, self.send)
        except asyncio.CancelledError:
            self._fail(AppError("overloaded", "The server is stopping."))
        except Exception:
            logger.exception("The application failed outside its own error handling")
            self._fail(AppError("internal_error"))
        else:
            if not self.answered and not self.disconnected:
                logger.error("The application returned without a complete answer")
                self._fail(AppError("internal_error"))
        finally:
            if self.task is not None:
                tasks.discard(self.task)

    def _fail(self, error: AppError) -> None:
        if self.answered or self.disconnected:
            return
        self._connection.refuse_in_cycle(self, error)

    def feed(self, piece: bytes) -> None:
        """Add a piece of the request body; the client is held back while more than 64 KiB wait."""
        if self.answered:
            return
        if not self.body:
            self.body = piece
        else:
            if not isinstance(self.body, bytearray):
                self.body = bytearray(self.body)
            self.body += piece
        if len(self.body) > HIGH_WATER_LIMIT:
            self._connection.flow.pause_reading()
        self.wake()

    def wake(self) -> None:
        """Let a waiting ``receive`` look again."""
        if self._wakeup is not None:
            if not self._wakeup.done():
                self._wakeup.set_result(None)
            self._wakeup = None

    async def receive(self) -> Message:
        """ASGI ``receive``: the body in the pieces that arrived, then the disconnection."""
        if not self.body and self.more_body and not self.disconnected and not self.answered:
            await self._wait_for_body()
        elif self.body is _TAKEN and not self.disconnected and not self.answered:
            await self._wait()
        if self.disconnected or self.answered:
            return {"type": "http.disconnect"}
        body, self.body = bytes(self.body), b"" if self.more_body else _TAKEN
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    async def _wait_for_body(self) -> None:
        if self.send_continue:  # RFC 9110 section 10.1.1: only when the application really asks for the body
            self.send_continue = False
            if not self._connection.transport.is_closing():
                self._connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await self._wait()

    async def _wait(self) -> None:
        self._connection.flow.resume_reading()
        if self._wakeup is None:
            self._wakeup = asyncio.get_running_loop().create_future()
        await self._wakeup

    async def send(self, message: Message) -> None:
        """ASGI ``send``. Raises RuntimeError for messages out of order and for bodies of another length than said."""
        flow = self._connection.flow
        if flow.write_paused and not self.disconnected:
            await flow.drain()
        if self.disconnected:
            return
        if self._head is None:
            self._start(message)
        elif not self.answered:
            self._continue(message)
        else:
            raise RuntimeError(f"'{message['type']}' after the answer was complete")

    def _start(self, message: Message) -> None:
        if message["type"] != "http.response.start":
            raise RuntimeError(f"'{message['type']}' before 'http.response.start'")
        status: int = message["status"]
        lines = [STATUS_LINES[status], self._connection.default_head()]
        says_close = False
        pairs = 0
        for raw_name, value in message.get("headers", ()):
            name = _names.get(raw_name) or _checked_name(raw_name)
            if name == b"content-length":
                self._body_left = int(value)
            elif name == b"connection":
                says_close = b"close" in value.lower()
            elif name == b"transfer-encoding":
                continue  # framing is decided here alone
            lines.append(b"%b: %b\r\n" % (name, value))
            pairs += 1
        if says_close or (self.more_body and status >= 400):
            self.keep_alive = False
        if not self.keep_alive and not says_close:
            lines.append(b"connection: close\r\n")
        if self._body_left < 0 and not self._is_head_request and status not in (204, 304):
            self._frame_unknown_length(lines)
        lines.append(b"\r\n")
        head = b"".join(lines)
        # Every line we wrote ends in one CRLF; any other CR or LF came out of a header value (RFC 9110 section 5.5).
        if head.count(b"\n") != len(lines) + (lines[1].count(b"\n") - 1) or head.count(b"\r") != head.count(b"\n"):
            raise RuntimeError("a header value has a line break")
        if b"\0" in head:
            raise RuntimeError("a header value has a NUL")
        self._head = head

    def _frame_unknown_length(self, lines: list[bytes]) -> None:
        if self._old_client:  # HTTP/1.0 knows no chunks: the end of the connection is the end of the body
            self.keep_alive = False
        else:
            self._chunked = True
            lines.append(b"transfer-encoding: chunked\r\n")

    def _continue(self, message: Message) -> None:
        if message["type"] != "http.response.body":
            raise RuntimeError(f"'{message['type']}' where 'http.response.body' was expected")
        body: bytes = message.get("body", b"")
        more: bool = message.get("more_body", False)
        if self._is_head_request:
            body = b""
        elif self._chunked:
            body = _chunk(body, last=not more)
        elif self._body_left >= 0:
            self._body_left -= len(body)
            if self._body_left < 0 or (self._body_left > 0 and not more):
                raise RuntimeError("the body has another length than its content-length says")
        self._write(body)
        if not more:
            self.answered = True
            self.wake()
            self._connection.on_answered(self)

    def _write(self, body: bytes) -> None:
        transport = self._connection.transport
        head, self._head = self._head, b""
        if head and len(body) <= _JOIN_AT_MOST:
            transport.write(head + body)
            return
        if head:
            transport.write(head)
        if body:
            transport.write(body)


_TAKEN = bytearray()  # marks a body that the application has received whole


def _chunk(body: bytes, *, last: bool) -> bytes:
    piece = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
    return piece + b"0\r\n\r\n" if last else piece


def _checked_name(raw_name: bytes) -> bytes:
    name = raw_name.lower()
    if not name or not _TOKEN_CHARACTERS.issuperset(name):
        raise RuntimeError("a header name has a character that is not allowed")
    if len(_names) < _NAMES_AT_MOST:
        _names[raw_name] = name
    return name
