"""Connections to the store: an embedded Valkey, or any Redis 7+ or Valkey that ``FLEX_REDIS_URL`` names.

URL forms: ``redis://``, ``rediss://``, ``unix://``, ``redis+sentinel://[user:password@]host:port,…/service/db`` and
``redis+cluster://…`` (``rediss+…`` for TLS). redis-py's own defaults (5 s, ten retries) held one call on a frozen
server for more than 40 s; so no call is repeated here, and each ends within ``SOCKET_TIMEOUT_S``.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from subprocess import SubprocessError
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import redis
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry as AsyncRetry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from shared import background, events
from shared.embedded_store import EmbeddedStore, EmbeddedStoreError
from shared.errors import AppError
from shared.events import Event
from shared.settings import Settings

SOCKET_TIMEOUT_S = 2.0
CONNECT_TIMEOUT_S = 1.0
_IDLE_CHECK_S = 30
_MIN_VERSION = 7
_KEEP_INTERVAL_S = 0.25
_CLOSED_HANDLER = "the handler is closed"  # uvloop's word for a write to a connection that was just reset


class StoreRefusedError(Exception):
    """A store that answers but must not be used; the text says what to change on it."""


def store_url(settings: Settings) -> str:
    """Give the URL in use: the setting, or the embedded store's socket. May hold a password."""
    return settings.redis_url.reveal() or f"unix://{EmbeddedStore(settings.var_dir).socket_path}"


def connect(settings: Settings, *, timeout_s: float = SOCKET_TIMEOUT_S) -> Redis:
    """Make a client of the configured store (bytes in, bytes out); connects on first use. Close it with ``aclose``.

    ``timeout_s`` bounds the wait for an answer; a client that blocks on purpose must set it above the time it blocks.
    Raises StoreRefusedError for a URL of no known form. Start or attach the embedded store first (:func:`open_store`
    does both).
    """
    url = store_url(settings)
    scheme, _, rest = url.partition("://")
    form = scheme.partition("+")[2]
    options = _options(scheme) | {"retry": AsyncRetry(NoBackoff(), 0), "socket_timeout": timeout_s}
    try:
        if form == "sentinel":
            return _sentinel_master(url, options)
        if form == "cluster":
            tls = "rediss" if scheme.startswith("rediss") else "redis"
            return cast("Redis", RedisCluster.from_url(f"{tls}://{rest}", **options))
        return Redis.from_url(url, **options)
    except ValueError:
        raise StoreRefusedError(
            "FLEX_REDIS_URL is not a store address: use redis://, rediss://, unix://, redis+sentinel:// or "
            "redis+cluster://."
        ) from None


def connect_sync(settings: Settings) -> redis.Redis:
    """Make a blocking client, for the command line; a plain, TLS or unix address only."""
    url = store_url(settings)
    try:
        return redis.Redis.from_url(url, **_options(url.partition("://")[0]), retry=Retry(NoBackoff(), 0))
    except ValueError:
        raise StoreRefusedError("This command needs a redis://, rediss:// or unix:// address.") from None


def _options(scheme: str) -> dict[str, Any]:
    options: dict[str, Any] = {"socket_timeout": SOCKET_TIMEOUT_S, "socket_connect_timeout": CONNECT_TIMEOUT_S}
    if scheme != "unix":  # an idle TCP connection may be dead without our knowing
        options["health_check_interval"] = _IDLE_CHECK_S
    return options


def _sentinel_master(url: str, options: Mapping[str, Any]) -> Redis:
    parts = urlsplit(url)
    user, at, hosts = parts.netloc.rpartition("@")
    addresses = [(host, int(port or 26379)) for host, _, port in (item.partition(":") for item in hosts.split(","))]
    service, _, database = parts.path.strip("/").partition("/")
    if not service:
        raise ValueError("no service name")
    name, _, password = user.partition(":")
    secure: dict[str, Any] = {"ssl": True} if parts.scheme.startswith("rediss") else {}
    login = {"username": unquote(name) or None, "password": unquote(password)} if at else {}
    quick = {option: options[option] for option in ("socket_timeout", "socket_connect_timeout")}
    sentinel = Sentinel(addresses, sentinel_kwargs=quick | secure)  # type: ignore[no-untyped-call]
    master: dict[str, Any] = {**options, **login, **secure, "db": int(database or 0)}
    return cast("Redis", sentinel.master_for(service, **master))


@contextmanager
def store_errors() -> Iterator[None]:
    """Turn whatever the client library raises into AppError ``store_unavailable`` (retry after 1 s)."""
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        raise AppError("store_unavailable", retry_after_s=1, reason=f"store_{type(error).__name__}") from None
    except RuntimeError as error:
        if not str(error).endswith(_CLOSED_HANDLER):
            raise
        raise AppError("store_unavailable", retry_after_s=1, reason="store_connection_closed") from None


