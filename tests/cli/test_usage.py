"""``flex usage`` on a real store."""

import asyncio
import json
import time

import pytest
from typer.testing import CliRunner

from cli.clients import app as client_app
from cli.usage import app
from shared import store as stores
from shared.embedded_store import EmbeddedStore
from shared.settings import Settings
from shared.usage import COUNTS, UsageLedger, UsageLine, day_of


@pytest.fixture
def flex(tmp_path, monkeypatch):
    """Run a command in a fresh installation with its store running."""
    monkeypatch.chdir(tmp_path)
    for name in ("FLEX_ENV", "FLEX_REDIS_URL", "FLEX_ISSUER", "FLEX_VAR_DIR"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments, command=app):
        return CliRunner().invoke(command, list(arguments))

    with EmbeddedStore(tmp_path / "var"):
        yield run


def use(folder, client_id, attribute, **counts):
    """Write usage as a model server does."""

    async def write():
        client = stores.connect(Settings(var_dir=folder / "var"))
        line = UsageLine(day_of(time.time()), client_id, attribute)
        await UsageLedger(client).add(client_id + attribute, 1, {line: [counts.get(name, 0) for name in COUNTS]})
        await stores.close(client)

    asyncio.run(write())


def test_usage_by_client_and_attribute(flex, tmp_path):
    """All of it, one client's, one attribute's; a table for people."""
    use(tmp_path, "a", "grit", ok=5, limited=2, rows=40, time_us=7000)
    use(tmp_path, "a", "calm", ok=1, explanations=1)
    use(tmp_path, "b", "grit", ok=3, rows=3)
    everything = json.loads(flex("--json").stdout)["items"]
    assert [(each["client_id"], each["attribute"], each["calls"]) for each in everything] == [
        ("a", "calm", 1), ("a", "grit", 7), ("b", "grit", 3),
    ]  # fmt: skip
    assert everything[1]["rows"] == 40
    assert [each["attribute"] for each in json.loads(flex("--client", "a", "--json").stdout)["items"]] == [
        "calm",
        "grit",
    ]
    by_day = json.loads(flex("--attribute", "grit", "--days", "2", "--by-day", "--json").stdout)["items"]
    assert {(each["client_id"], each["day"]) for each in by_day} == {(name, day_of(time.time())) for name in "ab"}
    assert "grit" in flex().stdout
    assert "Nobody called" in flex("--client", "nobody").stdout


def test_scopes_that_nobody_used(flex, tmp_path):
    """What the client holds, less what it needed; a wildcard was needed if any of its attributes was."""
    create = ["create", "--name", "x", "--scope", "predict:* explain:grit explain:calm", "--json"]
    made = json.loads(flex(*create, command=client_app).stdout)
    use(tmp_path, made["client_id"], "grit", ok=1, rows=1, explanations=1)
    (item,) = json.loads(flex("--unused-scopes", "--json").stdout)["items"]
    assert (item["client_id"], item["scopes"]) == (made["client_id"], ["explain:calm"])
    assert item["since"] == day_of(time.time())
    assert "explain:calm" in flex("--unused-scopes").stdout


def test_a_client_with_limits_shows_them(flex):
    """Created, listed and shown; a budget that is not understood is refused in one line."""
    budget = '{"type":"model_call","attributes":["grit"],"rows":500,"period":"day"}'
    create = ["create", "--name", "x", "--scope", "predict:grit", "--rate-limit", "7", "--budget", budget, "--json"]
    made = json.loads(flex(*create, command=client_app).stdout)
    shown = json.loads(flex("show", made["client_id"], "--json", command=client_app).stdout)
    assert shown["calls_per_hour"] == 7
    assert shown["authorization_details"] == [json.loads(budget)]
    assert "500" in flex("show", made["client_id"], command=client_app).stdout
    for wrong in ('{"type":"payment"}', "{", budget + "," + budget, budget.replace("500", "0")):
        refused = flex("create", "--name", "x", "--scope", "predict:grit", "--budget", wrong, command=client_app)
        assert refused.exit_code == 1
        assert "authorization_details" in refused.stderr
    assert flex("create", "--name", "x", "--scope", "a", "--rate-limit", "0", command=client_app).exit_code == 1
