"""The admin API's base: one table of routes, one guard before all of them, one form of answer.

A handler gets what was checked already and gives what is to be encoded; its docstring's first line is its description.
Lists answer ``{"items": […], "next": cursor or null}``; errors are the problem JSON of ``shared.http``.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import parse_qsl

import msgspec
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from auth_server.endpoints.admin_guard import AdminCaller, AdminGuard
from shared.errors import AppError, FieldError
from shared.events import Event, emit
from shared.http import NO_STORE, header, read_body, send_body, send_json
from shared.strict_json import decode_object

MAX_BODY_BYTES = 64 * 1024
MAX_PAGE = 200
USUAL_PAGE = 50
T = TypeVar("T")
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminRequest:
    """A call whose caller is authenticated and has the route's scope. ``body``: the decoded JSON object, or None.

    ``now`` in UTC seconds. ``query`` has each parameter once.
    """

    caller: AdminCaller
    path_params: Mapping[str, str]
    query: Mapping[str, str]
    body: object | None
    now: float

    def body_as(self, form: type[T]) -> T:
        """Give the body in a form (a msgspec Struct). Raises AppError invalid_request with a pointer to the mistake."""
        try:
            return msgspec.convert(self.body, form)
        except msgspec.ValidationError as problem:
            # The library's sentence may repeat what arrived; only its place goes out.
            path = str(problem).rpartition(" - at `$")[2].rstrip("`") if " - at `$" in str(problem) else ""
            pointer = path.replace(".", "/").replace("[", "/").replace("]", "")
            error = FieldError(pointer, "invalid", "This is missing, unknown, or not of the right form.")
            raise AppError("invalid_request", "The body does not say what this needs.", errors=[error]) from None

    def limit(self) -> int:
        """How many items a page may have: ``limit``, 1 to 200, usually 50. Raises AppError invalid_request."""
        text = self.query.get("limit", str(USUAL_PAGE))
        if not text.isascii() or not text.isdecimal() or len(text) > 3 or not 1 <= int(text) <= MAX_PAGE:
            raise AppError("invalid_request", f"limit must be a whole number from 1 to {MAX_PAGE}.")
        return int(text)


Handler = Callable[[AdminRequest], Awaitable[object]]
NoteUse = Callable[[str, str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class AdminRoute:
    """One method of one path (``/admin/v1/things/{id}``), the scope that it needs, and what answers.

    The handler's answer is encoded as JSON; None is a 204. ``body``, the form of the body, and ``query``, the names of
    the parameters, are for the description of the server: the handler reads both.
    """

    method: str
    path: str
    scope: str
    handler: Handler
    body: type[msgspec.Struct] | None = None
    query: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """One line for the description of the server."""
        return (self.handler.__doc__ or "").strip().partition("\n")[0]


def admin_api(
    routes: Sequence[AdminRoute],
    guard: AdminGuard,
    *,
    note_use: NoteUse,
    clock: Callable[[], float],
    otherwise: ASGIApp,
) -> ASGIApp:
    """Make the application; what no route names goes to ``otherwise``. ``clock`` gives UTC seconds.

    ``note_use`` is told the client and the scope of each answered call, for the report of scopes that nobody needs.
    """
    by_path: dict[str, dict[str, AdminRoute]] = {}
    for route in routes:
        by_path.setdefault(route.path, {})[route.method] = route
    return Router(
        [Route(path, _Resource(methods, guard, note_use, clock)) for path, methods in by_path.items()],
        redirect_slashes=False,
        default=otherwise,
    )


class _Resource:
    """One path of the admin API."""

    def __init__(
        self, methods: Mapping[str, AdminRoute], guard: AdminGuard, note_use: NoteUse, clock: Callable[[], float]
    ) -> None:
        self._methods = methods
        self._guard = guard
        self._note_use = note_use
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one call."""
        route = self._methods.get(scope["method"])
        if route is None:
            raise AppError("method_not_allowed", allow=list(self._methods))
        caller = self._guard.authenticate(scope)
        caller.require(route.scope)
        answer = await route.handler(
            AdminRequest(
                caller=caller,
                path_params=scope.get("path_params", {}),
                query=_query(scope["query_string"]),
                body=await _body(scope, receive),
                now=self._clock(),
            )
        )
        if route.method != "GET":
            emit(
                Event.ADMIN_CHANGE,
                request_id=scope.get("flex.request_id"),
                client_id=caller.client_id,
                method=route.method,
                route=route.path,
            )
        await self._note_use(caller.client_id, route.scope)
        if answer is None:
            await send_body(send, 204, b"", [NO_STORE])
        else:
            await send_json(send, 200, _encode(answer))


def _query(raw_query: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(raw_query.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict")
    except ValueError:
        if raw_query:
            raise AppError("invalid_request", "The query is not well-formed.") from None
        return {}
    if len({name for name, _ in pairs}) != len(pairs):
        raise AppError("invalid_request", "A query parameter is sent more than once.")
    return dict(pairs)


async def _body(scope: Scope, receive: Receive) -> object | None:
    body = await read_body(scope, receive, MAX_BODY_BYTES)
    if not body:
        return None
    media_type = (header(scope, b"content-type") or b"").partition(b";")[0].strip().lower()
    if media_type != b"application/json":
        raise AppError("unsupported_media_type", "Send application/json.")
    try:
        return decode_object(body)
    except (ValueError, RecursionError):
        raise AppError("malformed_json") from None
