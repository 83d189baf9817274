"""A throw-away installation: temporary var and keys folders, free ports, the embedded store, both servers.

Everything it starts ends with it, and its folder goes with it. Signing keys, clients and tokens are made for the run.
"""

import asyncio
import contextlib
import functools
import json
import os
import secrets
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

from auth_server.keyring.folder import KeysFolder
from auth_server.keyring.policy import ring_policy
from auth_server.keyring.signer import Signer
from auth_server.oauth.registration import ClientRequest, register
from auth_server.settings import AuthSettings
from auth_server.stores.client_secrets import load_pepper
from auth_server.stores.clients import Clients
from bench.children import Child, child, free_port, wait_ready
from bench.machine import on_core
from shared.embedded_store import EmbeddedStore
from shared.store import connect

ROOT = Path(__file__).parents[1]
READY = "/health/ready"
TOKEN_LIFE_S = 3600
N_CLIENTS = 20
SCOPE = "predict:* explain:*"


def quiet_environment() -> dict[str, str]:
    """Our environment without this project's settings, for children that may keep compiled bytecode."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FLEX_", "PYTHON", "BENCH_"))}
    return kept | {"PYTHONPATH": str(ROOT), "FLEX_PARENT_PID": str(os.getpid())}


@dataclass(frozen=True, slots=True)
class Credentials:
    """One client of the run."""

    client_id: str
    client_secret: str


@dataclass(frozen=True, slots=True)
class Instance:
    """Where the installation is and how its processes are told. ``folder`` holds everything it writes."""

    folder: Path
    auth_port: int
    model_port: int
    environ: Mapping[str, str]

    @property
    def issuer(self) -> str:
        """``iss`` of its tokens."""
        return f"http://127.0.0.1:{self.auth_port}"

    @property
    def resource(self) -> str:
        """``aud`` of its tokens."""
        return f"http://127.0.0.1:{self.model_port}"

    @property
    def settings(self) -> AuthSettings:
        """Its settings as the auth server reads them."""
        return AuthSettings.read(self.environ)

    def environ_with(self, **changed: str) -> dict[str, str]:
        """Environment of one more process of this installation."""
        return {**self.environ, **changed}

    def run(self, name: str, module: str, *, core: int, **changed: str) -> contextlib.AbstractContextManager[Child]:
        """Start one of its servers; what it prints goes to a file of its folder."""
        command = [sys.executable, "-m", module]
        return child(
            name,
            command,
            core=core,
            environ=self.environ_with(**changed),
            log=self.folder / f"{name}.log",
            cwd=self.folder,
        )


def prepare(folder: Path) -> Instance:
    """Lay out an installation in an empty folder; nothing runs yet."""
    auth_port, model_port = free_port(), free_port()
    settings = {
        "FLEX_ENV": "development",
        "FLEX_AUTH_PORT": str(auth_port),
        "FLEX_MODEL_PORT": str(model_port),
        "FLEX_ISSUER": f"http://127.0.0.1:{auth_port}",
        "FLEX_RESOURCE": f"http://127.0.0.1:{model_port}",
        "FLEX_VAR_DIR": str(folder / "var"),
        "FLEX_KEYS_DIR": str(folder / "keys"),
        "FLEX_MODELS_DIR": str(ROOT / "models"),
        "FLEX_ACCESS_TOKEN_TTL_S": str(TOKEN_LIFE_S),
        "FLEX_RATE_LIMIT_PER_HOUR": "100000000",
        # Bytecode stays between starts, as on any real machine, but not in the source folders.
        "PYTHONPYCACHEPREFIX": str(folder / "bytecode"),
    }
    return Instance(folder, auth_port, model_port, quiet_environment() | settings)


async def make_clients(instance: Instance, count: int = N_CLIENTS) -> list[Credentials]:
    """Register clients straight in the store; their secrets exist only here."""
    settings = instance.settings
    pepper = load_pepper(settings.keys_dir)
    store = connect(settings)
    try:
        made = [register(ClientRequest(name=f"bench {n}", scope=SCOPE), pepper, time.time()) for n in range(count)]
        for one in made:
            await Clients(store).create(one.client)
    finally:
        await store.aclose()
    return [Credentials(one.client.client_id, one.secret.reveal()) for one in made]


def fetch_token(instance: Instance, request: bytes) -> str:
    """Send one spelt token request over a connection of its own and give the token. AssertionError unless 200."""
    head, _, body = request.partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
    connection = HTTPConnection("127.0.0.1", instance.auth_port, timeout=10)
    with contextlib.closing(connection):
        connection.request("POST", "/oauth2/token", body, headers)
        answer = connection.getresponse()
        content = answer.read()
    assert answer.status == 200, f"the token endpoint answered {answer.status}: {content[:200]!r}"
    token: str = json.loads(content)["access_token"]
    return token


def more_tokens(instance: Instance, claims: Mapping[str, object], count: int) -> Iterator[str]:
    """Sign further tokens like one that the issuer made, each with its own ``jti``: 0.4 ms each."""
    settings = instance.settings
    folder = KeysFolder(settings.keys_dir)
    signer = Signer.open(folder, ring_policy(settings), issuer=settings.issuer)
    for _ in range(count):
        yield signer.sign({**claims, "jti": secrets.token_urlsafe(16)})


@contextlib.contextmanager
def running(folder: Path, *, server_core: int, other_core: int) -> Iterator[tuple[Instance, Child, Child]]:
    """Run an installation while the block runs; gives it with its auth server and its model server, both ready."""
    instance = prepare(folder)
    with contextlib.ExitStack() as stack:
        with on_core(other_core):
            stack.enter_context(EmbeddedStore(instance.settings.var_dir))
        start = functools.partial(_start, instance, core=server_core)
        # The first start compiles all bytecode, which costs time and memory that later ones do not take.
        with start("auth"), start("model"):
            pass
        yield instance, stack.enter_context(start("auth")), stack.enter_context(start("model"))


@contextlib.contextmanager
def _start(instance: Instance, name: str, *, core: int) -> Iterator[Child]:
    port = {"auth": instance.auth_port, "model": instance.model_port}[name]
    with instance.run(name, f"{name}_server", core=core) as process:
        wait_ready(process, port, READY)
        yield process


def clients_of(instance: Instance) -> list[Credentials]:
    """Register the run's clients (blocking)."""
    return asyncio.run(make_clients(instance))


def make_account(instance: Instance) -> Credentials:
    """Register one client more (blocking)."""
    return asyncio.run(make_clients(instance, 1))[0]
