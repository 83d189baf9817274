"""The floods from start to end: a model server, an issuer that counts, good calls beside each flood."""

import asyncio
import contextlib
import math
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from auth_server.keyring.folder import KeysFolder
from auth_server.keyring.policy import ring_policy
from auth_server.keyring.signer import Signer
from auth_server.settings import AuthSettings
from bench.children import Child, child, free_port, wait_ready
from bench.floods.bad_tokens import KINDS
from bench.floods.counting_issuer import CountingIssuer
from bench.floods.flooder import Flooded
from bench.instance import READY, ROOT, quiet_environment
from bench.machine import memory_mib
from bench.soak.callers import ATTRIBUTE, PATH, SCOPE
from bench.soak.wire import Answer, CallBroken, Pool
from bench.spread import percentile
from bench.traffic import attributes, json_request, record, rows

RESOURCE = "http://model.flood.invalid"
SOURCE = "127.99.7.1"  # another network than the good callers': limits before authentication count by network
GOOD_EVERY_S = 0.01
IDLE_S = 3.0
FETCH_EVERY_S = 30.0
MAX_GROWTH_MIB = 8.0
ALLOWED = frozenset({"401", "429", "503"})
WARM_UP = 2_000
Tell = Callable[[str], None]


class Flood(msgspec.Struct, frozen=True):
    """One flood: what came back, what the good callers noticed, and what the server needed."""

    kind: str
    n: int
    seconds: float
    statuses: dict[str, int]
    broken: int
    good_p50_ms: float
    good_p99_ms: float
    good_failed: dict[str, int]
    fetches: int
    rss_mib: float

    @property
    def wrong(self) -> dict[str, int]:
        """Answers that must not be."""
        return {status: count for status, count in self.statuses.items() if status not in ALLOWED}


class Floods(msgspec.Struct, frozen=True):
    """All floods; ``idle_*`` without any, ``rss_mib`` before the first.

    ``fetches`` of the keys and ``seconds`` from the first bad token to the last, warming up included.
    """

    idle_p50_ms: float
    idle_p99_ms: float
    rss_mib: float
    fetches: int
    seconds: float
    floods: list[Flood]

    @property
    def allowed_fetches(self) -> int:
        """How often the keys may have been fetched in this time."""
        return 1 + math.floor(self.seconds / FETCH_EVERY_S)


@dataclass(frozen=True, slots=True)
class _Scene:
    port: int
    server: Child
    issuer: CountingIssuer
    token: str
    pool: Pool

    @property
    def rss_mib(self) -> float:
        return memory_mib(self.server.pid)[0]


async def run(count: int, tell: Tell) -> Floods:
    """Send ``count`` unknown kids, then the other floods for about as long. Raises NotReadyError."""
    async with _scene() as scene:
        began, n_fetches = time.monotonic(), len(scene.issuer.fetches)
        for kind in KINDS:  # fills whatever is bounded, so that growth means growth
            await _flood(scene, kind, WARM_UP, 10.0)
        before_mib = scene.rss_mib
        tell("good calls without a flood")
        idle, _ = await _good_calls(scene, asyncio.create_task(asyncio.sleep(IDLE_S)))
        floods = []
        for kind in KINDS:
            tell(f"flood of {kind}")
            floods.append(await _measured(scene, kind, count))
        return Floods(
            idle_p50_ms=percentile(idle, 0.5),
            idle_p99_ms=percentile(idle, 0.99),
            rss_mib=before_mib,
            fetches=len(scene.issuer.fetches) - n_fetches,
            seconds=round(time.monotonic() - began, 1),
            floods=floods,
        )


async def _measured(scene: _Scene, kind: str, count: int) -> Flood:
    n_fetches, longest_s = len(scene.issuer.fetches), max(5.0, count / 500)
    flood = asyncio.create_task(_flood(scene, kind, count, longest_s))
    latencies, failed = await _good_calls(scene, flood)
    done = await flood
    return Flood(
        kind=kind,
        n=done.n,
        seconds=done.seconds,
        statuses=done.statuses,
        broken=done.broken,
        good_p50_ms=percentile(latencies, 0.5),
        good_p99_ms=percentile(latencies, 0.99),
        good_failed=failed,
        fetches=len(scene.issuer.fetches) - n_fetches,
        rss_mib=scene.rss_mib,
    )


