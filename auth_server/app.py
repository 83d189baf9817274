"""The only place that builds the auth server: settings in, a running ASGI application out."""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from redis.asyncio import Redis
from starlette.types import ASGIApp, Receive, Scope, Send

from auth_server.endpoints import health
from auth_server.endpoints.admin import AdminRoute, admin_api
from auth_server.endpoints.admin_guard import AdminGuard
from auth_server.endpoints.admin_keys import AdminKeys
from auth_server.endpoints.admin_revocations import AdminRevocations
from auth_server.endpoints.admin_usage import Usage
from auth_server.endpoints.client_requests import ClientRequests
from auth_server.endpoints.description import docs_endpoint, openapi_endpoint
from auth_server.endpoints.discovery import jwks_endpoint, metadata_endpoint
from auth_server.endpoints.health import MetricsEndpoint, ReadyEndpoint
from auth_server.endpoints.introspect import IntrospectEndpoint
from auth_server.endpoints.other_verifiers import other_verifiers
from auth_server.endpoints.revoke import RevokeEndpoint
from auth_server.endpoints.statements import Knowledge
from auth_server.endpoints.token import TokenEndpoint
from auth_server.endpoints.token_signing import TokenSigning
from auth_server.key_announcements import KeyAnnouncements
from auth_server.keyring.changes import RingChanges, explanation
from auth_server.keyring.confirmation import Reports
from auth_server.keyring.folder import KeysFolder
from auth_server.keyring.policy import LONGEST_TTL_S, ring_policy
from auth_server.keyring.ring import KeyState
from auth_server.keyring.signer import Signer
from auth_server.keyring.signing_queue import SigningQueue
from auth_server.oauth.server import TokenPolicy, TokenRules
from auth_server.preparation import Preparation
from auth_server.scheduled_rotation import ScheduledRotation
from auth_server.settings import AuthSettings
from auth_server.stores.client_cache import ClientCache
from auth_server.stores.client_secrets import Pepper, load_pepper
from auth_server.stores.clients import Clients
from auth_server.stores.revocations import Revocations
from auth_server.stores.status_lists import StatusLists
from shared import background, events
from shared.access_token import LEEWAY_S
from shared.embedded_store import EmbeddedStoreError
from shared.errors import AppError
from shared.http import HotRoute, HttpEdge
from shared.rate_limit.gcra import Limit
from shared.rate_limit.networks import NetworkLimiter
from shared.revocations.entries import client_revoked
from shared.revocations.feed_key import FeedKey, load_or_create_feed_key
from shared.revocations.follower import FeedFollower
from shared.revocations.notices import to_events
from shared.revocations.revoked import RevokedSet
from shared.revocations.writer import RevocationFeed
from shared.settings import SettingsError
from shared.store import StoreRefusedError, connect, embedded_store, store_errors
from shared.telemetry import SIGNING_QUEUE
from shared.usage import UsageLedger, day_of
from shared.verifiers import read_reports

