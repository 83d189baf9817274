"""What is looked at beside the rounds: cheap endpoints under load, memory, starts, parts of a request in process."""

import contextlib
import os
import sys
import time
from http.client import HTTPConnection
from urllib.parse import urlencode

import msgspec

from bench import machine
from bench.children import free_port, wait_ready
from bench.generator import Load, Running, run
from bench.instance import READY, Credentials, make_account
from bench.micro import MicroPlan
from bench.plan import Results
from bench.stage import Stage

TOKEN_CONNECTIONS = 16
N_REVOKED = 200


def measure_cheap(stage: Stage, results: Results, *, seconds: int, repeats: int) -> None:
    """Ask the cheap endpoints over one connection while many others ask for tokens."""
    for _ in range(repeats):
        for name, title in (("jwks", "JWKS"), ("health", "health")):
            _measure_beside_tokens(stage, results, name, title, seconds)
    os.truncate(stage.servers["auth"].log, 0)


def _measure_beside_tokens(stage: Stage, results: Results, name: str, title: str, seconds: int) -> None:
    auth = stage.ports["auth"]
    flood = Running(Load(auth, TOKEN_CONNECTIONS, seconds + 1, stage.files["token"]), stage.load_core)
    try:
        time.sleep(0.5)
        cheap = run(Load(auth, 1, seconds, stage.files[name]), stage.load_core)
    finally:
        tokens = flood.finish()
    results.note_figure(f"cheap: {title} p50, ms", cheap.p50_us / 1000)
    results.note_figure(f"cheap: {title} p99, ms", cheap.p99_us / 1000)
    results.note_figure("cheap: tokens issued meanwhile, per second", tokens.rate)


def note_memory(stage: Stage, results: Results, when: str) -> None:
    """Note what the servers hold in memory now."""
    for name in ("model", "auth"):
        # One worker is one process; were there more, the largest would count.
        resident, proportional = max(machine.memory_mib(pid) for pid in machine.family(stage.servers[name].pid))
        results.note_figure(f"{name} server: RSS {when}, MiB", resident)
        results.note_figure(f"{name} server: PSS {when}, MiB", proportional)


def measure_starts(stage: Stage, results: Results, *, repeats: int) -> None:
    """Start further processes of both servers, one after the other; bytecode is there from the first start."""
    for _ in range(repeats):
        for name in ("model", "auth"):
            port = free_port()
            changed = {f"FLEX_{name.upper()}_PORT": str(port)}
            with stage.flex.run(f"{name}-start", f"{name}_server", core=stage.server_core, **changed) as process:
                results.note_figure(f"{name} server: exec to ready, s", wait_ready(process, port, READY))


def measure_parts(stage: Stage, results: Results) -> None:
    """Time the parts of a request in a process of their own on the servers' core."""
    flex = stage.flex
    plan = MicroPlan(
        stage.attribute.id,
        flex.environ["FLEX_MODELS_DIR"],
        flex.issuer,
        flex.resource,
        stage.jwks(),
        stage.tokens,
    )
    plan_file = flex.folder / "micro.json"
    plan_file.write_bytes(msgspec.json.encode(plan))
    output = stage.output_of([sys.executable, "-m", "bench.micro", str(plan_file)])
    for name, values in msgspec.json.decode(output, type=dict[str, list[float]]).items():
        for value in values:
            results.note_figure(f"micro: {name}", value)


def measure_control(stage: Stage, results: Results, *, n_live: int, repeats: int) -> None:
    """Revoke tokens at the auth server and call until the model server refuses them; then what :mod:`bench.control`
    measures.
    """
    owner = make_account(stage.flex)
    for _ in range(repeats):
        took = sorted(_revoked_to_refused_ms(stage, owner) for _ in range(N_REVOKED))
        results.note_figure("control: revocation sent to first refusal p50, ms", took[len(took) // 2])
        results.note_figure("control: revocation sent to first refusal p99, ms", took[len(took) * 99 // 100])
    output = stage.output_of([sys.executable, "-m", "bench.control", str(n_live)])
    for name, values in msgspec.json.decode(output, type=dict[str, list[float]]).items():
        for value in values:
            results.note_figure(name, value)


def _revoked_to_refused_ms(stage: Stage, owner: Credentials) -> float:
    """One token of its own: issued, good, revoked, and called over and over until it is refused."""
    secret = {"client_id": owner.client_id, "client_secret": owner.client_secret}
    with (
        contextlib.closing(HTTPConnection("127.0.0.1", stage.flex.auth_port, timeout=10)) as auth,
        contextlib.closing(HTTPConnection("127.0.0.1", stage.flex.model_port, timeout=10)) as model,
    ):
        answer = msgspec.json.decode(_posted(auth, "/oauth2/token", {"grant_type": "client_credentials", **secret}))
        bearer = {"Authorization": f"Bearer {answer['access_token']}"}
        assert _status(model, bearer) == 200
        started = time.perf_counter()
        _posted(auth, "/oauth2/revoke", {"token": answer["access_token"], **secret})
        while _status(model, bearer) == 200:
            pass
        return (time.perf_counter() - started) * 1000


def _posted(connection: HTTPConnection, path: str, form: dict[str, str]) -> bytes:
    connection.request("POST", path, urlencode(form), {"Content-Type": "application/x-www-form-urlencoded"})
    answer = connection.getresponse()
    assert answer.status == 200, f"{path} answered {answer.status}"
    return answer.read()


def _status(connection: HTTPConnection, headers: dict[str, str]) -> int:
    connection.request("GET", "/v1/attributes", headers=headers)
    answer = connection.getresponse()
    answer.read()
    return answer.status
