"""The whole model server in a test: run its lifespan, serve it on a real socket, call it with fresh tokens."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx
import uvicorn

from shared.http_protocol import BoundedHttpProtocol
from tests.tokens import Issuer

PREDICT = "/v1/attributes/grit/predict"
BATCH = PREDICT + "/batch"
EXPLAIN = "/v1/attributes/grit/explain"


class Api:
    """A client of one model server; ``scope`` of each call goes into a fresh token, None sends no token."""

    def __init__(self, http: httpx.AsyncClient, issuer: Issuer, attributes: dict[str, Any]) -> None:
        self.http = http
        self.issuer = issuer
        self.attributes = attributes

    def example(self, attribute_id: str = "grit") -> dict[str, Any]:
        return self.attributes[attribute_id].example()

    async def get(self, path: str, scope: str | None = "predict:grit explain:grit", **rest: Any) -> httpx.Response:
        return await self.http.get(path, headers=self.authorization(scope), **rest)

    async def post(
        self, path: str, body: object, scope: str | None = "predict:grit explain:grit", **headers: str
    ) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        usual = {"content-type": "application/json", **self.authorization(scope)}
        return await self.http.post(path, content=content, headers=usual | named)

    def authorization(self, scope: str | None) -> dict[str, str]:
        return {} if scope is None else self.issuer.authorization(scope=scope)


@contextlib.asynccontextmanager
async def lifespan(app: Any) -> AsyncIterator[None]:
    """Start and stop an application as a server does."""
    inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    outbox: asyncio.Queue[Any] = asyncio.Queue()
    task = asyncio.create_task(app({"type": "lifespan", "state": {}}, inbox.get, outbox.put))
    await inbox.put({"type": "lifespan.startup"})
    assert (await outbox.get())["type"] == "lifespan.startup.complete"
    yield
    await inbox.put({"type": "lifespan.shutdown"})
    assert (await outbox.get())["type"] == "lifespan.shutdown.complete"
    await task


@contextlib.asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    """Serve an application on a free port; gives its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, http=BoundedHttpProtocol, ws="none", interface="asgi3", lifespan="on", log_config=None, access_log=False
    )
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        assert not task.done()
        await asyncio.sleep(0.005)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    await task
