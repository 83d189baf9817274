"""The stage of a run: every server up, every request spelt, and proof that all give the same scores."""

import contextlib
import json
import struct
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path

from bench import contenders, instance, traffic
from bench.children import Child
from bench.generator import write_requests
from bench.instance import ROOT, Instance
from bench.machine import on_core
from bench.naive_environment import NoNaiveEnvironmentError
from bench.plan import Case, Options
from bench.traffic import Attribute

N_TOKENS = 200
N_SAME = 50
N_BATCHES = 24
SCOPES = ("predict:* explain:*", "predict:*", "predict:{0} explain:{0}", "predict:{0}")


class ScoresDifferError(Exception):
    """Two servers scored one row differently: comparing their speed would mean nothing."""


@dataclass(slots=True)
class Stage:
    """Servers by name with their ports, request files by traffic name, and cold requests that were never used."""

    flex: Instance
    attribute: Attribute
    server_core: int
    load_core: int
    servers: dict[str, Child]
    ports: dict[str, int]
    tokens: list[str]
    files: dict[str, Path] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    cold: Iterator[str] = field(default_factory=lambda: iter(()))
    rows: list[traffic.Row] = field(default_factory=list)
    n_same: int = 0

    def jwks(self) -> str:
        """The key set as the auth server publishes it."""
        with contextlib.closing(HTTPConnection("127.0.0.1", self.flex.auth_port, timeout=10)) as connection:
            connection.request("GET", "/.well-known/jwks.json")
            return connection.getresponse().read().decode()

    def output_of(self, command: Sequence[str]) -> bytes:
        """Run one short process on the servers' core, from the repository, and give what it prints."""
        environ = dict(self.flex.environ)
        with on_core(self.server_core):
            done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=300, env=environ)
        return done.stdout

    def cold_file(self, count: int) -> Path:
        """Spell ``count`` predictions with tokens that no server has seen yet."""
        requests = traffic.predict_requests(
            self.attribute.id, [next(self.cold) for _ in range(count)], self.rows, count
        )
        return write_requests(self.flex.folder / "cold", requests)


@contextlib.contextmanager
def set_up(options: Options, cases: Sequence[Case], server_core: int, load_core: int, folder: Path) -> Iterator[Stage]:
    """Start everything that the cases need, in ``folder``; all of it ends with the block."""
    models = traffic.attributes(ROOT / "models")
    attribute = next((one for one in models if one.id == options.attribute), models[0])
    with contextlib.ExitStack() as stack:
        flex, auth, model = stack.enter_context(instance.running(folder, server_core=server_core, other_core=load_core))
        stage = Stage(
            flex, attribute, server_core, load_core,
            servers={"auth": auth, "model": model}, ports={"auth": flex.auth_port, "model": flex.model_port}, tokens=[],
        )  # fmt: skip
        _spell(stage, models)
        _spell_cold(stage, options, cases)
        _start_contenders(stage, stack, options, cases)
        _check_same_scores(stage)
        yield stage


def _spell(stage: Stage, models: Sequence[Attribute]) -> None:
    """Get the tokens and write all request files."""
    flex, attribute = stage.flex, stage.attribute
    asked = [
        traffic.token_request(
            one.client_id, one.client_secret, scope.format(attribute.id), flex.resource, basic=n % 4 > 0
        )
        for n, one in enumerate(instance.clients_of(flex))
        for scope in SCOPES
    ]
    with_explain = asked[:: len(SCOPES)]
    stage.tokens = [instance.fetch_token(flex, asked[n % len(asked)]) for n in range(N_TOKENS)]
    wide = [instance.fetch_token(flex, request) for request in with_explain]
    stage.rows = traffic.rows(attribute.columns, traffic.N_ROWS, seed=1)
    full = traffic.rows(traffic.all_columns(models), traffic.N_ROWS, seed=2)
    base = f"/v1/attributes/{attribute.id}"
    requests = {
        "token": asked,
        "predict": traffic.predict_requests(attribute.id, stage.tokens, stage.rows, traffic.N_REQUESTS),
        "explain": [
            traffic.json_request(f"{base}/explain", wide[n % len(wide)], traffic.record(n, row))
            for n, row in enumerate(stage.rows)
        ],
        "profile": [
            traffic.json_request("/v1/profile", wide[n % len(wide)], traffic.record(n, row))
            for n, row in enumerate(full)
        ],
        "batch": [
            traffic.json_request(f"{base}/predict/batch", wide[n % len(wide)], {"records": _batch(attribute, n)})
            for n in range(N_BATCHES)
        ],
        "jwks": [traffic.http_request("GET", "/.well-known/jwks.json", {})],
        "health": [traffic.http_request("GET", "/health/ready", {})],
    }
    stage.files = {name: write_requests(flex.folder / f"{name}.requests", spelt) for name, spelt in requests.items()}


def _batch(attribute: Attribute, number: int) -> list[dict[str, object]]:
    return [traffic.record(n, row) for n, row in enumerate(traffic.rows(attribute.columns, 1000, seed=100 + number))]


def _spell_cold(stage: Stage, options: Options, cases: Sequence[Case]) -> None:
    """Sign the never-used tokens ahead of the load: nothing else may run while a case is measured."""
    count = sum(case.n_cold_in_all(options.seconds, options.rounds) for case in cases)
    if count:
        stage.cold = iter(list(instance.more_tokens(stage.flex, contenders.claims_of(stage.tokens[0]), count)))


def _start_contenders(stage: Stage, stack: contextlib.ExitStack, options: Options, cases: Sequence[Case]) -> None:
    wanted = {case.server for case in cases}
    if "floor" in wanted:
        expires_at = float(str(contenders.claims_of(stage.tokens[-1])["exp"]))
        stage.servers["floor"], stage.ports["floor"] = stack.enter_context(
            contenders.floor(stage.flex, stage.attribute, stage.tokens, expires_at=expires_at, core=stage.server_core)
        )
    if "naive" in wanted:
        try:
            stage.servers["naive"], stage.ports["naive"] = stack.enter_context(
                contenders.naive(stage.flex, stage.attribute, install=options.install_naive, core=stage.server_core)
            )
        except NoNaiveEnvironmentError as missing:
            stage.notes.append(f"The naive stack was not measured: {missing}.")


def _check_same_scores(stage: Stage) -> None:
    """Ask all predict servers for the same rows; raises ScoresDifferError unless the raw scores are bit-equal."""
    names = [name for name in ("model", "floor", "naive") if name in stage.servers]
    for number in range(N_SAME):
        token, row = stage.tokens[number], stage.rows[number]
        raws = {name: struct.pack("d", _raw(stage, stage.ports[name], token, number, row)) for name in names}
        if len(set(raws.values())) != 1:
            raise ScoresDifferError(f"row {number} scored differently by {', '.join(names)}")
    stage.n_same = N_SAME


def _raw(stage: Stage, port: int, token: str, number: int, row: traffic.Row) -> float:
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    with contextlib.closing(HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        body = json.dumps(traffic.record(number, row))
        connection.request("POST", f"/v1/attributes/{stage.attribute.id}/predict", body, headers)
        answer = connection.getresponse()
        content = answer.read()
    if answer.status != 200:
        raise ScoresDifferError(f"a predict server answered {answer.status}: {content[:200]!r}")
    raw: float = json.loads(content)["raw"]
    return raw
