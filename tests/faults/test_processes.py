"""The worst rows of the fault table with real processes that are killed, and their way back."""

import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import sys
import time
from pathlib import Path

import httpx
import pytest

from shared.embedded_store import EmbeddedStore
from shared.secret import Secret
from shared.settings import Settings
from shared.store import connect_sync
from tests.auth_server.serving import basic, demo
from tests.model_server.serving import PREDICT

ROOT = Path(__file__).parents[2]
OUTAGE_S = 3.0
pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class Place:
    """One installation of real processes beside a store that nobody starts again."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.var = folder, folder / "var"
        self.store = EmbeddedStore(folder / "store")
        self.store.attach()
        url = f"unix://{self.store.socket_path}"
        auth, model = free_port(), free_port()
        self.issuer, self.resource = f"http://127.0.0.1:{auth}", f"http://127.0.0.1:{model}"
        self.settings = Settings(var_dir=self.var, redis_url=Secret(url))
        self.environ = {
            **os.environ,
            "FLEX_REDIS_URL": url,
            "FLEX_VAR_DIR": str(self.var),
            "FLEX_KEYS_DIR": str(folder / "keys"),
            "FLEX_MODELS_DIR": str(ROOT / "models"),
            "FLEX_AUTH_PORT": str(auth),
            "FLEX_MODEL_PORT": str(model),
            "FLEX_ISSUER": self.issuer,
            "FLEX_RESOURCE": self.resource,
            "FLEX_LOG_ACCESS": "0",
        }
        self.processes: dict[str, asyncio.subprocess.Process] = {}

    async def start(self, *names: str) -> None:
        """Start servers and wait until each is ready."""
        for name in names:
            with (self.folder / f"{name}.log").open("ab") as log:
                self.processes[name] = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", f"{name}_server", cwd=ROOT, env=self.environ, stdout=log
                )
            await self.until_ready(name)

    async def until_ready(self, name: str, status: str = "") -> None:
        url = {"auth": self.issuer, "model": self.resource}[name] + "/health/ready"
        async with httpx.AsyncClient() as http, asyncio.timeout(30):
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    answer = await http.get(url)
                    if answer.status_code == 200 and status in {"", answer.json().get("status")}:
                        return
                await asyncio.sleep(0.05)

    async def kill(self, *names: str) -> None:
        """Kill -9."""
        for name in names:
            if name == "store":
                with connect_sync(self.settings) as client:
                    os.kill(int(client.info("server")["process_id"]), signal.SIGKILL)
            else:
                self.processes[name].kill()
                await self.processes[name].wait()

    async def end(self) -> None:
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        self.store.release()

    def events(self, name: str, event: str) -> list[dict]:
        lines = map(json.loads, (self.folder / f"{name}.log").read_text().splitlines())
        return [line for line in lines if line["event"] == event]

    async def as_demo(self, http: httpx.AsyncClient, path: str, **form: str) -> httpx.Response:
        """Call the auth server as the demo client."""
        held = demo(self)
        login = {"authorization": basic(held["client_id"], held["client_secret"])}
        return await http.post(self.issuer + path, data=form, headers=login)

    async def token(self, http: httpx.AsyncClient) -> httpx.Response:
        return await self.as_demo(http, "/oauth2/token", grant_type="client_credentials")

    async def predict(self, http: httpx.AsyncClient, token: str) -> int:
        body = {"features": {"ipip_always_prepared": 4}}
        headers = {"authorization": f"Bearer {token}"}
        return (await http.post(self.resource + PREDICT, json=body, headers=headers)).status_code

    @property
    def demo_file(self) -> Path:
        return self.var / "demo-client.json"


@pytest.fixture
async def place(tmp_path):
    """An installation; whatever is left of it is ended."""
    made = Place(tmp_path)
    yield made
    await made.end()


async def test_no_token_request_fails_while_the_store_is_dead(place):
    """Killed under load, away for seconds, back: 0 failed requests of a known client; the outage is in the audit."""
    await place.start("auth")
    statuses, over = [], asyncio.Event()

    async def call(http: httpx.AsyncClient) -> None:
        while not over.is_set():
            statuses.append((await place.token(http)).status_code)
            await asyncio.sleep(0.01)

    async with httpx.AsyncClient() as http:
        callers = [asyncio.create_task(call(http)) for _ in range(4)]
        await asyncio.sleep(0.5)
        await place.kill("store")
        began, n_before = time.monotonic(), len(statuses)
        await place.until_ready("auth", "degraded")
        refused = await place.as_demo(http, "/oauth2/revoke", token=secrets.token_hex(16))
        introspected = await place.as_demo(http, "/oauth2/introspect", token=secrets.token_hex(16))
        assert [refused.status_code, introspected.status_code] == [200, 200]  # nothing to revoke: nobody takes that
        token = (await place.token(http)).json()["access_token"]
        assert (await place.as_demo(http, "/oauth2/revoke", token=token)).status_code == 503
        await asyncio.sleep(OUTAGE_S - (time.monotonic() - began))
        n_during = len(statuses) - n_before
        await asyncio.to_thread(place.store.attach)
        await place.until_ready("auth", "ready")
        assert (await place.as_demo(http, "/oauth2/revoke", token=token)).status_code == 200
        over.set()
        await asyncio.gather(*callers)
    assert set(statuses) == {200}
    assert n_during > 50
    assert place.events("auth", "store_lost")
    assert [line for line in place.events("auth", "token_issued") if line.get("without_store")]


async def test_a_model_server_restarts_with_everything_else_dead_and_finds_all_again(place):
    """Good tokens are answered and revoked ones refused before, after its restart, and when all is back."""
    await place.start("auth", "model")
    async with httpx.AsyncClient() as http:
        good, bad = [(await place.token(http)).json()["access_token"] for _ in range(2)]
        assert (await place.as_demo(http, "/oauth2/revoke", token=bad)).status_code == 200
        await until_saved(place.var / "model" / "revocations")
        await place.kill("auth", "store")
        assert [await place.predict(http, token) for token in (good, bad)] == [200, 401]
        await place.kill("model")
        await place.start("model")
        assert [await place.predict(http, token) for token in (good, bad)] == [200, 401]
        await asyncio.to_thread(place.store.attach)
        await place.start("auth")
        new = (await place.token(http)).json()["access_token"]
        assert [await place.predict(http, token) for token in (good, bad, new)] == [200, 401, 200]
        assert (await place.as_demo(http, "/oauth2/revoke", token=new)).status_code == 200
        async with asyncio.timeout(10):
            while await place.predict(http, new) != 401:
                await asyncio.sleep(0.02)


async def until_saved(file: Path) -> None:
    """Wait until a snapshot is written that is younger than now: news are saved within a second or two."""
    began = time.time()
    async with asyncio.timeout(10):
        while not file.exists() or file.stat().st_mtime < began:
            await asyncio.sleep(0.05)
