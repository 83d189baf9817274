"""Is the process alive, may it get traffic, and what has it counted."""

from collections.abc import Awaitable, Callable, Sequence

from starlette.types import Receive, Scope, Send

from shared import telemetry
from shared.errors import AppError
from shared.http import NO_STORE, send_body, send_json
from shared.serve import DRAINING

Check = Callable[[], Awaitable[str]]


async def live(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - ASGI's signature
    """Answer as long as the event loop turns."""
    await send_json(send, 200, b'{"status":"live"}')


class ReadyEndpoint:
    """``/health/ready``: 200 if tokens can be issued now, else 503 saying which part is missing.

    ``check_store`` gives the word for the answer (``ready``, or ``degraded`` where tokens are issued without the store)
    and is asked at most once in ``keep_s`` seconds, however often this endpoint is called.
    """

    def __init__(
        self, check_ready: Callable[[], None], check_store: Check, *, clock: Callable[[], float], keep_s: float = 1.0
    ) -> None:
        self._check_ready = check_ready
        self._check_store = check_store
        self._status = ""
        self._clock = clock
        self._keep_s = keep_s
        self._good_until = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        """Answer 200, or raise AppError not_ready or store_unavailable."""
        if scope.get("state", {}).get(DRAINING):
            raise AppError("not_ready", "The server is stopping.", reason="draining")
        self._check_ready()
        if self._clock() >= self._good_until:
            self._status = await self._check_store()
            self._good_until = self._clock() + self._keep_s
        await send_json(send, 200, b'{"status":"%b"}' % self._status.encode())


class MetricsEndpoint:
    """``/metrics`` in the Prometheus text format, for the loopback and the configured networks only."""

    def __init__(self, networks: Sequence[str]) -> None:
        self._networks = networks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        """Answer the metrics. Raises AppError forbidden."""
        peer = scope.get("client")
        if not telemetry.may_read(peer[0] if peer else None, self._networks):
            raise AppError("forbidden")
        body, media_type = telemetry.render()
        await send_body(send, 200, body, [(b"content-type", media_type.encode()), NO_STORE])