async def is_ready(client: Redis) -> bool:
    """Whether the store answers a ping in time."""
    try:
        with store_errors():
            return bool(await cast("Any", client.ping()))
    except AppError:
        return False


def refusal(server: Mapping[str, Any]) -> str:
    """Say why a server that gives this ``INFO`` must not be used; empty if it may."""
    version, policy = str(server.get("redis_version", "0")), server.get("maxmemory_policy", "noeviction")
    if int(version.partition(".")[0]) < _MIN_VERSION:
        return f"The store is version {version}; Redis 7 or newer, or Valkey, is needed."
    if policy != "noeviction":
        return (
            f"The store's maxmemory-policy is {policy}: it would forget clients and revocations under memory "
            "pressure. Set it to noeviction."
        )
    return ""


async def check(client: Redis) -> None:
    """Look once whether this store may be trusted with state.

    Raises StoreRefusedError for a version below 7 or an eviction policy, AppError store_unavailable when it does not
    answer. No append-only file is an event, not a refusal: a replica set may have its own durability.
    """
    with store_errors():
        reply = await client.info()
    nodes = [value for value in reply.values() if isinstance(value, dict) and "redis_version" in value] or [reply]
    for node in nodes:  # a cluster answers with one INFO a node
        if reason := refusal(node):
            raise StoreRefusedError(reason)
        if not node.get("aof_enabled", 1):
            events.emit(Event.INSECURE_OPTION, option="store_without_append_only_file")


async def close(client: Redis) -> None:
    """Close a client with the connections to its sentinels, if it has some."""
    await client.aclose()
    for sentinel in getattr(getattr(client, "connection_pool", None), "sentinel_manager", _NoSentinels).sentinels:
        await sentinel.aclose()


class _NoSentinels:
    sentinels: Sequence[Redis] = ()


@asynccontextmanager
async def open_store(settings: Settings) -> AsyncIterator[Redis]:
    """Give a checked client for as long as the context lasts.

    Holds the embedded store meanwhile, if that is the one in use. Raises EmbeddedStoreError, StoreRefusedError or
    AppError store_unavailable.
    """
    async with embedded_store(settings):
        client = connect(settings)
        try:
            await check(client)
            yield client
        finally:
            await close(client)


@asynccontextmanager
async def embedded_store(settings: Settings, *, required: bool = True) -> AsyncIterator[None]:
    """Hold the embedded store, if that is the one in use: the one way to do so in a server.

    Attaches to it or starts it, starts it again whenever it dies, and stops it at the end when nobody else uses it.
    Raises EmbeddedStoreError if it can't run, unless it is not ``required``: then an event says so, and it is tried
    again for as long as the context lasts.
    """
    if settings.redis_url:
        yield
        return
    embedded = EmbeddedStore(settings.var_dir)
    if required:
        await attach(embedded)
    elif problem := await _attach_failed(embedded):
        events.emit(Event.STORE_LOST, kind="embedded", reason=problem)
    keeper = background.start(keep(embedded))
    try:
        yield
    finally:
        await background.stop([keeper])
        await asyncio.to_thread(embedded.release)


async def attach(embedded: EmbeddedStore) -> None:
    """Attach to the embedded store without holding up the event loop; an event says if it had to be started."""
    if await asyncio.to_thread(embedded.attach):
        events.emit(Event.STORE_STARTED, kind="embedded", folder=str(embedded.folder))


async def keep(embedded: EmbeddedStore) -> None:
    """Start the embedded store again whenever it has died, and attach where that has failed, until cancelled.

    A failure is tried again; each outage and each cause of it is one event.
    """
    told: str | None = None
    while True:
        await asyncio.sleep(_KEEP_INTERVAL_S)
        if embedded.is_attached and embedded.is_running():
            told = None
            continue
        if told is None and embedded.is_attached:
            events.emit(Event.STORE_LOST, kind="embedded")
        problem = await _attach_failed(embedded, Event.STORE_RECOVERED)
        if problem:
            if told is not None and problem != told:
                events.emit(Event.STORE_LOST, kind="embedded", reason=problem)
            await asyncio.sleep(1.0)
        told = problem or None


async def _attach_failed(embedded: EmbeddedStore, event: Event = Event.STORE_STARTED) -> str:
    """Attach, and give why that failed; empty if it did not."""
    try:
        if await asyncio.to_thread(embedded.attach):
            events.emit(event, kind="embedded", folder=str(embedded.folder))
    except (EmbeddedStoreError, OSError, SubprocessError) as error:
        return str(error) if isinstance(error, EmbeddedStoreError) else type(error).__name__
    return ""
