"""``flex token …`` against a real server process."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli import clients
from cli.tokens import app
from shared.settings import Settings
from shared.store import connect_sync

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """An auth server process on a free port; gives its environment. It must end cleanly."""
    folder = tmp_path_factory.mktemp("installation")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    issuer = f"http://127.0.0.1:{port}"
    named = {"FLEX_AUTH_PORT": str(port), "FLEX_ISSUER": issuer, "FLEX_VAR_DIR": str(folder / "var")}
    named["FLEX_KEYS_DIR"] = str(folder / "keys")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("FLEX_")} | named
    process = subprocess.Popen([sys.executable, "-m", "auth_server"], cwd=ROOT, env=environ, stdout=subprocess.DEVNULL)
    try:
        wait_until_ready(f"{issuer}/health/ready")
        yield named
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=15) == 0


def wait_until_ready(url):
    """Poll for at most 20 s."""
    deadline = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            assert time.monotonic() < deadline, "the server did not get ready"
            time.sleep(0.05)


@pytest.fixture
def flex(server, monkeypatch):
    """Run a command as that server's operator."""
    for name, value in server.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("FLEX_CLIENT_SECRET", raising=False)

    def run(*arguments, text=None):
        return CliRunner().invoke(app, list(arguments), input=text)

    return run


@pytest.fixture
def client(flex, tmp_path):
    """Run a client command as the same operator; without arguments: a new client and the options that log it in."""

    def run(*arguments):
        if arguments:
            return CliRunner().invoke(clients.app, list(arguments))
        created = CliRunner().invoke(clients.app, ["create", "--name", "one", "--scope", "predict:*", "--json"])
        made = json.loads(created.stdout)
        (tmp_path / made["client_id"]).write_text(made["client_secret"])
        login = ["--client-id", made["client_id"], "--client-secret-file", str(tmp_path / made["client_id"])]
        return made["client_id"], login

    return run


def seen(flex, token):
    """What an inspection says of a revocation."""
    shown = json.loads(flex("inspect", token, "--json").stdout)
    return shown["verified"], shown["revoked"], shown["problem"]


def demo(server):
    return json.loads((Path(server["FLEX_VAR_DIR"]) / "demo-client.json").read_text())


def test_a_token_is_issued_and_verified(flex):
    """The token alone on standard output, so that it can be piped on."""
    token = flex("issue").stdout
    assert token.count(".") == 2
    seen = json.loads(flex("inspect", "-", "--json", text=token).stdout)
    assert (seen["verified"], seen["problem"]) == (True, "")
    assert seen["claims"]["scope"] == "predict:* explain:*"
    assert 890 < seen["expires_in_s"] <= 900
    assert "verified" in flex("inspect", token.strip()).stdout


def test_the_client_may_be_named_by_options_or_the_environment(flex, server, tmp_path, monkeypatch):
    """The secret by file or variable, never on the command line."""
    held = demo(server)
    (tmp_path / "secret").write_text(held["client_secret"] + "\n")
    login = ["--client-id", held["client_id"], "--client-secret-file", str(tmp_path / "secret")]
    answer = json.loads(flex("issue", *login, "--scope", "predict:grit", "--json").stdout)
    assert (answer["token_type"], answer["scope"]) == ("Bearer", "predict:grit")
    monkeypatch.setenv("FLEX_CLIENT_SECRET", held["client_secret"])
    assert flex("issue", "--client-id", held["client_id"]).exit_code == 0


def test_refusals_are_one_line(flex, tmp_path):
    """A wrong secret, a foreign scope, a dead server, half of the credentials."""
    (tmp_path / "secret").write_text("wrong")
    wrong = ["--client-id", "nobody-0123456789ab", "--client-secret-file", str(tmp_path / "secret")]
    for arguments, word in (
        (wrong, "invalid_client"),
        (["--scope", "admin"], "invalid_scope"),
        (["--token-endpoint", "http://127.0.0.1:1/oauth2/token"], "does not answer"),
        (["--client-id", "x"], "--client-secret-file"),
    ):
        ended = flex("issue", *arguments)
        assert (ended.exit_code, ended.stdout, ended.stderr.count("\n")) == (1, "", 1)
        assert word in ended.stderr


def test_what_could_not_be_checked_is_called_not_verified(flex, monkeypatch):
    """Offline, or with the issuer away: the claims are shown, and that nobody vouches for them."""
    token = flex("issue").stdout.strip()
    offline = flex("inspect", token, "--offline")
    assert (offline.exit_code, "not verified" in offline.stdout) == (0, True)
    monkeypatch.setenv("FLEX_ISSUER", "http://127.0.0.1:1")
    away = json.loads(flex("inspect", token, "--json").stdout)
    assert away["verified"] is None
    assert "can't be read" in away["problem"]


def test_a_damaged_token_is_refused_and_nonsense_is_no_token(flex):
    """Exit code 1; nothing is claimed about it."""
    head, payload, signature = flex("issue").stdout.strip().split(".")
    damaged = flex("inspect", f"{head}.{payload}.{signature[::-1]}")
    assert (damaged.exit_code, "refused" in damaged.stdout) == (1, True)
    for text in ("", "abc", "a.b.c", "é.é.é"):
        ended = flex("inspect", text)
        assert (ended.exit_code, ended.stderr) == (1, "flex: this is not a JWT.\n")


