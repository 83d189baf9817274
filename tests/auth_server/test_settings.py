"""What production refuses to start with, all at once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from auth_server.settings import AuthSettings
from shared.settings import SettingsError


def safe(tmp_path, **changes):
    """An environment that production accepts, with changes."""
    passphrase = tmp_path / "passphrase"
    passphrase.write_text("correct horse\n")
    usual = {
        "FLEX_ENV": "production",
        "FLEX_ISSUER": "https://auth.example",
        "FLEX_REDIS_URL": "rediss://store.example",
        "FLEX_VAR_DIR": str(tmp_path),
        "FLEX_KEYS_PASSPHRASE_FILE": str(passphrase),
    }
    return {name: value for name, value in (usual | changes).items() if value is not None}


def problems(environ):
    with pytest.raises(SettingsError) as error:
        AuthSettings.read(environ)
    return error.value.problems


def test_safe_settings_are_accepted(tmp_path):
    """The success beside the refusals; and development needs nothing."""
    assert AuthSettings.read(safe(tmp_path)).production
    assert not AuthSettings.read({}).production


@pytest.mark.parametrize(
    ("changes", "variable"),
    [
        ({"FLEX_ISSUER": "http://auth.example"}, "FLEX_ISSUER"),
        ({"FLEX_REDIS_URL": None}, "FLEX_REDIS_URL"),
        ({"FLEX_KEYS_PASSPHRASE_FILE": None}, "FLEX_KEYS_PASSPHRASE_FILE"),
        ({"FLEX_CORS_ORIGINS": "*"}, "FLEX_CORS_ORIGINS"),
    ],
)
def test_production_refuses_what_is_unsafe(tmp_path, changes, variable):
    """One sentence, which names the variable."""
    (problem,) = problems(safe(tmp_path, **changes))
    assert problem.startswith(variable)


def test_production_refuses_a_demo_clients_file(tmp_path):
    """It holds a secret of a client that may use everything."""
    (tmp_path / "demo-client.json").write_text("{}")
    (problem,) = problems(safe(tmp_path))
    assert "demo-client.json" in problem


def test_a_passphrase_file_must_be_readable_and_not_empty(tmp_path):
    """In development too: an operator who names one means it."""
    (tmp_path / "empty").write_text("\n")
    for name in ("missing", "empty"):
        (problem,) = problems({"FLEX_KEYS_PASSPHRASE_FILE": str(tmp_path / name)})
        assert problem.startswith("FLEX_KEYS_PASSPHRASE_FILE")


def test_all_problems_are_said_at_once_and_the_process_ends(tmp_path):
    """Exit code 1, a line a problem on standard error, no traceback."""
    environ = safe(tmp_path, FLEX_ISSUER="http://auth.example", FLEX_REDIS_URL=None, FLEX_WORKERS="none")
    ended = subprocess.run(
        [sys.executable, "-m", "auth_server"],
        cwd=Path(__file__).parents[2],
        env={"PATH": os.environ["PATH"]} | environ,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 1
    assert [line.partition(":")[0] for line in ended.stderr.splitlines()] == [
        "FLEX_WORKERS",
        "FLEX_ISSUER",
        "FLEX_REDIS_URL",
    ]
    assert json.dumps(ended.stdout) == '""'
