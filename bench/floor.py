"""The floor: the least that an authenticated prediction can cost under the same uvicorn, with the same engine.

Bare ASGI: body by msgspec, token by one SHA-256, one dictionary look-up and an expiry check, one row, a small answer.
No routing, no request id, no metrics, no events, no scopes, no interval, no error texts. Run as
``python -m bench.floor PORT``; ``BENCH_FLOOR_PLAN`` names a JSON file that the runner writes.
"""

import hashlib
import os
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from model_server.engine import Model
from shared import serve

PLAN_VARIABLE = "BENCH_FLOOR_PLAN"
NO_NUMBER = float("nan")


class FloorPlan(msgspec.Struct, frozen=True):
    """What the floor needs to know: model file, its columns in order, and each token with its expiry (UTC seconds)."""

    attribute: str
    model: str
    features: list[str]
    tokens: dict[str, float]


class _Answer(msgspec.Struct):
    id: str | None
    attribute: str
    score: float
    raw: float


def make_app(plan: FloorPlan) -> ASGIApp:
    """Build the floor's application."""
    model = Model(Path(plan.model).read_bytes(), len(plan.features))
    columns = msgspec.defstruct("Columns", [(name, float, NO_NUMBER) for name in plan.features])
    record = msgspec.defstruct("Record", [("features", columns), ("id", str | None, None)])
    decode, encode = msgspec.json.Decoder(record).decode, msgspec.json.Encoder().encode
    values, score, attribute = msgspec.structs.astuple, model.predict_one, plan.attribute
    memo = {hashlib.sha256(token.encode()).digest(): expires_at for token, expires_at in plan.tokens.items()}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["method"] == "GET":
            await _answer(send, 200, b"{}")
            return
        token = b""
        for name, value in scope["headers"]:
            if name == b"authorization":
                token = value[7:]
        expires_at = memo.get(hashlib.sha256(token).digest())
        if expires_at is None or expires_at < time.time():
            await _answer(send, 401, b"{}")
            return
        message = await receive()
        body = message["body"]
        while message["more_body"]:
            message = await receive()
            body += message["body"]
        asked: Any = decode(body)
        raw = score(values(asked.features))
        await _answer(send, 200, encode(_Answer(asked.id, attribute, min(max(raw, 0.0), 100.0), raw)))

    return app


async def _answer(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


def app_from_environment() -> ASGIApp:
    """Build the application from the plan file that the environment names."""
    return make_app(msgspec.json.decode(Path(os.environ[PLAN_VARIABLE]).read_bytes(), type=FloorPlan))


def main(port: int) -> None:
    """Serve until SIGTERM, exactly as the product's servers are served."""
    serve.run("bench.floor:app_from_environment", name="floor", host="127.0.0.1", port=port)


if __name__ == "__main__":
    main(int(sys.argv[1]))
