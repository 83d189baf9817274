"""One address and its methods: who is it first, then whether the method exists, then the work."""

from collections.abc import Awaitable, Callable

from starlette.types import Receive, Scope, Send

from model_server.bearer import Bearer, Caller
from shared.errors import AppError

Handler = Callable[[Scope, Receive, Send], Awaitable[None]]
CallerHandler = Callable[[Caller, Scope, Send], Awaitable[None]]


class Resource:
    """An ASGI application of one path. With a ``bearer`` it needs a good token even to say 404 or 405."""

    def __init__(self, bearer: Bearer | None = None, **methods: Handler) -> None:
        self._bearer = bearer
        self._methods = dict(methods)
        if "GET" in methods:
            self._methods["HEAD"] = methods["GET"]  # the server leaves the body out (RFC 9110 section 9.3.2)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Raises AppError ``method_not_allowed`` besides the bearer check's."""
        if self._bearer is not None:
            self._bearer.authenticate(scope)
        handler = self._methods.get(scope["method"])
        if handler is None:
            raise AppError("method_not_allowed", allow=sorted(self._methods))
        await handler(scope, receive, send)


def for_caller(bearer: Bearer, handler: CallerHandler) -> Handler:
    """Make a handler that gets the verified caller and needs no body."""

    async def handle(scope: Scope, _receive: Receive, send: Send) -> None:
        await handler(bearer.authenticate(scope), scope, send)

    return handle


async def nothing_here(_scope: Scope, _receive: Receive, _send: Send) -> None:
    """Say that there is nothing at this address, or nothing that this token may see."""
    raise AppError("not_found")
