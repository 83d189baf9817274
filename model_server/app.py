"""The only place where the model server is put together."""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass

from starlette.routing import Route, Router
from starlette.types import ASGIApp, Scope

from model_server import heap
from model_server.attribute import Attribute, open_all
from model_server.bearer import Bearer
from model_server.charges import Charges
from model_server.endpoints import attributes as attribute_endpoints
from model_server.endpoints import discovery, documentation, openapi
from model_server.endpoints.batch import batch
from model_server.endpoints.charging import Till
from model_server.endpoints.profile import profile
from model_server.endpoints.resource import Resource, nothing_here
from model_server.endpoints.work_pool import WorkPool
from model_server.key_proofs import KeyProofs, verifier_id
from model_server.remote_keys import KeyFeed, RemoteKeys
from model_server.revocations import Revocations, seconds
from model_server.settings import ModelSettings
from model_server.store_link import StoreLink
from shared import background, events
from shared.access_token import KeySet
from shared.events import Event
from shared.http import HotRoute, HttpEdge
from shared.rate_limit.gcra import Limit
from shared.rate_limit.networks import NetworkLimiter
from shared.revocations.policy import Freshness
from shared.serve import DRAINING, worker_slot

Attributes = Mapping[str, Attribute]
# A batch in the pool keeps the interpreter for this long before the event loop gets its turn. Python's 5 ms are too
# long beside calls of 0.1 ms: under a steady load of batches twice as many single predictions get through with 0.5 ms.
SWITCH_INTERVAL_S = 0.0005
FIRST_WAIT_S = 3.0  # a little more than one fetch of the keys may take


def create_app() -> ASGIApp:
    """Build the model server from the environment, with the keys of ``FLEX_ISSUER`` and the bundles of the folder."""
    events.configure(server="model")
    heap.keep_small()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    settings = ModelSettings.read()
    revocations = _revocations(settings)
    keys = remote_keys(settings, revocations, clock=time.time)
    keys.load_last_good()
    return build_app(settings, load_attributes(settings), keys, clock=time.time, revocations=revocations)


def _revocations(settings: ModelSettings) -> Revocations | None:
    limit_s = settings.require_fresh_revocations_s
    if not limit_s:
        events.emit(Event.INSECURE_OPTION, option="FLEX_REQUIRE_FRESH_REVOCATIONS_S=0")
        return None
    return Revocations(limit_s=limit_s, snapshot=settings.revocations_file, clock=time.time)


def remote_keys(settings: ModelSettings, revocations: Revocations | None, *, clock: Callable[[], float]) -> RemoteKeys:
    """Give the keys of the issuer, not followed yet; ``clock`` gives UTC seconds."""
    feed = KeyFeed(lambda: revocations.certain, revocations.is_key_revoked) if revocations is not None else None
    return RemoteKeys(
        settings.issuer,
        file=settings.key_set_file,
        soft_max_age_s=settings.jwks_max_age_s,
        max_stale_s=settings.jwks_max_stale_s,
        clock=clock,
        feed=feed,
    )


def load_attributes(settings: ModelSettings) -> Attributes:
    """Open every attribute of the models folder; a bundle that fails its checks is left out, with an event."""
    loaded = open_all(settings.models_dir)
    for refusal in loaded.refused:
        events.emit(Event.BUNDLE_REFUSED, attribute=refusal.id, version=refusal.version, reason=refusal.reason)
    for attribute in loaded.opened.values():
        events.emit(Event.BUNDLE_LOADED, attribute=attribute.id, version=attribute.version)
    return loaded.opened


def build_app(
    settings: ModelSettings,
    attributes: Attributes,
    keys: KeySet | RemoteKeys,
    *,
    clock: Callable[[], float],
    revocations: Revocations | None = None,
) -> ASGIApp:
    """Wire bearer check, endpoints and edge around given attributes and keys; ``clock`` gives UTC seconds.

    Without ``revocations`` nothing is followed, and no store is needed.
    """
    charges = Charges.open(settings, clock)
    bearer = Bearer(
        keys,
        issuer=settings.issuer,
        audience=settings.resource,
        attributes=attributes,
        accounts=charges.accounts,
        networks=NetworkLimiter(_two_seconds_of(settings.refused_per_minute), clock=time.monotonic),
        clock=clock,
        revocations=revocations,
    )
    proofs = _proofs(settings, keys, revocations, clock)

    def keys_changed() -> None:
        bearer.forget()
        if proofs is not None:
            proofs.wake()

    if isinstance(keys, RemoteKeys):
        keys.on_change = keys_changed
    if revocations is not None:
        revocations.on_signing_key = lambda _kid: bearer.forget()
    till = Till(charges.accounts.limiter)
    pool = WorkPool(settings.batch_threads, settings.batch_queue, lambda: _ready_thread(attributes))
    router = Router(
        routes=_routes(settings, attributes, bearer, till, pool, standing=_Standing(attributes, keys, revocations)),
        redirect_slashes=False,
        default=Resource(bearer, **dict.fromkeys(("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"), nothing_here)),
        lifespan=_Running(settings, pool, keys, revocations, proofs, charges),
    )
    app: ASGIApp = HttpEdge(
        router,
        hot=_hot_routes(attributes, bearer, till, pool),
        challenge=f'resource_metadata="{discovery.document_url(settings.resource)}"',
        log_access=settings.log_access == "1",
    )
    return _with_cors(app, settings.cors_origins) if settings.cors_origins else app


