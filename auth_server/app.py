"""The only place that builds the auth server: settings in, a running ASGI application out."""

import asyncio
import contextlib
import math
import sys
import time
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from redis.asyncio import Redis
from starlette.types import ASGIApp, Receive, Scope, Send

from auth_server.endpoints import health
from auth_server.endpoints.description import docs_endpoint, openapi_endpoint
from auth_server.endpoints.discovery import jwks_endpoint, metadata_endpoint
from auth_server.endpoints.health import MetricsEndpoint, ReadyEndpoint
from auth_server.endpoints.other_verifiers import other_verifiers
from auth_server.endpoints.statements import Knowledge
from auth_server.endpoints.token import TokenEndpoint
from auth_server.endpoints.token_signing import TokenSigning
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
from auth_server.stores.status_lists import StatusLists
from shared import events
from shared.access_token import LEEWAY_S
from shared.embedded_store import EmbeddedStore, EmbeddedStoreError
from shared.errors import AppError
from shared.events import Event
from shared.http import HotRoute, HttpEdge
from shared.revocations.feed_key import FeedKey, load_or_create_feed_key
from shared.revocations.revoked import RevokedSet
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
    signer, pepper, feed_key = await asyncio.to_thread(_open_keys, settings, clock)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(_embedded_store(settings))
        store, feed = connect(settings), connect(settings)
        stack.push_async_callback(store.aclose)
        stack.push_async_callback(feed.aclose)
        clients, life_s = Clients(store), ring_policy(settings).ttl_s
        parts = _Parts(
            settings=settings,
            clock=clock,
            store=store,
            cache=ClientCache(clients, feed, hold_s=settings.store_outage_hold_s, clock=time.monotonic),
            pepper=pepper,
            signer=signer,
            signing=SigningQueue(signer),
            preparation=Preparation(settings, clients, pepper, clock),
            feed_key=feed_key,
            status_lists=StatusLists(store, feed_key, max_token_life_s=life_s, leeway_s=LEEWAY_S),
            knowledge=Knowledge(
                revoked=RevokedSet(life_s, LEEWAY_S),
                staleness=lambda: math.inf,
                limit_s=settings.require_fresh_revocations_s,
            ),
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


def _open_keys(settings: AuthSettings, clock: Clock) -> tuple[Signer, Pepper, FeedKey]:
    folder, policy = KeysFolder(settings.keys_dir, settings.keys_passphrase_file), ring_policy(settings)
    folder.ensure(clock(), policy)
    signer = Signer.open(folder, policy, issuer=settings.issuer, clock=clock)
    return signer, load_pepper(settings.keys_dir), load_or_create_feed_key(settings.feed_key_file)


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
    feed_key: FeedKey
    status_lists: StatusLists
    knowledge: Knowledge

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

    async def check_store(self) -> str:
        """Say ``ready``, or ``degraded`` while the store is away and clients are served from memory.

        Raises AppError store_unavailable where nothing can be served without it.
        """
        try:
            with store_errors():
                await self.store.ping()
        except AppError:
            if self.cache.degraded:
                return "degraded"
            raise
        return "ready"

    def edge(self) -> HttpEdge:
        """Wire the endpoints: exact paths that are called often or must answer under load are hot."""
        issuer = self.settings.issuer
        token = TokenEndpoint(
            rules=TokenRules(TokenPolicy(issuer, self.settings.resource, self.settings.access_token_ttl_s)),
            clients=self.cache,
            pepper=self.pepper,
            signing=TokenSigning(self.signing, self.signer, self.status_lists, clock=self.clock),
            clock=self.clock,
            check_ready=self.preparation.check,
        )
        metadata = metadata_endpoint(self.settings)
        readable: dict[str, ASGIApp] = {
            "/.well-known/jwks.json": jwks_endpoint(self.signer, self.settings),
            "/.well-known/oauth-authorization-server": metadata,
            "/.well-known/openid-configuration": metadata,
            "/health/live": health.live,
            "/health/ready": ReadyEndpoint(self.check_ready, self.check_store, clock=self.clock),
            "/metrics": MetricsEndpoint(self.settings.metrics_networks),
            "/openapi.json": openapi_endpoint(issuer),
            "/docs": docs_endpoint(issuer),
        }
        hot = {(method, path): HotRoute(app, path) for path, app in readable.items() for method in ("GET", "HEAD")}
        hot["POST", "/oauth2/token"] = HotRoute(token, "/oauth2/token")
        return HttpEdge(self.for_others(_others(hot)), hot=hot, log_access=self.settings.log_access == "1")

    def for_others(self, otherwise: ASGIApp) -> ASGIApp:
        """Wire what verifiers of other makers are served."""
        return other_verifiers(
            issuer=self.settings.issuer,
            lists=self.status_lists,
            feed_key=self.feed_key,
            knowledge=self.knowledge,
            signer=self.signer,
            clock=self.clock,
            authenticate=_nobody,
            otherwise=otherwise,
        )


def _nobody(_scope: Scope) -> Collection[str]:
    """Let nobody read all revocations: no token for the issuer itself is issued yet."""
    raise AppError("unauthenticated")


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
