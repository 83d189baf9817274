"""uvicorn's httptools protocol with the bounds and time-outs that the parser and uvicorn lack.

One connection is one state machine, so this file is longer than most. Its states: silent (nothing came yet), head (a
header section is unfinished), body (a request body is still to come), answering, idle (kept alive), lingering (refused:
what still comes is thrown away until the client has read the answer).

The parser is never handed more than ``max_head_bytes`` of an unfinished header section, so a header of 30 MB costs what
one of 16 KiB costs. Every refusal of this layer is the same JSON as everywhere else.
"""

import asyncio
import contextlib
import math
import secrets
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import httptools
from starlette.types import ASGIApp, Scope
from uvicorn.config import Config
from uvicorn.server import ServerState

from shared import events
from shared.errors import AppError
from shared.events import Event
from shared.http import Dressed, error_headers, problem_body
from shared.http_cycle import STATUS_LINES, RequestCycle
from shared.http_head import HeadParser
from shared.http_limits import ConnectionClock, Limits
from shared.telemetry import REQUEST_SECONDS

Prompt = Callable[[Scope, bytes], Dressed | None]

__all__ = ["BoundedHttpProtocol", "Limits", "clock_of"]

# One clock a server process; uvicorn's state object lives as long as its server.
_clocks: "weakref.WeakKeyDictionary[ServerState, ConnectionClock]" = weakref.WeakKeyDictionary()


def clock_of(server_state: ServerState, loop: asyncio.AbstractEventLoop) -> ConnectionClock:
    """Give the clock that all connections of one server share."""
    clock = _clocks.get(server_state)
    if clock is None:
        clock = _clocks[server_state] = ConnectionClock(
            loop, cast("set[BoundedHttpProtocol]", server_state.connections)
        )
    return clock


