"""The installation of one run: an auth server and two hosts of model servers, each with its own way to the store.

Everything lies in one folder and listens on free ports of the loopback; what was started ends with :func:`running`.
"""

import asyncio
import contextlib
import json
import socket
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from auth_server.oauth.registration import ClientRequest, register
from auth_server.settings import AuthSettings
from auth_server.stores.client_secrets import load_pepper
from auth_server.stores.clients import Clients
from bench.children import Child, child, free_port, wait_ready
from bench.instance import READY, ROOT, Credentials, quiet_environment
from bench.machine import family
from bench.soak.proxy import Proxy
from bench.soak.sockets import client_of
from bench.soak.store_process import Store
from shared.store import connect

RESOURCE = "http://model.soak.invalid"
TOKEN_LIFE_S = 60
JWKS_MAX_AGE_S = 1
WORKERS = 2
COMMAND_WITHIN_S = 120.0
AUTH = "auth"
CLOCKS = {"a": 5, "b": -5}
"""The model hosts, and by how many seconds the clock of each is wrong."""
FAKETIME_PLACES = ("/usr/lib/*/faketime/libfaketime.so.1", "/usr/lib/faketime/libfaketime.so.1")


class CommandFailed(Exception):  # noqa: N818 - it says what happened
    """A command of the operator that was refused; the text is its last line."""


@dataclass(frozen=True, slots=True)
class Done:
    """What a command printed: its answer, and what it said to people on standard error."""

    answer: dict[str, object]
    said: str


