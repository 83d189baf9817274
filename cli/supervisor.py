"""Runs the store, the auth server and the model server: start in order, restart after a crash, stop in reverse order.

The store is not a child: it outlives a killed supervisor, and the next one attaches to it. The servers are children
and get SIGTERM from the kernel when the supervisor dies, however it dies.
"""

import asyncio
import fcntl
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Literal

from shared import events, store
from shared.embedded_store import EmbeddedStore, EmbeddedStoreError
from shared.errors import AppError
from shared.events import Event
from shared.listener import PortBusyError, listen
from shared.processes import Crash, KeptProcess, StartFailedError
from shared.settings import Settings

Part = Literal["store", "auth", "model"]
_PROBE_TIMEOUT_S = 2.0


class SuperviseError(Exception):
    """Why nothing was started, or why it was given up; one sentence."""


@dataclass(frozen=True, slots=True)
class ServerPart:
    """A server as the supervisor sees it."""

    name: str
    module: str
    host: str
    port: int
    port_setting: str

    @property
    def url(self) -> str:
        """Address at which this machine reaches it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - not bound here
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


def server_part(settings: Settings, part: Literal["auth", "model"]) -> ServerPart:
    """Describe the auth or the model server of these settings."""
    if part == "auth":
        return ServerPart("auth", "auth_server", settings.auth_host, settings.auth_port, "FLEX_AUTH_PORT")
    return ServerPart("model", "model_server", settings.model_host, settings.model_port, "FLEX_MODEL_PORT")


async def supervise(
    settings: Settings, parts: Sequence[Part], *, on_ready: Callable[[], Awaitable[None]] | None = None
) -> None:
    """Run ``parts`` until SIGTERM, SIGINT or the end of the terminal, then stop them in reverse order.

    ``on_ready`` runs when all of them are ready. Raises SuperviseError when one can't be started or keeps crashing
    (the others are stopped first).
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    servers = [server_part(settings, part) for part in parts if part != "store"]
    with _only_supervisor(settings, parts):
        for server in servers:
            _require_free_port(server)
        await _Run(settings, servers, stop, with_store="store" in parts).until_stopped(on_ready)


class _Run:
    """One life of the supervised set."""

    def __init__(
        self, settings: Settings, servers: Sequence[ServerPart], stop: asyncio.Event, *, with_store: bool
    ) -> None:
        self._settings = settings
        self._servers = servers
        self._stop = stop
        self._with_store = with_store
        self._running: list[KeptProcess] = []
        self._keepers: list[asyncio.Task[int]] = []
        self._store_keeper: asyncio.Task[None] | None = None

    async def until_stopped(self, on_ready: Callable[[], Awaitable[None]] | None) -> None:
        embedded = EmbeddedStore(self._settings.var_dir) if self._with_store and not self._settings.redis_url else None
        try:
            starting = asyncio.create_task(self._start(embedded, on_ready))
            stopped = asyncio.create_task(self._stop.wait())
            await asyncio.wait([starting, stopped], return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                starting.cancel()
                await asyncio.gather(starting, return_exceptions=True)
            else:
                await starting
                await asyncio.wait([stopped, *self._keepers], return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            gave_up = [kept.name for kept, task in zip(self._running, self._keepers, strict=False) if task.done()]
            if gave_up and not self._stop.is_set():
                raise SuperviseError(f"The {gave_up[0]} ended again and again; its last lines above say why.")
        finally:
            await self._stop_all(embedded)

    async def _start(self, embedded: EmbeddedStore | None, on_ready: Callable[[], Awaitable[None]] | None) -> None:
        try:
            if self._with_store:
                await self._start_store(embedded)
            for server in self._servers:
                await self._start_server(server)
        except (EmbeddedStoreError, StartFailedError, store.StoreRefusedError) as problem:
            raise SuperviseError(str(problem)) from None
        except AppError:
            raise SuperviseError("The store at FLEX_REDIS_URL does not answer.") from None
        if on_ready is not None:
            await on_ready()

    async def _start_store(self, embedded: EmbeddedStore | None) -> None:
        if embedded is not None:
            await store.attach(embedded)
            self._store_keeper = asyncio.create_task(store.keep(embedded))
        client = store.connect(self._settings)
        try:
            await store.check(client)
        finally:
            await client.aclose()

    async def _start_server(self, server: ServerPart) -> None:
        kept = KeptProcess(
            f"{server.name} server", [sys.executable, "-m", server.module], lambda: is_ready(server), _report_crash
        )
        self._running.append(kept)
        await kept.start()
        self._keepers.append(asyncio.create_task(kept.keep()))

    async def _stop_all(self, embedded: EmbeddedStore | None) -> None:
        for kept in reversed(self._running):
            await kept.stop()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        if self._store_keeper is not None:
            self._store_keeper.cancel()
            await asyncio.gather(self._store_keeper, return_exceptions=True)
        if embedded is not None:
            await asyncio.to_thread(embedded.release)


async def is_ready(server: ServerPart) -> bool:
    """Whether ``GET /health/ready`` of a server answers 200."""
    host = server.url.removeprefix("http://").rpartition(":")[0].strip("[]")
    try:
        async with asyncio.timeout(_PROBE_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(host, server.port)
            try:
                writer.write(b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                return b" 200 " in await reader.readline()
            finally:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError):
        return False


def _report_crash(crash: Crash) -> None:
    events.emit(Event.PROCESS_CRASHED, name=crash.name, exit_code=crash.exit_code, restart_in_s=crash.wait_s)


def _require_free_port(server: ServerPart) -> None:
    try:
        listen(server.name, server.host, server.port, server.port_setting).close()
    except PortBusyError as problem:
        raise SuperviseError(str(problem)) from None


@contextmanager
def _only_supervisor(settings: Settings, parts: Sequence[Part]) -> Iterator[None]:
    """Hold the var folder's supervisor lock, which the kernel drops with this process."""
    if len(parts) < 3:  # a part alone is told apart by its port
        yield
        return
    settings.var_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    fd = os.open(settings.var_dir / "supervisor.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SuperviseError(
                f"Another 'flex serve all' runs on {settings.var_dir}: stop it first, or set FLEX_VAR_DIR."
            ) from None
        yield
    finally:
        os.close(fd)