Clock = Callable[[], float]
_FIRST_FOLLOWING_S = 1.0
_GAUGE_EVERY_S = 1.0
_NOTE_AT_MOST_S = 0.1
_SIGNING = frozenset({KeyState.STANDBY, KeyState.ACTIVE})


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
async def running(
    settings: AuthSettings, *, clock: Clock = time.time, monotonic: Clock = time.monotonic
) -> AsyncIterator[ASGIApp]:
    """Build everything and keep it going for the body of an ``async with``; gives the ASGI application.

    ``clock`` gives UTC seconds, ``monotonic`` seconds that measure for how long the store is away.

    A store that is away does not stop the start: tokens are refused (503) until it is there. Raises AppError
    keys_unavailable if there is no key ring to be trusted, conflict or StoreRefusedError if the store must not be
    served, EmbeddedStoreError if the embedded one can't run.
    """
    signer, pepper, feed_key = await asyncio.to_thread(_open_keys, settings, clock)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(embedded_store(settings))
        store, feed = connect(settings), connect(settings)
        stack.push_async_callback(store.aclose)
        stack.push_async_callback(feed.aclose)
        clients, revocations = Clients(store), _revocations(settings, store, feed_key, clock)

        async def end_tokens(client_id: str) -> None:
            reason = "changed while the store was out of reach"
            await revocations.write(client_revoked(client_id, clock()), by="auth server", reason=reason)

        hold_s = settings.store_outage_hold_s
        parts = _Parts(
            settings=settings,
            clock=clock,
            store=store,
            cache=ClientCache(clients, feed, hold_s=hold_s, clock=monotonic, end_tokens=end_tokens),
            pepper=pepper,
            signer=signer,
            signing=SigningQueue(signer),
            preparation=Preparation(settings, clients, pepper, clock),
            revocations=revocations,
            feed_key=feed_key,
            status_lists=StatusLists(store, feed_key, max_token_life_s=LONGEST_TTL_S, leeway_s=LEEWAY_S),
            changes=_ring_changes(settings, clock),
            reports=_reports(store, feed_key),
        )
        prepared = await parts.preparation.at_once(store)
        work = [parts.cache.follow(), signer.watch(), parts.count(), parts.preparation.later(store)]
        work += [parts.revocations.feed.keep_beating(), parts.revocations.follower.follow()]
        work += parts.key_work()
        stack.push_async_callback(background.stop, [background.start(each) for each in work])
        if prepared:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FIRST_FOLLOWING_S):
                    await parts.cache.wait_until_following()
                    await parts.revocations.follower.wait_until_following()
        yield parts.edge()


def _open_keys(settings: AuthSettings, clock: Clock) -> tuple[Signer, Pepper, FeedKey]:
    folder, policy = KeysFolder(settings.keys_dir, settings.keys_passphrase_file), ring_policy(settings)
    folder.ensure(clock(), policy)
    signer = Signer.open(folder, policy, issuer=settings.issuer, clock=clock)
    return signer, load_pepper(settings.keys_dir), load_or_create_feed_key(settings.feed_key_file)


def _revocations(settings: AuthSettings, store: Redis, feed_key: FeedKey, clock: Clock) -> Revocations:
    life_s = LONGEST_TTL_S
    revoked = RevokedSet(life_s, LEEWAY_S)
    return Revocations(
        feed=RevocationFeed(
            store,
            feed_key,
            clock=clock,
            max_token_life_s=life_s,
            leeway_s=LEEWAY_S,
            notify=to_events,
            remembered=revoked.revocations,
        ),
        follower=FeedFollower(lambda: connect(settings), feed_key, revoked, clock=clock, notify=to_events),
        revoked=revoked,
        limit_s=settings.require_fresh_revocations_s,
    )


def _reports(store: Redis, feed_key: FeedKey) -> Callable[[], Awaitable[Reports]]:
    async def reports() -> Reports:
        try:
            return await read_reports(store, feed_key)
        except AppError:
            return None

    return reports