@dataclass(slots=True)
class Site:
    """Where everything is. ``staleness_limits`` by host: how stale revocations may be there."""

    folder: Path
    auth_port: int
    issuer_port: int
    model_ports: Mapping[str, int]
    store: Store
    faketime: Path | None
    staleness_limits: Mapping[str, int]
    ways: dict[str, Proxy] = field(default_factory=dict)
    processes: dict[str, Child] = field(default_factory=dict)
    issuer_proxy: Proxy = field(init=False)

    def __post_init__(self) -> None:
        self.issuer_proxy = Proxy(self.issuer_port, self.auth_port, self._party)

    @property
    def issuer(self) -> str:
        """``iss`` of its tokens."""
        return f"http://127.0.0.1:{self.issuer_port}"

    @property
    def hosts(self) -> tuple[str, ...]:
        """The model hosts."""
        return tuple(self.model_ports)

    def environ(self, host: str) -> dict[str, str]:
        """Settings of one host's processes; an operator's commands take those of the auth server."""
        settings = {
            "FLEX_ENV": "development",
            "FLEX_AUTH_PORT": str(self.auth_port),
            "FLEX_MODEL_PORT": str(self.model_ports.get(host, self.auth_port)),
            "FLEX_ISSUER": self.issuer,
            "FLEX_RESOURCE": RESOURCE,
            "FLEX_REDIS_URL": f"redis://127.0.0.1:{self.ways[host].port}",
            "FLEX_FEED_KEY_FILE": str(self.folder / "feed.key"),
            "FLEX_VAR_DIR": str(self.folder / host),
            "FLEX_KEYS_DIR": str(self.folder / "keys"),
            "FLEX_MODELS_DIR": str(ROOT / "models"),
            "FLEX_WORKERS": str(WORKERS),
            "FLEX_ACCESS_TOKEN_TTL_S": str(TOKEN_LIFE_S),
            "FLEX_JWKS_MAX_AGE_S": str(JWKS_MAX_AGE_S),
            "FLEX_REQUIRE_FRESH_REVOCATIONS_S": str(self.staleness_limits.get(host, 900)),
            "FLEX_LOG_ACCESS": "0",
            "PYTHONPYCACHEPREFIX": str(self.folder / "bytecode"),
        }
        return quiet_environment() | settings | self._clock(host)

    def _clock(self, host: str) -> dict[str, str]:
        if self.faketime is None or host not in CLOCKS:
            return {}
        wrong = {
            "LD_PRELOAD": str(self.faketime),
            "FAKETIME": f"{CLOCKS[host]:+d}s",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        return wrong | {"FAKETIME_NO_CACHE": "1"}

    def skew_s(self, host: str) -> int:
        """By how much the clock of a host is wrong."""
        return CLOCKS.get(host, 0) if self.faketime is not None else 0

    def pids(self, host: str) -> list[int]:
        """The processes of a host."""
        return family(self.processes[host].pid) if host in self.processes else []

    async def _party(self, port: int) -> str:
        """Whose connection to the issuer this is; empty for anybody but a model host."""
        for host in self.hosts:
            if client_of(self.issuer_port, port, self.pids(host)) is not None:
                return host
        return ""

    async def flex(self, *arguments: str) -> Done:
        """Run a command as an operator beside the auth server would. Raises CommandFailed."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "cli.main", *arguments, "--json"),
            env=self.environ(AUTH),
            cwd=self.folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        said = asyncio.create_task(process.stderr.read())
        try:
            async with asyncio.timeout(COMMAND_WITHIN_S):
                printed = await process.stdout.read()
                await process.wait()
        except TimeoutError:
            raise CommandFailed(f"flex {' '.join(arguments[:2])} did not end") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        words = (await said).decode(errors="replace").strip()
        if process.returncode != 0:
            raise CommandFailed(words.splitlines()[-1] if words else f"exit code {process.returncode}")
        return Done(json.loads(printed), words)

    async def make_clients(self, names: Sequence[str], *, scope: str, life_s: int) -> list[Credentials]:
        """Register clients straight in the store; their secrets exist only here."""
        settings = AuthSettings.read(self.environ(AUTH))
        pepper = load_pepper(settings.keys_dir)
        store = connect(settings)
        requests = [ClientRequest(name=name, scope=scope, token_ttl_s=life_s) for name in names]
        try:
            made = [register(request, pepper, time.time()) for request in requests]
            for one in made:
                await Clients(store).create(one.client)
        finally:
            await store.aclose()
        return [Credentials(one.client.client_id, one.secret.reveal()) for one in made]

    def named(self, text: str) -> str:
        """A text with the verifiers called as the run calls them, ``a/1``, instead of by this machine's name."""
        for host, port in self.model_ports.items():
            text = text.replace(f"{socket.gethostname()}-{port}-", f"{host}/")
        return text

    def logs(self) -> Mapping[str, Path]:
        """What the servers printed."""
        return {name: process.log for name, process in self.processes.items()}


def find_faketime(wanted: str) -> Path | None:
    """The library that sets a process's clock wrong: the one that was named, else an installed one, else none."""
    if wanted:
        return Path(wanted).resolve(strict=True)
    found = [path for pattern in FAKETIME_PLACES for path in Path("/").glob(pattern.lstrip("/"))]
    return found[0] if found else None


@contextlib.asynccontextmanager
async def running(folder: Path, *, faketime: Path | None, staleness_limits: Mapping[str, int]) -> AsyncIterator[Site]:
    """Run an installation while the block runs. Raises NotReadyError or TimeoutError when something does not start."""
    store = Store(folder / "store", free_port())
    ports = {host: free_port() for host in CLOCKS}
    site = Site(folder, free_port(), free_port(), ports, store, faketime, staleness_limits)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(store.kill)
        await store.start()
        site.ways |= {host: Proxy(free_port(), store.port) for host in (AUTH, *ports)}
        for proxy in (*site.ways.values(), site.issuer_proxy):
            stack.push_async_callback(proxy.stop)
            await proxy.start()
        for host in (AUTH, *ports):
            module, port = ("auth_server", site.auth_port) if host == AUTH else ("model_server", ports[host])
            process = stack.enter_context(
                child(
                    host,
                    [sys.executable, "-m", module],
                    environ=site.environ(host),
                    log=folder / f"{host}.log",
                    cwd=folder,
                )
            )
            site.processes[host] = process
            await asyncio.to_thread(wait_ready, process, port, READY)
        yield site
