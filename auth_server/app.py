"""The only place that builds the auth server: settings in, a running ASGI application out."""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from redis.asyncio import Redis
from starlette.types import ASGIApp, Receive, Scope, Send

from auth_server.endpoints import health
from auth_server.endpoints.description import docs_endpoint, openapi_endpoint
from auth_server.endpoints.discovery import jwks_endpoint, metadata_endpoint
from auth_server.endpoints.health import MetricsEndpoint, ReadyEndpoint
from auth_server.endpoints.token import TokenEndpoint
from auth_server.keyring.changes import explanation
from auth_server.keyring.folder import KeysFolder
from auth_server.keyring.policy import ring_policy
from auth_server.keyring.signer import Signer
from auth_server.keyring.signing_queue import SigningQueue
from auth_server.oauth.server import TokenPolicy, TokenRules
from auth_server.preparation import Preparation
from auth_server.settings import AuthSettings
from auth_server.stores.client_cache import ClientCache
from auth_server.stores.client_secrets import Pepper, load_pepper
from auth_server.stores.clients import Clients
from shared import events
from shared.embedded_store import EmbeddedStore, EmbeddedStoreError
from shared.errors import AppError
from shared.events import Event
from shared.http import HotRoute, HttpEdge
from shared.rate_limit.gcra import Limit
from shared.rate_limit.networks import NetworkLimiter
from shared.settings import SettingsError
from shared.store import StoreRefusedError, attach, connect, keep, store_errors
from shared.telemetry import SIGNING_QUEUE

Clock = Callable[[], float]
_FIRST_FOLLOWING_S = 1.0
_GAUGE_EVERY_S = 1.0


def create_app() -> "AuthServer":
    """Make the application for uvicorn, with settings from the environment; wrong settings end the process."""
    try:
        settings = AuthSettings.read()
    except SettingsError as wrong:
        for problem in wrong.problems:
            print(problem, file=sys.stderr)
        raise SystemExit(1) from None
    events.configure(server="auth")
    return AuthServer(lambda: running(settings))


