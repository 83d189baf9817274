"""The server as a whole: wiring, CORS, background keys, settings, and what the serving process never loads."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from model_server import app as app_module
from model_server.app import build_app, load_attributes
from model_server.remote_keys import RemoteKeys
from model_server.settings import ModelSettings
from shared.access_token import StaticKeySet
from shared.events import Event
from shared.settings import SettingsError
from tests.model_server.issuer_site import JWKS, running_site
from tests.model_server.serving import PREDICT, Api, serving
from tests.tokens import AUDIENCE, Issuer

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def site():
    async with running_site() as site:
        yield site


async def ready(http) -> None:
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(httpx.TransportError):
                if (await http.get("/health/ready")).status_code == 200:
                    return
            await asyncio.sleep(0.02)


async def test_the_first_call_finds_the_keys(site, settings, attributes, rsa_key, clock):
    """A worker takes no call before it has its keys, so several workers never answer differently at their start."""
    issuer = Issuer(rsa_key, "old", site.url)
    site.publish(issuer.jwk)
    keys = RemoteKeys(site.url, file=settings.key_set_file, soft_max_age_s=1, max_stale_s=60, clock=clock)
    settings = ModelSettings(issuer=site.url, resource=AUDIENCE, var_dir=settings.var_dir)
    app = build_app(settings, attributes, keys, clock=clock)
    async with serving(app) as url, httpx.AsyncClient(base_url=url) as http:
        assert (await Api(http, issuer, attributes).get("/v1/attributes")).status_code == 200


async def test_keys_are_followed_from_start_to_stop(site, settings, attributes, rsa_key, other_rsa_key, clock):
    """Not ready, then ready; a rotation is picked up; the old key's tokens are refused; nothing is left running."""
    old, new = Issuer(rsa_key, "old", site.url), Issuer(other_rsa_key, "new", site.url)
    keys = RemoteKeys(site.url, file=settings.key_set_file, soft_max_age_s=1, max_stale_s=60, clock=clock)
    settings = ModelSettings(issuer=site.url, resource=AUDIENCE, var_dir=settings.var_dir)
    app = build_app(settings, attributes, keys, clock=clock)
    async with serving(app) as url, httpx.AsyncClient(base_url=url) as http:
        assert (await http.get("/health/ready")).status_code == 503
        assert (await Api(http, old, attributes).get("/v1/attributes")).status_code == 503
        site.publish(old.jwk)
        await ready(http)
        assert (await Api(http, old, attributes).get("/v1/attributes")).status_code == 200
        site.publish(new.jwk)
        async with asyncio.timeout(10):
            while (await Api(http, new, attributes).get("/v1/attributes")).status_code != 200:
                await asyncio.sleep(0.02)
        assert (await Api(http, old, attributes).get("/v1/attributes")).status_code == 401
    n_requests = site.n_requests[JWKS]
    await asyncio.sleep(0.05)
    assert site.n_requests[JWKS] == n_requests


async def test_the_issuer_going_away_changes_nothing(site, settings, attributes, rsa_key, clock):
    """Good tokens are answered, new ones too."""
    issuer = Issuer(rsa_key, "one", site.url)
    site.publish(issuer.jwk)
    keys = RemoteKeys(site.url, file=settings.key_set_file, soft_max_age_s=1, max_stale_s=60, clock=clock)
    settings = ModelSettings(issuer=site.url, resource=AUDIENCE, var_dir=settings.var_dir)
    app = build_app(settings, attributes, keys, clock=clock)
    async with serving(app) as url, httpx.AsyncClient(base_url=url) as http:
        await ready(http)
        site.answers.clear()
        n_requests = site.n_requests.total()
        async with asyncio.timeout(10):
            while site.n_requests.total() == n_requests:
                await asyncio.sleep(0.02)
        api = Api(http, issuer, attributes)
        assert (await api.post(PREDICT, api.example())).status_code == 200


class Watch:
    """What the interpreter reports while it is on; an audit hook can't be taken away, only be told to be quiet."""

    def __init__(self) -> None:
        self.on = False
        self.seen: list[str] = []
        sys.addaudithook(self.hook)

    def hook(self, event: str, _arguments: object) -> None:
        if self.on and event.partition(".")[0] in {"open", "socket", "subprocess", "os", "sqlite3", "import"}:
            self.seen.append(event)


async def test_a_prediction_touches_neither_network_nor_disk(app, attributes, issuer):
    """Not for a new token, not for a known one: the interpreter itself reports whatever is opened or connected."""
    body = json.dumps(attributes["grit"].example()).encode()
    answers = []

    async def receive():
        return {"type": "http.request", "body": body}

    async def send(message):
        answers.append(message)

    async def call(token: bytes) -> None:
        headers = [(b"authorization", b"Bearer " + token)]
        await app({"type": "http", "method": "POST", "path": PREDICT, "headers": headers}, receive, send)

    tokens = [issuer.token(jti=str(n)) for n in range(3)]
    await call(tokens[0])
    watch = Watch()
    watch.on = True
    for token in (*tokens, *tokens):
        await call(token)
    watch.on = False
    assert watch.seen == []
    assert [message["status"] for message in answers if "status" in message] == [200] * 7


async def test_browsers_of_named_origins_may_call(attributes, issuer, clock, tmp_path):
    """A preflight is answered without a token; other origins get no permission; without origins there is no CORS."""
    named = ModelSettings(var_dir=tmp_path, cors_origins=("https://shop.example",))
    keys = StaticKeySet({issuer.kid: issuer.key})
    preflight = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    for settings, origin, allowed in (
        (named, "https://shop.example", "https://shop.example"),
        (named, "https://evil.example", None),
        (ModelSettings(var_dir=tmp_path), "https://shop.example", None),
    ):
        app = build_app(settings, attributes, keys, clock=clock)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=AUDIENCE) as http:
            answer = await http.options(PREDICT, headers=preflight | {"origin": origin})
            assert answer.headers.get("access-control-allow-origin") == allowed
            api = Api(http, issuer, attributes)
            scored = await api.post(PREDICT, api.example(), origin=origin)
            assert scored.headers.get("access-control-allow-origin") == allowed


