"""The HTTP edge of both servers: one plain ASGI layer around the endpoints, and how an error looks on the wire.

What it adds to every request: an id, one metric, one event, the security headers, and a well-formed answer for
whatever goes wrong. Exact paths that must be fast are looked up in a dictionary; the rest goes to Starlette's router.
"""

import asyncio
import itertools
import math
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import msgspec
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared import events
from shared.errors import AppError, FieldError
from shared.events import Event
from shared.telemetry import REQUEST_TIMES

Headers = list[tuple[bytes, bytes]]
BODY_TIMEOUT_S = 20.0
ANSWER_TIMEOUT_S = 60.0
JSON = (b"content-type", b"application/json")
NO_STORE = (b"cache-control", b"no-store")
NOSNIFF = (b"x-content-type-options", b"nosniff")
_encode = msgspec.json.Encoder().encode


class Problem(msgspec.Struct):
    """An error body: the members of RFC 9457 and the inference protocol's ``error``, always ``application/json``.

    ``violated-policies`` stands only in problems about limits (draft-ietf-httpapi-ratelimit-headers section 5).
    """

    error: str
    type: str
    title: str
    status: int
    detail: str
    instance: str
    errors: tuple[FieldError, ...] = ()
    violated_policies: tuple[str, ...] | msgspec.UnsetType = msgspec.field(
        name="violated-policies", default=msgspec.UNSET
    )


def problem_body(error: AppError, instance: str) -> bytes:
    """Encode an error for the wire; ``instance`` is the request id, by which the log knows the precise reason."""
    return _encode(
        Problem(
            error=error.detail,
            type=error.problem_type,
            title=error.title,
            status=error.status,
            detail=error.detail,
            instance=instance,
            errors=error.errors,
            violated_policies=msgspec.UNSET if error.violated_policies is None else error.violated_policies,
        )
    )


