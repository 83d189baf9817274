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

from cli.tokens import app

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
