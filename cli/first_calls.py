"""What ``flex serve all`` prints when everything is ready: where things are, and calls to paste."""

import json
import sys
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from cli.supervisor import server_part
from shared.settings import Settings

DEMO_FILE = "demo-client.json"
_TIMEOUT_S = 5.0


def summary(settings: Settings) -> dict[str, str]:
    """Name the addresses and places of a running set."""
    where = {
        "auth_server": server_part(settings, "auth").url,
        "model_server": server_part(settings, "model").url,
        "store": "FLEX_REDIS_URL" if settings.redis_url else f"embedded, in {settings.var_dir / 'store'}",
        "keys": str(settings.keys_dir),
        "models": str(settings.models_dir),
    }
    demo = settings.var_dir / DEMO_FILE
    return where | ({"demo_client": str(demo)} if demo.is_file() else {})


def first_calls(settings: Settings) -> list[tuple[str, str]]:
    """Give (what it does, command) pairs that work as they stand in the project's folder; none without a demo client.

    The example record is asked of the model server, so that what is printed is what it takes. The demo client's secret
    is in the first command: it exists in development only.
    """
    demo_file = settings.var_dir / DEMO_FILE
    if not demo_file.is_file():
        return []
    demo: dict[str, str] = json.loads(demo_file.read_text("utf-8"))
    python = _python()
    token = (
        f"TOKEN=$(curl -sS -u '{demo['client_id']}:{demo['client_secret']}' -d grant_type=client_credentials "
        f"{demo['token_endpoint']} | {python} -c 'import json, sys; print(json.load(sys.stdin)[\"access_token\"])')"
    )
    calls = [("Get an access token", token)]
    calls += _scoring_calls(settings, demo)
    flex = Path(python).parent / "flex"
    return [
        *calls,
        ("End that token: every model server answers 401 from now on", f'{flex} token revoke "$TOKEN"'),
        ("See who used what (model servers report every 10 s)", f"{flex} usage"),
        ("See every key and who can verify with it", "make keys-status"),
        ("Change the signing key; nobody notices (waits until that is sure)", "make rotate-keys"),
    ]


def _scoring_calls(settings: Settings, demo: dict[str, str]) -> list[tuple[str, str]]:
    base = server_part(settings, "model").url
    try:
        token = _post_form(demo["token_endpoint"], demo)["access_token"]
        listed = [str(attribute["id"]) for attribute in _get(f"{base}/v1/attributes", token)["attributes"]]
        chosen = "grit" if "grit" in listed else listed[0]
        example = json.dumps(_get(f"{base}/v1/attributes/{chosen}", token)["example"]).replace("'", "\\u0027")
    except (OSError, ValueError, LookupError):
        return []
    bearer = 'curl -sS -H "Authorization: Bearer $TOKEN"'
    send = f"{bearer} -H 'Content-Type: application/json' -d '{example}'"
    return [
        ("See what it may score", f"{bearer} {base}/v1/attributes"),
        (f"Score one record ({chosen})", f"{send} {base}/v1/attributes/{chosen}/predict"),
        ("Ask why", f"{send} {base}/v1/attributes/{chosen}/explain"),
    ]


def _python() -> str:
    # Short where the command is pasted in the project's folder, which is where `make run` is typed.
    try:
        return str(Path(sys.executable).relative_to(Path.cwd()))
    except ValueError:
        return sys.executable


def _get(url: str, token: str) -> dict[str, Any]:
    return _answer(urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"}))  # noqa: S310 - our own


def _post_form(url: str, demo: dict[str, str]) -> dict[str, Any]:
    form = {"grant_type": "client_credentials", "client_id": demo["client_id"], "client_secret": demo["client_secret"]}
    return _answer(urllib.request.Request(url, data=urlencode(form).encode()))  # noqa: S310 - our own


def _answer(request: urllib.request.Request) -> dict[str, Any]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=_TIMEOUT_S) as reply:
        answer: dict[str, Any] = json.load(reply)
        return answer