def _ring_changes(settings: AuthSettings, clock: Clock) -> RingChanges:
    folder = KeysFolder(settings.keys_dir, settings.keys_passphrase_file)
    return RingChanges(folder, ring_policy(settings), clock)


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
    revocations: Revocations
    feed_key: FeedKey
    status_lists: StatusLists
    changes: RingChanges
    reports: Callable[[], Awaitable[Reports]]

    def key_work(self) -> list[Coroutine[object, object, None]]:
        """What runs beside the requests for the sake of the keys: telling the verifiers, and rotating by schedule."""
        trusted_s, feed = self.settings.jwks_max_stale_s, self.revocations.feed
        announcements = KeyAnnouncements(
            self.store, self.feed_key, feed, self.signer, trusted_s=trusted_s, clock=self.clock
        )
        schedule = ScheduledRotation(self.changes, self.signer, self.reports, every_s=self.settings.key_rotation_s)
        return [announcements.keep(), schedule.keep()]

    async def count(self) -> None:
        """Publish how many signatures are waited for and how old the revocations are, once a second."""
        while True:
            SIGNING_QUEUE.set(self.signing.n_waiting)
            self.revocations.measure()
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
        requests = ClientRequests(
            clients=self.cache,
            pepper=self.pepper,
            networks=NetworkLimiter(Limit(self.settings.failed_clients_per_minute, 60), clock=time.monotonic),
            clock=self.clock,
            check_ready=self.preparation.check,
        )
        rules = TokenRules(TokenPolicy(issuer, self.settings.resource, self.settings.access_token_ttl_s))
        signing = TokenSigning(self.signing, self.signer, self.status_lists, clock=self.clock)
        keys, revocations = self.signer, self.revocations
        posted: dict[str, ASGIApp] = {
            "/oauth2/token": TokenEndpoint(requests=requests, rules=rules, signing=signing),
            "/oauth2/revoke": RevokeEndpoint(requests=requests, keys=keys, issuer=issuer, revocations=revocations),
            "/oauth2/introspect": IntrospectEndpoint(
                requests=requests, keys=keys, issuer=issuer, revocations=revocations
            ),
        }
        admin = self.admin_routes()
        metadata = metadata_endpoint(self.settings)
        readable: dict[str, ASGIApp] = {
            "/.well-known/jwks.json": jwks_endpoint(self.signer, self.settings),
            "/.well-known/oauth-authorization-server": metadata,
            "/.well-known/openid-configuration": metadata,
            "/health/live": health.live,
            "/health/ready": ReadyEndpoint(self.check_ready, self.check_store, clock=self.clock),
            "/metrics": MetricsEndpoint(self.settings.metrics_networks),
            "/openapi.json": openapi_endpoint(issuer, admin),
            "/docs": docs_endpoint(issuer, admin),
        }
        hot = {(method, path): HotRoute(app, path) for path, app in readable.items() for method in ("GET", "HEAD")}
        hot |= {("POST", path): HotRoute(app, path) for path, app in posted.items()}
        guard = AdminGuard(self.signer, self.revocations, issuer=issuer, clock=self.clock)
        router = admin_api(
            admin, guard, note_use=self.note_use, clock=self.clock, otherwise=self.for_others(guard, _others(hot))
        )
        return HttpEdge(router, hot=hot, log_access=self.settings.log_access == "1")

    async def note_use(self, client_id: str, scope: str) -> None:
        """Note that a client needed a management scope today; what can't be noted is no reason to refuse."""
        with contextlib.suppress(AppError, TimeoutError):
            async with asyncio.timeout(_NOTE_AT_MOST_S):
                await UsageLedger(self.store).note_scopes(client_id, [scope], day_of(self.clock()))

    def for_others(self, guard: AdminGuard, otherwise: ASGIApp) -> ASGIApp:
        """Wire what verifiers of other makers are served."""
        return other_verifiers(
            issuer=self.settings.issuer,
            lists=self.status_lists,
            feed_key=self.feed_key,
            knowledge=Knowledge(
                revoked=self.revocations.revoked,
                staleness=lambda: self.revocations.follower.staleness_s,
                limit_s=self.settings.require_fresh_revocations_s,
            ),
            signer=self.signer,
            clock=self.clock,
            authenticate=lambda scope: guard.authenticate(scope).scopes,
            otherwise=otherwise,
        )

    def admin_routes(self) -> tuple[AdminRoute, ...]:
        """Everything of the admin API."""
        revocations = AdminRevocations(
            self.revocations,
            self.signer,
            issuer=self.settings.issuer,
            signs=self._signs,
            life_s=LONGEST_TTL_S,
        )
        keys = AdminKeys(self.changes, self.revocations.feed, self.reports)
        usage = Usage(UsageLedger(self.store), Clients(self.store))
        return (*revocations.routes(), *keys.routes(), *usage.routes())

    def _signs(self, kid: str) -> bool:
        return any(key.kid == kid and key.state in _SIGNING for key in self.signer.ring.keys)


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
