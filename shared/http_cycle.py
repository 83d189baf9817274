"""One request and its answer, between the protocol and the application (the ASGI ``receive`` and ``send``).

It replaces uvicorn's cycle and keeps its flow control. It is leaner in four ways, each of which costs microseconds on
every request: no event object where the body is already here, no timer for every answer, one write for head and body,
and header lines that are checked and encoded once, where uvicorn runs two regular expressions a header each time.
A little longer than most files, since the state of one request does not come apart.
"""

import asyncio
from collections.abc import Iterable
from http import HTTPStatus
from typing import Protocol

from starlette.types import ASGIApp, Message, Scope
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl

from shared import events
from shared.errors import AppError
from shared.events import Event

STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_JOIN_AT_MOST = 65536
_TOKEN_CHARACTERS = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")  # RFC 9110 section 5.6.2
# Encoded lines of headers that say the same in nearly every answer; never more than 256, never emptied.
_lines: dict[tuple[bytes, bytes], bytes] = {}
# Names that were found well-formed, as sent -> in lower case; never more than 256, never emptied.
_names: dict[bytes, bytes] = {}
_MEMO_AT_MOST = 256
_REPEATED = frozenset(
    {b"cache-control", b"content-type", b"pragma", b"referrer-policy", b"vary", b"x-content-type-options"}
)


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
        "answered",
        "body",
        "disconnected",
        "keep_alive",
        "more_body",
        "scope",
        "send_continue",
        "task",
        "waiting",
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
        self.waiting: asyncio.Future[None] | None = None
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
        except Exception as error:  # noqa: BLE001 - whatever it is, it ends here
            self._fail(AppError("internal_error", reason=type(error).__name__))
        else:
            self._fail(AppError("internal_error", reason="no_complete_answer"))
        finally:
            if self.task is not None:
                tasks.discard(self.task)

    def _fail(self, error: AppError) -> None:
        if self.answered or self.disconnected:
            return
        events.emit(Event.INTERNAL_ERROR, reason=error.reason, where="asgi")
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
        if self.waiting is not None:
            self.wake()

    def wake(self) -> None:
        """Let a waiting ``receive`` look again."""
        waiting, self.waiting = self.waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

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
        if self.waiting is None:
            self.waiting = asyncio.get_running_loop().create_future()
        await self.waiting

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

    def answer(self, status: int, headers: Iterable[tuple[bytes, bytes]], further: bytes, body: bytes) -> None:
        """Send a whole answer at once; for a request that is here whole and a connection that can be written to.

        ``further`` are header lines that are sent as they are.
        """
        lines = [STATUS_LINES[status], self._connection.default_head()]
        lines += [_lines.get(pair) or self._line(pair) for pair in headers]
        end = b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n"
        self._head = b""
        self.answered = True
        lines += (further, b"content-length: %d\r\n" % len(body), end, b"" if self._is_head_request else body)
        self._connection.transport.write(b"".join(lines))
        self._connection.on_answered(self)

    def _start(self, message: Message) -> None:
        if message["type"] != "http.response.start":
            raise RuntimeError(f"'{message['type']}' before 'http.response.start'")
        status: int = message["status"]
        lines = [STATUS_LINES[status], self._connection.default_head()]
        lines += [_lines.get(pair) or self._line(pair) for pair in message.get("headers", ())]
        if self.more_body and status >= 400:  # refused before the body was read: it would have to be read to go on
            self.keep_alive = False
        if self._body_left < 0 and not self._is_head_request and status not in (204, 304):
            self._frame_unknown_length(lines)
        lines.append(b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n")
        self._head = b"".join(lines)

    def _line(self, pair: tuple[bytes, bytes]) -> bytes:
        """Encode a header line that is not in ``_lines``; framing and closing are decided here, not by the headers."""
        name, value = _names.get(pair[0]) or _checked_name(pair[0]), pair[1]
        if 10 in value or 13 in value or 0 in value:  # LF, CR, NUL: response splitting (RFC 9110 section 5.5)
            raise RuntimeError("a header value has a line break or a NUL")
        if name == b"content-length":
            self._body_left = int(value)
        elif name == b"connection":
            self.keep_alive = self.keep_alive and b"close" not in value.lower()
            return b""
        elif name == b"transfer-encoding":
            return b""
        line = b"".join((name, b": ", value, b"\r\n"))
        if name in _REPEATED and len(_lines) < _MEMO_AT_MOST:
            _lines[pair[0], value] = line
        return line

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
            if self.waiting is not None:
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
    if len(_names) < _MEMO_AT_MOST:
        _names[raw_name] = name
    return name