async def test_a_defect_is_500_with_an_id_and_without_a_traceback(api, monkeypatch, event_log):
    """The caller learns the request id; the event says where it was."""
    monkeypatch.setattr("model_server.endpoints.attributes.score", None)
    answer = await api.post(PREDICT, api.example())
    assert answer.status_code == 500
    assert "Traceback" not in answer.text
    (line,) = event_log.named(Event.INTERNAL_ERROR)
    assert (line["request_id"], line["reason"]) == (answer.json()["instance"], "TypeError")


async def test_an_access_line_names_route_and_client(api, event_log):
    """One line a request, with the client and the route's template, never the path."""
    await api.post(PREDICT, api.example())
    await api.get("/v1/attributes/grit")
    first, second = event_log.named(Event.HTTP_REQUEST)
    assert (first["route"], first["client_id"], first["status"]) == ("/v1/attributes/{id}/predict", "client-1", 200)
    assert second["route"] == "/v1/attributes/{id}"


def test_a_broken_bundle_is_left_out_with_an_event(tmp_path, event_log):
    """The others are served."""
    (tmp_path / "models" / "broken" / "1").mkdir(parents=True)
    (tmp_path / "models" / "grit").symlink_to(ROOT / "models" / "grit")
    loaded = load_attributes(ModelSettings(models_dir=tmp_path / "models"))
    assert list(loaded) == ["grit"]
    assert [line["attribute"] for line in event_log.named(Event.BUNDLE_REFUSED)] == ["broken"]
    assert [line["attribute"] for line in event_log.named(Event.BUNDLE_LOADED)] == ["grit"]


def test_production_refuses_what_is_unsafe_here():
    """An http issuer, wildcard CORS, an embedded store that is needed: all told at once; https and loopback pass."""
    with pytest.raises(SettingsError) as error:
        ModelSettings.read({"FLEX_ENV": "production", "FLEX_ISSUER": "http://id.example", "FLEX_CORS_ORIGINS": "*"})
    assert len(error.value.problems) == 3
    store = {"FLEX_ENV": "production", "FLEX_REDIS_URL": "redis://store"}
    assert ModelSettings.read(store | {"FLEX_ISSUER": "https://id.example"})
    assert ModelSettings.read(store)
    assert ModelSettings.read({"FLEX_ENV": "production", "FLEX_REQUIRE_FRESH_REVOCATIONS_S": "0"})


def test_the_serving_process_never_loads_the_heavy_libraries():
    """Start-up time and memory depend on it."""
    heavy = ["numpy", "scipy", "lightgbm", "pydantic", "typer", "rich", "structlog", "httpx", "jwt", "authlib"]
    code = f"import sys, model_server.__main__, model_server.app; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_wrong_settings_are_told_all_at_once_and_end_the_process():
    """One line each on standard error, exit code 1, nothing started."""
    wrong = {**os.environ, "FLEX_MODEL_PORT": "0", "FLEX_ISSUER": "ftp://x", "FLEX_BATCH_THREADS": "many"}
    done = subprocess.run(
        [sys.executable, "-m", "model_server"], cwd=ROOT, env=wrong, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 3
    for variable in ("FLEX_MODEL_PORT", "FLEX_ISSUER", "FLEX_BATCH_THREADS"):
        assert variable in done.stderr


def free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


async def test_the_real_process_serves_survives_its_issuer_and_stops_cleanly(site, rsa_key, tmp_path):
    """Started, killed, started again while the issuer is down, stopped by SIGTERM with exit code 0."""
    import time

    port = free_port()
    resource = f"http://127.0.0.1:{port}"
    issuer = Issuer(rsa_key, "one", site.url)
    site.publish(issuer.jwk)
    settings = {
        "FLEX_MODEL_PORT": str(port),
        "FLEX_ISSUER": site.url,
        "FLEX_RESOURCE": resource,
        "FLEX_VAR_DIR": str(tmp_path / "var"),
        "FLEX_MODELS_DIR": str(ROOT / "models"),
        "FLEX_REQUIRE_FRESH_REVOCATIONS_S": "0",
    }
    claims = {"aud": resource, "iat": int(time.time()), "exp": int(time.time()) + 60, "scope": "predict:grit"}
    for end, code in ((signal.SIGKILL, -9), (signal.SIGTERM, 0)):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "model_server", cwd=ROOT, env={**os.environ, **settings}, stdout=subprocess.PIPE
        )
        try:
            async with httpx.AsyncClient(base_url=resource) as http:
                await ready(http)
                headers = issuer.authorization(**claims)
                shown = await http.get("/v1/attributes/grit", headers=headers)
                answer = await http.post(PREDICT, json=shown.json()["example"], headers=headers)
                assert answer.status_code == 200
                assert "score" in answer.json()
        finally:
            process.send_signal(end)
            output, _ = await process.communicate()
        assert process.returncode == code
        assert all(json.loads(line)["server"] == "model" for line in output.splitlines())
        site.answers.clear()


def test_the_factory_is_what_the_server_starts(monkeypatch, tmp_path):
    """With the environment's settings and the shipped models, without any network."""
    monkeypatch.setenv("FLEX_VAR_DIR", str(tmp_path))
    monkeypatch.setenv("FLEX_MODELS_DIR", str(ROOT / "models"))
    assert callable(app_module.create_app())
