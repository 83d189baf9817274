"""Real model servers with one and two worker processes on a real store: a hundred is a hundred, and all is counted."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest

from shared import store as stores
from shared.embedded_store import EmbeddedStore
from shared.settings import Settings
from shared.usage import UsageLedger, day_of
from tests.model_server.issuer_site import running_site
from tests.model_server.serving import PREDICT
from tests.tokens import AUDIENCE, Issuer

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize("n_workers", [1, 2])
async def test_exactly_a_hundred_calls_pass_and_every_call_is_in_the_usage(n_workers, rsa_key, attributes, tmp_path):
    """240 calls over 12 connections; what the store says afterwards is what the callers saw."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with EmbeddedStore(tmp_path) as store:
        async with running_site() as site:
            issuer = Issuer(rsa_key, issuer=site.url)
            site.publish(issuer.jwk)
            environment = {
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "FLEX_VAR_DIR": str(tmp_path),
                "FLEX_MODELS_DIR": str(ROOT / "models"),
                "FLEX_ISSUER": site.url,
                "FLEX_RESOURCE": AUDIENCE,
                "FLEX_MODEL_PORT": str(port),
                "FLEX_WORKERS": str(n_workers),
                "FLEX_RATE_LIMIT_PER_HOUR": "100",
                "FLEX_REDIS_URL": f"unix://{store.socket_path}",
                "FLEX_REQUIRE_FRESH_REVOCATIONS_S": "0",  # nobody writes a feed here
            }
            server = subprocess.Popen(
                [sys.executable, "-m", "model_server"], cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL
            )
            try:
                token = issuer.authorization(iat=int(time.time()), exp=int(time.time()) + 600)
                seen = await call(port, token, attributes["grit"].example())
            finally:
                server.send_signal(signal.SIGTERM)
                await asyncio.to_thread(server.wait, 20)
        assert seen == {200: 100, 429: 140}
        client = stores.connect(Settings(var_dir=tmp_path))
        page = await UsageLedger(client).page([day_of(time.time())], client_id="client-1")
        await stores.close(client)
    ((line, counts),) = page.lines
    assert line.attribute == "grit"
    assert (counts[0], counts[3], counts[5]) == (100, 140, 100)  # ok, limited, rows
    assert sum(counts[8:]) == 240


async def call(port, headers, example) -> Counter:
    """Call from many connections at once, so that all workers get their part."""
    seen: Counter = Counter()

    async def one_connection() -> None:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as http:
            for _ in range(20):
                seen[(await http.post(PREDICT, json=example, headers=headers)).status_code] += 1

    async with asyncio.timeout(30):
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=5) as http:
            while True:
                try:
                    if (await http.get("/health/ready")).status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.05)
        await asyncio.gather(*(one_connection() for _ in range(12)))
    return seen