def test_a_token_is_revoked_by_itself_or_by_its_id(flex, client):
    """The position is printed; an inspection says so and ends with 1; another token goes on."""
    _, login = client()
    first, second, other = [flex("issue", *login).stdout.strip() for _ in range(3)]
    done = json.loads(flex("revoke", "-", "--json", text=first + "\n").stdout)
    assert (done["kind"], done["sequence"] > 0, len(done["epoch"])) == ("token", True, 32)
    jti = json.loads(flex("inspect", second, "--json").stdout)["claims"]["jti"]
    assert flex("revoke", "--jti", jti).stdout.startswith(f"Revoked jti {jti} (number {done['sequence'] + 1} ")
    for token in (first, second):
        assert seen(flex, token) == (True, True, "token_revoked")
        ended = flex("inspect", token)
        assert (ended.exit_code, "revoked: token_revoked" in ended.stdout) == (1, True)
    assert seen(flex, other) == (True, False, "")
    assert "not revoked" in flex("inspect", other).stdout


@pytest.mark.parametrize("option", ["--client", "--subject"])
def test_all_tokens_until_now_end_and_the_next_one_is_good(flex, client, option):
    """Also within the same second."""
    client_id, login = client()
    for _ in range(3):
        before = flex("issue", *login).stdout.strip()
        assert flex("revoke", option, client_id).exit_code == 0
        after = flex("issue", *login).stdout.strip()
        assert seen(flex, before) == (True, True, f"{option[2:]}_revoked")
        assert seen(flex, after) == (True, False, "")


@pytest.mark.parametrize("option", ["--grant", "--api-key"])
def test_kinds_of_later_are_written_too(flex, option):
    """No token has them yet; the feed does."""
    assert json.loads(flex("revoke", option, "x", "--json").stdout)["kind"] == option[2:].replace("-", "_")


def test_a_client_that_is_ended_has_no_tokens(flex, client):
    """Disabled, secret compromised, deleted."""
    for arguments in (["disable"], ["rotate-secret", "--compromised"], ["delete", "--yes"]):
        client_id, login = client()
        token = flex("issue", *login).stdout.strip()
        assert client(*arguments, client_id).exit_code == 0
        assert seen(flex, token) == (True, True, "client_revoked")
        assert flex("issue", *login).exit_code == 1


def test_a_planned_rotation_of_a_secret_ends_no_token(flex, client):
    """The success beside: nothing is compromised."""
    client_id, login = client()
    token = flex("issue", *login).stdout.strip()
    assert client("rotate-secret", client_id).exit_code == 0
    assert seen(flex, token) == (True, False, "")


def test_a_feed_that_was_tampered_with_is_resealed(flex, client, server):
    """What was deleted in the store is gone; what is authentic stays in force in the new epoch."""
    _, login = client()
    first, second = [flex("issue", *login).stdout.strip() for _ in range(2)]
    for token in (first, second):
        assert flex("revoke", token).exit_code == 0
    with connect_sync(Settings.read(server)) as store:
        (name,) = store.keys("flex:{revocations}:entries:*")
        n_before = store.xlen(name)
        ((last, _),) = store.xrevrange(name, count=1)
        store.xdel(name, last)
    assert json.loads(flex("reseal-feed", "--json").stdout)["kept"] == n_before - 1
    assert seen(flex, first) == (True, True, "token_revoked")
    assert "new epoch" in flex("reseal-feed").stdout


def test_what_can_not_be_revoked_is_refused(flex, client):
    """Nothing or two things named: usage; no token of ours, too long an id: one line."""
    _, login = client()
    head, payload, _ = flex("issue", *login).stdout.strip().split(".")
    for arguments in ([], ["--client", "a", "--subject", "b"], ["x", "--jti", "y"]):
        ended = flex("revoke", *arguments)
        assert (ended.exit_code, ended.stdout, "Usage" in ended.stderr) == (2, "", True)
    for arguments in (["x"], [f"{head}.{payload}.AAAA"], ["--client", "x" * 513]):
        ended = flex("revoke", *arguments)
        assert (ended.exit_code, ended.stdout, ended.stderr.count("\n")) == (1, "", 1)


def test_without_a_feed_an_inspection_says_that_it_can_not_know(flex, monkeypatch, tmp_path):
    """The token is verified all the same, and no feed key is made by looking."""
    token = flex("issue").stdout.strip()
    monkeypatch.setenv("FLEX_FEED_KEY_FILE", str(tmp_path / "none"))
    verified, revoked, problem = seen(flex, token)
    assert (verified, revoked, "there is no feed key here" in problem) == (True, None, True)
    assert not (tmp_path / "none").exists()


def test_a_feed_of_another_key_ends_nothing_and_is_told(flex, client, monkeypatch, tmp_path):
    """The record is changed, and the one line says what is left to do."""
    client_id, _ = client()
    monkeypatch.setenv("FLEX_FEED_KEY_FILE", str(tmp_path / "another"))
    ended = client("disable", client_id)
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert f"flex token revoke --client {client_id}" in ended.stderr
    assert json.loads(client("show", client_id, "--json").stdout)["disabled_at"]
    refused = flex("revoke", "--client", client_id)
    assert (refused.exit_code, refused.stderr.count("\n"), "Restore the key file" in refused.stderr) == (1, 1, True)