def _two_seconds_of(per_minute: int) -> Limit:
    """Give the same rate with a burst of two seconds: a minute's burst would be a flood before anything is shed."""
    return Limit(max(per_minute // 30, 1), 2)


def _proofs(
    settings: ModelSettings, keys: KeySet | RemoteKeys, revocations: Revocations | None, clock: Callable[[], float]
) -> KeyProofs | None:
    if revocations is None or not isinstance(keys, RemoteKeys):
        return None
    name = verifier_id(settings.model_port, worker_slot())
    return KeyProofs(keys, revocations, issuer=settings.issuer, name=name, clock=clock)


def _hot_routes(attributes: Attributes, bearer: Bearer, till: Till, pool: WorkPool) -> dict[tuple[str, str], HotRoute]:
    """Exact addresses: for speed, and because a stream may take longer than the router lets an answer take."""
    template = "/v1/attributes/{id}"
    hot: dict[tuple[str, str], HotRoute] = {}
    for attribute in attributes.values():
        address = f"/v1/attributes/{attribute.id}"
        explain = attribute_endpoints.explanation(attribute, bearer, till, pool)
        many = batch(attribute, bearer, till, pool)
        hot["POST", f"{address}/predict"] = attribute_endpoints.predict(attribute, bearer, till, f"{template}/predict")
        hot["POST", f"{address}/predict/batch"] = HotRoute(many, f"{template}/predict/batch")
        hot["POST", f"{address}/explain"] = HotRoute(explain, f"{template}/explain")
    return hot


def _routes(
    settings: ModelSettings,
    attributes: Attributes,
    bearer: Bearer,
    till: Till,
    pool: WorkPool,
    *,
    standing: "_Standing",
) -> list[Route]:
    api = openapi.document(settings.resource, settings.issuer, attributes)
    protected_resource = discovery.protected_resource(settings.resource, settings.issuer, attributes)
    shown = {
        "/v1/attributes": Resource(bearer, GET=attribute_endpoints.list_attributes(bearer, attributes)),
        "/v1/attributes/{id}": Resource(bearer, GET=attribute_endpoints.show_attribute(bearer, attributes)),
        "/v1/profile": Resource(bearer, POST=profile(bearer, attributes, till, pool)),
        "/health/live": Resource(GET=discovery.live),
        "/health/ready": Resource(GET=discovery.ready(standing.missing, standing.feed)),
        "/metrics": Resource(GET=discovery.metrics(settings.metrics_networks)),
        "/openapi.json": Resource(GET=documentation.openapi_json(api)),
        "/docs": Resource(GET=documentation.docs_page(api)),
    }
    # Loaded attributes are answered by their exact address before; what arrives here is none of them.
    for action in ("predict", "predict/batch", "explain"):
        shown[f"/v1/attributes/{{id}}/{action}"] = Resource(bearer, POST=nothing_here)
    for path in discovery.document_paths(settings.resource):
        shown[path] = Resource(GET=protected_resource)
    return [Route(path, endpoint) for path, endpoint in shown.items()]


@dataclass(frozen=True, slots=True)
class _Standing:
    """What the readiness answer is made of."""

    attributes: Attributes
    keys: KeySet | RemoteKeys
    revocations: Revocations | None

    def missing(self, scope: Scope) -> list[str]:
        lacking = [] if self.attributes else ["no attribute is loaded"]
        if isinstance(self.keys, RemoteKeys) and not self.keys.usable:
            lacking.append("the issuer's keys were not fetched yet")
        if self.revocations is not None and self.revocations.freshness is Freshness.REFUSE:
            known, state = seconds(self.revocations.staleness_s), self.revocations.state
            age = "nothing is known" if known is None else f"what is known is {known} s old"
            lacking.append(f"{age} about revocations (the feed is {state})")
        if scope.get("state", {}).get(DRAINING):
            lacking.append("the server is stopping")
        return lacking

    def feed(self) -> dict[str, object]:
        if self.revocations is None:
            return {"state": "off"}
        return {"state": self.revocations.state, "staleness_s": seconds(self.revocations.staleness_s)}


@dataclass(frozen=True, slots=True)
class _Running:
    """What runs beside the requests."""

    settings: ModelSettings
    pool: WorkPool
    keys: KeySet | RemoteKeys
    revocations: Revocations | None
    proofs: KeyProofs | None
    charges: Charges

    @contextlib.asynccontextmanager
    async def __call__(self, _app: object) -> AsyncIterator[None]:
        self.pool.start()
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self.pool.close)
            waits = []
            if isinstance(self.keys, RemoteKeys):
                _beside(stack, self.keys.run())
                waits.append(self.keys.wait_for_keys(FIRST_WAIT_S))
            if self.revocations is not None:
                self._follow(self.revocations, stack)
                waits.append(self.revocations.wait_until_known(FIRST_WAIT_S))
            await asyncio.gather(*waits)
            await stack.enter_async_context(self.charges)
            yield

    def _follow(self, revocations: Revocations, stack: contextlib.AsyncExitStack) -> None:
        link = StoreLink(self.settings)
        _beside(stack, link.run())
        _beside(stack, revocations.run(link))
        if self.proofs is not None:
            stack.push_async_callback(self.proofs.leave, link)
            _beside(stack, self.proofs.run(link))


def _beside(stack: contextlib.AsyncExitStack, work: Coroutine[object, object, None]) -> None:
    """Run a task until the stack is unwound."""
    stack.push_async_callback(background.stop, [background.start(work)])


def _ready_thread(attributes: Attributes) -> None:
    for attribute in attributes.values():
        attribute.model.ready_thread()


def _with_cors(app: ASGIApp, origins: tuple[str, ...]) -> ASGIApp:
    from starlette.middleware.cors import CORSMiddleware  # noqa: PLC0415 - most servers serve no browsers

    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=["GET", "POST"],
        allow_headers=["authorization", "content-type"],
        expose_headers=["x-request-id", "www-authenticate", "retry-after", "ratelimit", "ratelimit-policy"],
        max_age=600,
    )