class BoundedHttpProtocol(HeadParser):
    """One client connection. Use it as uvicorn's ``http=``; a subclass may set other ``limits``."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.clock = clock_of(server_state, self.loop)
        self.deadline = math.inf
        self._app = cast("ASGIApp", self.app)
        self._prompt: Prompt | None = getattr(self.app, "answer_at_once", None)
        self._parsed: RequestCycle | None = None  # the request whose head came last
        self._active: RequestCycle | None = None  # the request being answered
        self._unstarted: RequestCycle | None = None  # the active one, until the bytes at hand are parsed
        self._queue: deque[RequestCycle] = deque()  # pipelined requests behind the active one
        self._deaf = False  # nothing more is read from this client
        self._lingering = False
        self._n_discarded = 0

    # -- the connection ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a new connection, or turn it away with 503 when the process has too many."""
        n_open, most = len(self.connections), self.limits.max_connections
        super().connection_made(transport)
        self.clock.start()
        self.deadline = self.clock.now + self.limits.first_byte_timeout_s
        if n_open >= most + most // 4:  # even being told so takes a descriptor for a while
            transport.abort()
        elif n_open >= most:
            self._refuse(AppError("overloaded", "Too many connections are open.", retry_after_s=1))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell every request of this connection that nobody is there any more."""
        self.connections.discard(self)
        for cycle in (self._active, self._parsed, *self._queue):
            if cycle is not None:
                cycle.disconnected = True
                cycle.wake()
        self._queue.clear()
        self._active = self._parsed = self._unstarted = self._refusal = None
        self.deadline = math.inf
        self.flow.resume_writing()
        if exc is None:
            self.transport.close()
        self.parser = None  # type: ignore[assignment]  # as uvicorn: the parser holds us by its callbacks

    def shutdown(self) -> None:
        """Finish what was asked, then close (uvicorn calls this when it stops)."""
        if self._active is None:
            self.transport.close()
        else:
            (self._parsed or self._active).keep_alive = False

    def pause_writing(self) -> None:
        """Hold the application back, for a while: the client does not read."""
        self.flow.pause_writing()
        self.deadline = self.clock.now + self.limits.write_timeout_s

    def resume_writing(self) -> None:
        """Let the application go on: the client reads again."""
        self.flow.resume_writing()
        if not self._lingering:
            self._set_deadline()

    def default_head(self) -> bytes:
        """Header lines that every answer begins with (the date)."""
        return self.clock.default_head(self.server_state.default_headers)

    # -- time ----------------------------------------------------------------------------------------------------

    def _set_deadline(self) -> None:
        """Say until when the client must do what it owes us; an answer in the making has no deadline here."""
        limits, now = self.limits, self.clock.now
        if self._parsed is not None and self._parsed.more_body:
            self.deadline = now + limits.body_timeout_s
        elif self._active is not None:
            self.deadline = math.inf
        elif self._head_open:
            self.deadline = now + limits.head_timeout_s
        else:
            self.deadline = now + limits.keep_alive_timeout_s

    def on_deadline(self, now: float) -> None:
        """Act on a deadline that passed: 408 for a request begun and not finished, else just close."""
        owes_body = self._parsed is not None and self._parsed.more_body
        if self.flow.write_paused:
            self.transport.abort()
        elif owes_body and self.flow.read_paused and not self._lingering:  # the application is slow, not the client
            self.deadline = now + self.limits.body_timeout_s
        elif (owes_body or self._head_open) and not self._lingering:
            self._refuse(AppError("request_timeout"))
        else:
            self.transport.close()

    # -- what arrives --------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take bytes from the client."""
        head_was_open = self._head_open
        if len(data) <= self._room:
            self._parse(data)
        else:
            self._receive_in_pieces(memoryview(data))
        cycle = self._unstarted
        if cycle is not None:
            self._unstarted = None
            if not self._answer_at_once(cycle):
                self._run(cycle)
        active = self._active
        if active is not None:
            if self.flow.write_paused:
                return
            if active is self._parsed and not active.more_body:
                self.deadline = math.inf
            else:
                self._set_deadline()
        elif self._head_open and not head_was_open and not self._lingering:
            self._set_deadline()  # and it stands, however many bytes drip in after it

    def _receive_in_pieces(self, view: memoryview) -> None:
        while view:
            if self._deaf:
                self._discard(len(view))
                return
            if self._n_past_parser:
                piece = bytes(view[: self._n_past_parser])
                self._take_past_parser(piece)
            else:
                piece = bytes(view[: self._room])
                self._parse(piece)
            view = view[len(piece) :]

    def _discard(self, n_bytes: int) -> None:
        self._n_discarded += n_bytes
        if self._n_discarded > self.limits.max_linger_bytes:
            self.transport.abort()

    def _parse(self, piece: bytes) -> None:
        n_heads = self._n_heads
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as stop:
            self._receive_in_pieces(memoryview(piece)[stop.args[0] :])
            return
        except httptools.HttpParserError:
            self._refuse(self._refusal or AppError("invalid_request", "The request is not well-formed HTTP/1.1."))
            return
        if self._head_open:
            self._head_in_pieces = True
            if self._n_heads == n_heads:
                self._room -= len(piece)
            if self._room <= 0:
                too_long = len(self.url) > self.limits.max_url_bytes
                self._refuse(AppError("uri_too_long" if too_long else "headers_too_large"))
        elif self._chunked:
            self._bound_silence(len(piece))

    def _bound_silence(self, n_bytes: int) -> None:
        # Chunk extensions and trailers are the bytes of a body that bring no content; the parser collects trailers.
        self._n_silent += n_bytes
        if self._n_silent > self.limits.max_head_bytes:
            self._refuse(AppError("headers_too_large", "The trailers or chunk extensions are too long."))

    def _take_past_parser(self, piece: bytes) -> None:
        self._n_past_parser -= len(piece)
        self.on_body(piece)
        if not self._n_past_parser:
            self._room = self.limits.max_head_bytes
            self.on_message_complete()

    def on_head(self, scope: Scope, *, keep_alive: bool) -> None:
        """Make a request of a good head; it starts when the bytes at hand are parsed, so mostly with its whole body."""
        if len(self._queue) >= self.limits.max_pipelined:
            self._refusal = AppError("too_many_requests", "Too many requests wait on this connection.", retry_after_s=1)
            raise self._refusal
        cycle = RequestCycle(scope, self, keep_alive=keep_alive, send_continue=self._expects_continue)
        self._parsed = cycle
        if self._active is None:
            self._active = self._unstarted = cycle
        else:  # answered in its turn, and the client is held back meanwhile
            self.flow.pause_reading()
            self._queue.append(cycle)

    def on_body(self, body: bytes) -> None:
        """Take a piece of the request body."""
        self._n_silent = 0
        if self._parsed is not None:
            self._parsed.feed(body)

    def on_message_complete(self) -> None:
        """Take note that the request has arrived whole."""
        self._chunked = False
        if self._parsed is not None and not self._n_past_parser:
            self._parsed.more_body = False
            if self._parsed.waiting is not None:
                self._parsed.wake()

    # -- answers -------------------------------------------------------------------------------------------------

    def _answer_at_once(self, cycle: RequestCycle) -> bool:
        """Answer without a task where the application can; only a request that came whole, with nothing in the way."""
        if self._prompt is None or cycle.more_body or self.flow.write_paused or self.transport.is_closing():
            return False
        whole = self._prompt(cycle.scope, bytes(cycle.body))
        if whole is None:
            return False
        cycle.answer(*whole)
        return True

    def _run(self, cycle: RequestCycle) -> None:
        cycle.task = self.loop.create_task(cycle.run(self._app, self.tasks))
        self.tasks.add(cycle.task)

    def on_answered(self, cycle: RequestCycle) -> None:
        """Go on after an answer: with the next request, waiting for one, or closing."""
        self.server_state.total_requests += 1
        self._active = None
        if self.transport.is_closing():
            return
        if cycle.more_body:  # answered before the end of the request: what still comes of it is thrown away
            self._linger()
        elif not cycle.keep_alive:
            self.transport.close()
        elif self._queue:
            self._active = self._queue.popleft()
            self._run(self._active)
        elif self._refusal is not None:
            self._write_refusal(self._refusal)
        else:
            self.flow.resume_reading()
            self._set_deadline()

    def refuse_in_cycle(self, cycle: RequestCycle, error: AppError) -> None:
        """Answer for an application that gave none; an answer that has begun can only be cut off."""
        cycle.disconnected = True
        if self._parsed is cycle:
            self._parsed = None
        self._active = None
        if cycle.head_sent:
            self.transport.abort()
        else:
            self._write_refusal(error)

    def _refuse(self, error: AppError) -> None:
        """Read no more; answer with ``error`` after the answers that are still due."""
        self._refusal = error
        self._deaf = True
        self._room = 0
        cycle = self._parsed
        if cycle is not None and cycle.more_body:  # its own body is what is wrong
            self._parsed = None
            cycle.disconnected = True
            cycle.wake()
            if cycle is self._active:
                self._active = self._unstarted = None
                if cycle.head_sent:
                    self.transport.abort()
                    return
            else:
                self._queue.remove(cycle)
        if self._active is None:
            self._write_refusal(error)

    def _write_refusal(self, error: AppError) -> None:
        if self.transport.is_closing() or self._lingering:
            return
        request_id = f"edge-{secrets.token_hex(8)}"
        body = problem_body(error, request_id)
        headers = [
            *(pair for pair in error_headers(error) if pair[0] != b"connection"),
            (b"content-type", b"application/json"),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
            (b"x-request-id", request_id.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        REQUEST_SECONDS.labels("other", "unparsed", str(error.status)).observe(0.0)
        events.gather(
            Event.HTTP_REQUEST, request_id=request_id, route="unparsed", status=error.status, reason=error.reason
        )
        lines = b"".join(b"%b: %b\r\n" % pair for pair in headers)
        self.transport.write(STATUS_LINES[error.status] + self.default_head() + lines + b"\r\n" + body)
        self._linger()

    def _linger(self) -> None:
        """Close so that the client can still read our answer: a close with unread bytes would reset the connection."""
        self._deaf = self._lingering = True
        self._room = 0
        self._queue.clear()
        self.deadline = self.clock.now + self.limits.linger_timeout_s
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            with contextlib.suppress(OSError):  # the client has gone already; connection_lost will say so
                self.transport.write_eof()
