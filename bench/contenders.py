"""What the product is measured against: the floor and the naive stack, with the same model, tokens and rows."""

import base64
import contextlib
import json
import sys
from collections.abc import Iterator, Sequence

import msgspec

from bench import naive_environment
from bench.children import Child, child, free_port, wait_ready
from bench.floor import PLAN_VARIABLE, FloorPlan
from bench.instance import READY, ROOT, Instance
from bench.traffic import Attribute


def claims_of(token: str) -> dict[str, object]:
    """Claims of a token that we just got from our own issuer; nothing is verified."""
    payload = token.split(".")[1]
    claims: dict[str, object] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return claims


@contextlib.contextmanager
def floor(
    instance: Instance, attribute: Attribute, tokens: Sequence[str], *, expires_at: float, core: int
) -> Iterator[tuple[Child, int]]:
    """Run the floor; it knows ``tokens`` from the start. Gives the process and its port."""
    plan = FloorPlan(
        attribute.id,
        str(attribute.folder / "model.txt"),
        [column.name for column in attribute.columns],
        dict.fromkeys(tokens, expires_at),
    )
    plan_file, port = instance.folder / "floor.json", free_port()
    plan_file.write_bytes(msgspec.json.encode(plan))
    command, log = [sys.executable, "-m", "bench.floor", str(port)], instance.folder / "floor.log"
    environ = instance.environ_with(**{PLAN_VARIABLE: str(plan_file)})
    with child("floor", command, core=core, environ=environ, log=log, cwd=instance.folder) as process:
        wait_ready(process, port, READY)
        yield process, port


@contextlib.contextmanager
def naive(instance: Instance, attribute: Attribute, *, install: bool, core: int) -> Iterator[tuple[Child, int]]:
    """Run the naive stack; raises NoNaiveEnvironmentError where its packages are not there."""
    python = naive_environment.python(install=install)
    port, log = free_port(), instance.folder / "naive.log"
    environ = instance.environ_with(
        NAIVE_ISSUER=instance.issuer,
        NAIVE_AUDIENCE=instance.resource,
        NAIVE_JWKS_URL=f"{instance.issuer}/.well-known/jwks.json",
        NAIVE_ATTRIBUTE=attribute.id,
        NAIVE_MODEL=str(attribute.folder / "model.txt"),
        NAIVE_FEATURES=json.dumps([column.name for column in attribute.columns]),
    )
    del environ["PYTHONPATH"]
    where = ["--app-dir", str(ROOT / "bench" / "naive"), "--host", "127.0.0.1", "--port", str(port)]
    command = [str(python), "-m", "uvicorn", "app:app", *where, "--no-access-log", "--log-level", "warning"]
    with child("naive stack", command, core=core, environ=environ, log=log, cwd=instance.folder) as process:
        wait_ready(process, port, READY)
        yield process, port