async def _flood(scene: _Scene, kind: str, count: int, seconds: float) -> Flooded:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "bench.floods.flooder", str(scene.port), SOURCE, kind, str(count), str(seconds)),
        env=quiet_environment(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(seconds + 60):
            printed, _ = await process.communicate(f"{scene.token}\n{PATH}\n".encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return msgspec.json.decode(printed, type=Flooded)


async def _good_calls(scene: _Scene, until: "asyncio.Task[object]") -> tuple[list[float], dict[str, int]]:
    """Call at a fixed rate until the task ends; latencies in milliseconds from when each call was due."""
    (attribute,) = [one for one in attributes(ROOT / "models") if one.id == ATTRIBUTE]
    features = rows(attribute.columns, 97, seed=5)
    latencies: list[float] = []
    failed: Counter[str] = Counter()

    async def call(due: float, number: int) -> None:
        request = json_request(PATH, scene.token, record(number, features[number % len(features)]))
        try:
            answer: Answer | None = await scene.pool.ask(request)
        except CallBroken:
            answer = None
        if answer is None or answer.status != 200:
            failed[str(answer.status) if answer else "broken"] += 1
        latencies.append((time.monotonic() - due) * 1000)

    calls: list[asyncio.Task[None]] = []
    began = time.monotonic()
    while not until.done():
        due = began + len(calls) * GOOD_EVERY_S
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        calls.append(asyncio.create_task(call(due, len(calls))))
    await asyncio.gather(*calls)
    return latencies, dict(failed)


@contextlib.asynccontextmanager
async def _scene() -> AsyncIterator[_Scene]:
    issuer, port = CountingIssuer(free_port()), free_port()
    with tempfile.TemporaryDirectory(prefix="flex-floods-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        environ = _environ(folder, port, issuer.url)
        issuer.jwks, token = _keys_and_token(AuthSettings.read(environ))
        await issuer.start()
        stack.callback(issuer.stop)
        command, log = [sys.executable, "-m", "model_server"], folder / "model.log"
        server = stack.enter_context(child("model", command, environ=environ, log=log, cwd=folder))
        await asyncio.to_thread(wait_ready, server, port, READY)
        pool = Pool(port)
        stack.callback(pool.close)
        yield _Scene(port, server, issuer, token, pool)


def _environ(folder: Path, port: int, issuer: str) -> dict[str, str]:
    return quiet_environment() | {
        "FLEX_ENV": "development",
        "FLEX_MODEL_PORT": str(port),
        "FLEX_ISSUER": issuer,
        "FLEX_RESOURCE": RESOURCE,
        "FLEX_VAR_DIR": str(folder / "var"),
        "FLEX_KEYS_DIR": str(folder / "keys"),
        "FLEX_MODELS_DIR": str(ROOT / "models"),
        "FLEX_JWKS_MAX_AGE_S": "3600",
        "FLEX_REQUIRE_FRESH_REVOCATIONS_S": "0",
        "PYTHONPYCACHEPREFIX": str(folder / "bytecode"),
    }


def _keys_and_token(settings: AuthSettings) -> tuple[bytes, str]:
    folder, policy, now = KeysFolder(settings.keys_dir), ring_policy(settings), int(time.time())
    folder.ensure(now, policy)
    signer = Signer.open(folder, policy, issuer=settings.issuer)
    claims = {
        "iss": settings.issuer,
        "sub": "flood",
        "aud": RESOURCE,
        "client_id": "flood",
        "iat": now,
        "exp": now + 3000,
        "jti": secrets.token_urlsafe(16),
        "scope": SCOPE,
    }
    return signer.jwks().body, signer.sign(claims)