def header(scope: Scope, name: bytes) -> bytes | None:
    """Value of the first header of that lower-case name."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return None


def check_size(body: bytes, limit: int) -> None:
    """Raise AppError ``payload_too_large`` for a body of more than ``limit`` bytes."""
    if len(body) > limit:
        raise AppError("payload_too_large", f"The body may have at most {limit} bytes.")


async def read_body(scope: Scope, receive: Receive, limit: int, timeout_s: float = BODY_TIMEOUT_S) -> bytes:
    """Read a whole request body of at most ``limit`` bytes.

    Raises AppError ``payload_too_large`` (by the declared length before anything is read, else at the first byte too
    many), ``request_timeout`` when it does not arrive within ``timeout_s``.
    """
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        check_size(body, limit)
        return body
    declared = header(scope, b"content-length")
    if len(body) > limit or (declared is not None and int(declared) > limit):
        raise AppError("payload_too_large", f"The body may have at most {limit} bytes.")
    chunks, size = [body], len(body)
    try:
        async with asyncio.timeout(timeout_s):
            while message.get("more_body", False):
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise AppError("request_timeout", reason="client_disconnected")
                size += len(message.get("body", b""))
                if size > limit:
                    raise AppError("payload_too_large", f"The body may have at most {limit} bytes.")
                chunks.append(message.get("body", b""))
    except TimeoutError:
        raise AppError("request_timeout") from None
    return b"".join(chunks)


async def send_body(send: Send, status: int, body: bytes, headers: Headers) -> None:
    """Send a whole answer; the content length is added."""
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def send_json(send: Send, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    """Send a whole JSON answer that nobody may cache."""
    await send_body(send, status, body, [JSON, NO_STORE, *headers])


Answer = tuple[int, Headers, bytes]
"""A whole answer of an endpoint: status, headers without a content length, body."""
Dressed = tuple[int, Headers, bytes, bytes]
"""A whole answer for the wire: status, headers, further header lines as they are sent, body."""


@dataclass(frozen=True, slots=True)
class HotRoute:
    """An endpoint reached by its exact path; ``label`` is its route template in the metrics.

    ``prompt``, where there is one, gives the same answers as ``endpoint`` to a request whose body is here already,
    without ever waiting: (scope, body) to a whole answer, AppError as from the endpoint; None where it would have to
    wait, so that the endpoint has to answer.
    """

    endpoint: ASGIApp
    label: str
    prompt: Callable[[Scope, bytes], Answer | None] | None = None


class HttpEdge:
    """ASGI layer around everything.

    ``router`` gets what ``hot`` does not name. ``challenge`` goes into every ``WWW-Authenticate: Bearer`` (RFC 9728
    ``resource_metadata`` for a model server). Endpoints may leave two things in the scope: ``flex.lines``, header lines
    as they are sent, go into the answer, whatever it is; ``flex.meter`` is called with its status (0: there was none)
    and seconds.
    """

    def __init__(
        self, router: ASGIApp, *, hot: Mapping[tuple[str, str], HotRoute], challenge: str = "", log_access: bool = True
    ) -> None:
        self._router = router
        self._hot = hot
        self._challenge = challenge
        self._log_access = log_access
        self._ids = itertools.count(1)
        self._prefix = secrets.token_hex(5)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass a lifespan on."""
        if scope["type"] != "http":
            await self._router(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = f"{self._prefix}-{next(self._ids):x}"
        scope["flex.request_id"] = request_id
        status = 0

        async def send_dressed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                further = (NOSNIFF, (b"x-request-id", request_id.encode()))
                message["headers"] = [*message["headers"], *_pairs(scope.get("flex.lines", b"")), *further]
            await send(message)

        hot = self._hot.get((scope["method"], scope["path"]))
        try:
            _raise_held(scope)
            if hot is not None:
                await hot.endpoint(scope, receive, send_dressed)
            else:
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    await self._router(scope, receive, send_dressed)
        except Exception as error:
            if status:  # the answer has begun: only closing the connection tells the truth
                events.emit(Event.INTERNAL_ERROR, request_id=request_id, reason=type(error).__name__)
                raise
            app_error = _as_app_error(error, request_id)
            if app_error.pause_s:
                await asyncio.sleep(app_error.pause_s)
            await self._refuse(app_error, request_id, send_dressed)
        finally:
            label = hot.label if hot is not None else getattr(scope.get("route"), "path", "unmatched")
            self._note(scope, label, status, time.perf_counter() - started, request_id)

    def answer_at_once(self, scope: Scope, body: bytes) -> Dressed | None:
        """Answer a request that arrived whole, without a task; None where only ``__call__`` can answer.

        The protocol asks this first. For a call of 0.1 ms a task and its messages are a third of the work.
        """
        hot = self._hot.get((scope["method"], scope["path"]))
        if hot is None or hot.prompt is None:
            return None
        started = time.perf_counter()
        scope["flex.request_id"] = request_id = f"{self._prefix}-{next(self._ids):x}"
        try:
            found = hot.prompt(scope, body)
            if found is None:
                return None
            status, headers, answer = found
        except Exception as problem:  # noqa: BLE001 - as in __call__: every end of a request is an answer
            error = _as_app_error(problem, request_id)
            if error.pause_s:  # only a task can wait
                scope["flex.refusal"] = error
                return None
            status, answer = error.status, problem_body(error, request_id)
            headers = [JSON, NO_STORE, *error_headers(error, self._challenge)]
        headers.append(NOSNIFF)
        self._note(scope, hot.label, status, time.perf_counter() - started, request_id)
        further = b"%bx-request-id: %b\r\n" % (scope.get("flex.lines", b""), request_id.encode())
        return status, headers, further, answer

    async def _refuse(self, error: AppError, request_id: str, send: Send) -> None:
        headers = list(error_headers(error, self._challenge))
        await send_json(send, error.status, problem_body(error, request_id), headers)

    def _note(self, scope: Scope, label: str, status: int, seconds: float, request_id: str) -> None:
        REQUEST_TIMES.note(scope["method"], label, status, seconds)
        meter = scope.get("flex.meter")
        if meter is not None:
            meter(status, seconds)
        if self._log_access:
            events.gather_request(
                request_id=request_id,
                method=scope["method"],
                route=label,
                status=status,
                seconds=int(seconds * 1e6) / 1e6,  # round() takes four times as long
                client_id=scope.get("flex.client_id"),
            )


def _pairs(lines: bytes) -> Headers:
    pairs = (line.partition(b": ") for line in lines.split(b"\r\n")[:-1])
    return [(name, value) for name, _, value in pairs]


def _raise_held(scope: Scope) -> None:
    """Raise what the quick way of answering has refused already, but could not hold back."""
    refusal: AppError | None = scope.get("flex.refusal")
    if refusal is not None:
        raise refusal


def error_headers(error: AppError, challenge: str = "") -> Headers:
    """Headers that belong to an error: the RFC 6750 challenge, Retry-After, Allow, and closing after a cut body."""
    headers: Headers = []
    if error.code in {"unauthenticated", "invalid_token", "insufficient_scope"}:
        headers.append((b"www-authenticate", _bearer_challenge(error, challenge).encode("latin-1", "replace")))
    if error.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % error.retry_after_s))
    if error.staleness_s is not None:
        known = math.isfinite(error.staleness_s)
        headers.append((b"flex-revocation-staleness", b"%d" % math.ceil(error.staleness_s) if known else b"unknown"))
    if error.allow:
        headers.append((b"allow", ", ".join(error.allow).encode()))
    if error.status in {408, 413}:
        headers.append((b"connection", b"close"))
    return headers


def _bearer_challenge(error: AppError, challenge: str) -> str:
    # RFC 6750 section 3.1: a request without a token gets no error code.
    parts = [] if error.code == "unauthenticated" else [f'error="{error.code}"', f'error_description="{error.detail}"']
    if error.scopes:
        parts.append(f'scope="{" ".join(error.scopes)}"')
    if challenge:
        parts.append(challenge)
    return "Bearer " + ", ".join(parts or ['realm="flex"'])


def _as_app_error(error: Exception, request_id: str) -> AppError:
    if isinstance(error, AppError):
        return error
    if isinstance(error, HTTPException) and error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        return AppError("method_not_allowed", allow=allowed.split(", "))
    if isinstance(error, HTTPException) and error.status_code == 404:
        return AppError("not_found", "There is nothing at this address.")
    if isinstance(error, TimeoutError):
        return AppError("overloaded", "The answer took too long.", reason="answer_timeout")
    events.emit(Event.INTERNAL_ERROR, request_id=request_id, reason=type(error).__name__, where=_where(error))
    return AppError("internal_error")


def _where(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f"{trace.tb_frame.f_code.co_filename.rsplit('/', 1)[-1]}:{trace.tb_lineno}"
