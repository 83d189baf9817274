"""``flex client …`` on a real store."""

import json

import pytest
from typer.testing import CliRunner

from cli.clients import app

CREATE = ["create", "--name", "Scoring", "--scope", "predict:grit explain:grit"]


@pytest.fixture
def flex(tmp_path, monkeypatch):
    """Run a command in a fresh installation; gives exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    for name in ("FLEX_ENV", "FLEX_REDIS_URL", "FLEX_ISSUER"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments):
        return CliRunner().invoke(app, list(arguments))

    return run


def created(flex, *more):
    return json.loads(flex(*CREATE, *more, "--json").stdout)


def test_create_prints_all_that_a_first_call_needs(flex):
    """And the secret, this once."""
    made = created(flex, "--token-ttl", "600")
    assert {"client_id", "client_secret", "name", "scope", "resources", "token_endpoint"} <= set(made)
    assert made["scope"] == "predict:grit explain:grit"
    assert made["resources"] == ["http://127.0.0.1:8000"]
    assert made["token_endpoint"] == "http://127.0.0.1:9000/oauth2/token"
    assert made["client_secret"] not in flex("list", "--json").stdout + flex("show", made["client_id"]).stdout


def test_a_client_may_want_a_status_list(flex):
    """Shown afterwards; others have none."""
    shown = [
        json.loads(flex("show", created(flex, *more)["client_id"], "--json").stdout) for more in ([], ["--status-list"])
    ]
    assert [each["status_list"] for each in shown] == [False, True]
    assert "named in its tokens" in flex("show", shown[1]["client_id"]).stdout


def test_people_get_a_table_with_the_secret(flex):
    """The whole secret, not cut to the width of the terminal."""
    shown = flex(*CREATE).stdout
    assert "shown this once" in shown
    assert "flex_cs_" in shown.replace("\n", "")


def test_list_pages_through_all_clients(flex):
    """``next_cursor`` leads on."""
    made = {created(flex)["client_id"] for _ in range(3)}
    first = json.loads(flex("list", "--limit", "2", "--json").stdout)
    rest = json.loads(flex("list", "--cursor", first["next_cursor"], "--json").stdout)
    assert {each["client_id"] for each in first["clients"] + rest["clients"]} == made
    assert rest["next_cursor"] == ""
    assert "Scoring" in flex("list").stdout


def test_rotation_keeps_the_old_secret_for_the_overlap(flex):
    """A second rotation meanwhile is refused, unless it ends both."""
    made = created(flex)
    renewed = json.loads(flex("rotate-secret", made["client_id"], "--overlap", "1h", "--json").stdout)
    assert renewed["client_secret"] != made["client_secret"]
    shown = json.loads(flex("show", made["client_id"], "--json").stdout)
    assert [secret["live"] for secret in shown["secrets"]] == [True, True]
    assert shown["secrets"][1]["expires_at"] == pytest.approx(shown["secrets"][0]["created_at"] + 3600)
    refused = flex("rotate-secret", made["client_id"])
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "overlap of 0" in refused.stderr
    assert flex("rotate-secret", made["client_id"], "--overlap", "0").exit_code == 0
    assert len(json.loads(flex("show", made["client_id"], "--json").stdout)["secrets"]) == 1


def test_disable_enable_delete(flex):
    """Each shows the new state; what is gone is not found."""
    name = created(flex)["client_id"]
    assert json.loads(flex("disable", name, "--json").stdout)["disabled_at"] is not None
    assert json.loads(flex("enable", name, "--json").stdout)["disabled_at"] is None
    assert json.loads(flex("delete", name, "--json").stdout) == {"client_id": name, "deleted": True}
    gone = flex("show", name)
    assert (gone.exit_code, gone.stderr) == (1, "flex: There is no client with this id.\n")


@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [
        (["create", "--name", "x", "--scope", "read"], 1),
        (["create", "--name", "x", "--scope", ""], 1),
        (["create", "--name", "", "--scope", "predict:*"], 1),
        (["create", "--name", "x", "--scope", "predict:*", "--token-ttl", "10"], 1),
        (["create", "--name", "x", "--scope", "predict:*", "--resource", "nonsense"], 1),
        (["create", "--name", "x"], 2),
        (["list", "--limit", "0"], 2),
        (["rotate-secret", "x", "--overlap", "soon"], 2),
        (["rotate-secret", "x", "--overlap", "31d"], 2),
        (["rotate-secret", "x", "--overlap", "1h", "--compromised"], 2),
        (["rotate-secret", "nobody-0123456789ab", "--compromised"], 1),
        (["disable", "nobody-0123456789ab"], 1),
        (["delete", "nobody-0123456789ab"], 1),
        (["rotate-secret", "nobody-0123456789ab"], 1),
    ],
)
def test_refusals_are_one_line_and_an_exit_code(flex, arguments, exit_code):
    """1: refused, 2: wrong usage; nothing on standard output."""
    ended = flex(*arguments)
    assert (ended.exit_code, ended.stdout) == (exit_code, "")
    assert ended.stderr.count("\n") == 1 if exit_code == 1 else "Usage" in ended.stderr


def test_a_bad_store_address_is_a_refusal_without_its_password(flex, monkeypatch):
    """Neither unreachable nor malformed addresses show a traceback or a secret."""
    for address in ("redis://:hunter2@127.0.0.1:1", "carrier-pigeon://:hunter2@x"):
        monkeypatch.setenv("FLEX_REDIS_URL", address)
        ended = flex("list")
        assert (ended.exit_code, ended.stdout, ended.stderr.count("\n")) == (1, "", 1)
        assert "hunter2" not in ended.stderr


def test_what_operators_do_is_in_the_event_file_without_secrets(flex, tmp_path):
    """One line each."""
    made = created(flex)
    renewed = json.loads(flex("rotate-secret", made["client_id"], "--json").stdout)
    flex("disable", made["client_id"])
    flex("delete", made["client_id"])
    text = (tmp_path / "var/operator-events.jsonl").read_text()
    named = [json.loads(line)["event"] for line in text.splitlines() if made["client_id"] in line]
    ended = ["client_disabled", "revocation_written", "client_deleted", "revocation_written"]
    assert named == ["client_created", "client_secret_rotated", *ended]
    assert made["client_secret"] not in text
    assert renewed["client_secret"] not in text


@pytest.mark.parametrize("command", ["create", "list", "show", "rotate-secret", "disable", "enable", "delete"])
def test_help_has_an_example_and_json(flex, command):
    """Every command."""
    shown = flex(command, "--help").stdout
    assert f"Example: flex client {command}" in shown
    assert "--json" in shown