class AuthServer:
    """The application as the web server sees it: opened at lifespan start, closed at its end."""

    def __init__(self, opening: Callable[[], AbstractAsyncContextManager[ASGIApp]]) -> None:
        self._opening = opening
        self._edge: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or run the lifespan."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif self._edge is not None:
            await self._edge(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            async with self._opening() as self._edge:
                await send({"type": "lifespan.startup.complete"})
                await receive()
        except (AppError, StoreRefusedError, EmbeddedStoreError, OSError) as error:
            why = explanation(error) if isinstance(error, AppError) else str(error)
            await send({"type": "lifespan.startup.failed", "message": why})
            return
        await send({"type": "lifespan.shutdown.complete"})


@contextlib.asynccontextmanager
async def running(settings: AuthSettings, *, clock: Clock = time.time) -> AsyncIterator[ASGIApp]:
    """Build everything and keep it going for the body of an ``async with``; gives the ASGI application.

    A store that is away does not stop the start: tokens are refused (503) until it is there. Raises AppError
    keys_unavailable if there is no key ring to be trusted, conflict or StoreRefusedError if the store must not be
    served, EmbeddedStoreError if the embedded one can't run.
    """
    signer, pepper = await asyncio.to_thread(_open_keys, settings, clock)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(_embedded_store(settings))
        store, feed = connect(settings), connect(settings)
        stack.push_async_callback(store.aclose)
        stack.push_async_callback(feed.aclose)
        clients = Clients(store)
        parts = _Parts(
            settings=settings,
            clock=clock,
            store=store,
            cache=ClientCache(clients, feed),
            pepper=pepper,
            signer=signer,
            signing=SigningQueue(signer),
            preparation=Preparation(settings, clients, pepper, clock),
        )
        prepared = await parts.preparation.at_once(store)
        work = [parts.cache.follow(), signer.watch(), parts.count(), parts.preparation.later(store)]
        stack.push_async_callback(_cancel, [_background(each) for each in work])
        if prepared:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(parts.cache.wait_until_following(), _FIRST_FOLLOWING_S)
        yield parts.edge()


@contextlib.asynccontextmanager
async def _embedded_store(settings: AuthSettings) -> AsyncIterator[None]:
    """Hold the embedded store, if that is the one in use, and start it again whenever it dies."""
    if settings.redis_url:
        yield
        return
    embedded = EmbeddedStore(settings.var_dir)
    await attach(embedded)
    keeper = _background(keep(embedded))
    try:
        yield
    finally:
        await _cancel([keeper])
        await asyncio.to_thread(embedded.release)


def _open_keys(settings: AuthSettings, clock: Clock) -> tuple[Signer, Pepper]:
    folder, policy = KeysFolder(settings.keys_dir, settings.keys_passphrase_file), ring_policy(settings)
    folder.ensure(clock(), policy)
    return Signer.open(folder, policy, issuer=settings.issuer, clock=clock), load_pepper(settings.keys_dir)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """What one running server consists of."""

    settings: AuthSettings
    clock: Clock
    store: Redis
    cache: ClientCache
    pepper: Pepper
    signer: Signer
    signing: SigningQueue
    preparation: Preparation

    async def count(self) -> None:
        """Publish how many signatures are waited for, once a second."""
        while True:
            SIGNING_QUEUE.set(self.signing.n_waiting)
            await asyncio.sleep(_GAUGE_EVERY_S)

    def check_ready(self) -> None:
        """Raise AppError not_ready unless a token could be issued now."""
        self.preparation.check()
        if not self.signer.signing_ready:
            raise AppError("not_ready", "The signing keys can't be used now.", reason="signing_not_ready")

    async def ping(self) -> None:
        """Raise AppError store_unavailable unless the store answers."""
        with store_errors():
            await self.store.ping()

    def edge(self) -> HttpEdge:
        """Wire the endpoints: exact paths that are called often or must answer under load are hot."""
        issuer = self.settings.issuer
        token = TokenEndpoint(
            rules=TokenRules(TokenPolicy(issuer, self.settings.resource, self.settings.access_token_ttl_s)),
            clients=self.cache,
            pepper=self.pepper,
            signing=self.signing,
            networks=NetworkLimiter(Limit(self.settings.failed_clients_per_minute, 60), clock=time.monotonic),
            clock=self.clock,
            check_ready=self.preparation.check,
        )
        metadata = metadata_endpoint(self.settings)
        readable: dict[str, ASGIApp] = {
            "/.well-known/jwks.json": jwks_endpoint(self.signer, self.settings),
            "/.well-known/oauth-authorization-server": metadata,
            "/.well-known/openid-configuration": metadata,
            "/health/live": health.live,
            "/health/ready": ReadyEndpoint(self.check_ready, self.ping, clock=self.clock),
            "/metrics": MetricsEndpoint(self.settings.metrics_networks),
            "/openapi.json": openapi_endpoint(issuer),
            "/docs": docs_endpoint(issuer),
        }
        hot = {(method, path): HotRoute(app, path) for path, app in readable.items() for method in ("GET", "HEAD")}
        hot["POST", "/oauth2/token"] = HotRoute(token, "/oauth2/token")
        return HttpEdge(_others(hot), hot=hot, log_access=self.settings.log_access == "1")


def _others(hot: dict[tuple[str, str], HotRoute]) -> ASGIApp:
    """Answer what is not hot: 405 for another method of a hot path, 404 for everything else."""
    allowed: dict[str, list[str]] = {}
    for method, path in hot:
        allowed.setdefault(path, []).append(method)

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - ASGI's signature
        if scope["path"] in allowed:
            raise AppError("method_not_allowed", allow=allowed[scope["path"]])
        raise AppError("not_found", "There is nothing at this address.")

    return refuse


def _background(work: Coroutine[object, object, None]) -> asyncio.Task[None]:
    task = asyncio.create_task(work)
    task.add_done_callback(_tell_end)
    return task


def _tell_end(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        events.emit(Event.INTERNAL_ERROR, reason=type(error).__name__, where="background")


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    pending = set(tasks)
    while pending:  # redis-py may lose a cancellation that comes together with a reply
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.5)
