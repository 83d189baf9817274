"""The root of ``flex``: help, version, quick start, one line for whatever goes wrong."""

import json
import os
import subprocess
import sys

import pytest
import typer

from cli import main as flex
from cli.output import fail, one_line_errors, print_json
from shared.embedded_store import EmbeddedStoreError
from shared.errors import AppError, FieldError
from shared.settings import SettingsError


@pytest.fixture
def run(monkeypatch, capsys):
    """Run ``flex`` in this process; gives (exit code, standard output, standard error)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["flex", *arguments])
        with pytest.raises(SystemExit) as end:
            flex.main()
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return run


def test_help_lists_every_noun_with_one_line(run):
    """A newcomer finds everything from here."""
    code, out, _ = run("--help")
    assert code == 0
    for name, noun in flex.NOUNS.items():
        assert name in out
        assert noun.line.split(":")[0][:40] in out


@pytest.mark.parametrize("noun", flex.NOUNS)
def test_every_noun_is_there_and_has_help(run, noun):
    """The list names nothing that is not built."""
    code, out, err = run(noun, "--help")
    assert code == 0, err
    assert f"flex {noun}" in out


@pytest.mark.parametrize("arguments", [["nonsense"], ["keys", "nonsense"], ["--nonsense"], ["predict"]])
def test_wrong_usage_is_exit_code_2(run, arguments):
    """As the contract has it; what is wrong is on standard error."""
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert "Usage: flex" in err


def test_version_is_one_line(run):
    """For bug reports."""
    code, out, _ = run("--version")
    assert code == 0
    assert out.startswith("flex ")
    assert out.count("\n") == 1


def test_help_and_the_list_load_no_server_and_no_http_client():
    """`flex --help` starts quickly: the nouns are loaded only when used."""
    program = "import sys, cli.main; sys.argv = ['flex', '--help']\ntry: cli.main.main()\nexcept SystemExit: pass\n"
    program += "import json; sys.stderr.write(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, timeout=30)
    loaded = set(json.loads(done.stderr))
    heavy = {"auth_server", "model_server", "httpx", "starlette", "uvicorn", "redis", "cryptography", "numpy"}
    assert not loaded & heavy


def test_unexpected_exception_is_one_line_and_debug_shows_where(monkeypatch, capsys):
    """No traceback for an operator; FLEX_DEBUG=1 for whoever mends it."""

    def stumble() -> None:
        with one_line_errors():
            raise RuntimeError("first line\nsecond \x1b[31mline")

    monkeypatch.delenv("FLEX_DEBUG", raising=False)
    with pytest.raises(typer.Exit) as end:
        stumble()
    assert end.value.exit_code == 1
    err = capsys.readouterr().err
    assert err.startswith("flex: unexpected RuntimeError: first line second ")
    assert (err.count("\n"), "\x1b" in err, "Traceback" in err) == (1, False, False)
    monkeypatch.setenv("FLEX_DEBUG", "1")
    with pytest.raises(typer.Exit):
        stumble()
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (AppError("conflict", "The standby key is too young."), "flex: The standby key is too young.\n"),
        (
            AppError("invalid_record", "Wrong.", errors=[FieldError("/features/x", "low", "At least 1.", "x")]),
            "flex: Wrong. /features/x: At least 1.\n",
        ),
        (SettingsError(["FLEX_A: must be 1.", "FLEX_B: must be 2."]), "flex: FLEX_A: must be 1. FLEX_B: must be 2.\n"),
        (EmbeddedStoreError("The store does not stop."), "flex: The store does not stop.\n"),
        (FileNotFoundError(2, "No such file or directory", "x.json"), "flex: No such file or directory: x.json\n"),
    ],
)
def test_known_refusals_speak_for_themselves(capsys, error, said):
    """One clear line on standard error, nothing on standard output."""
    with pytest.raises(typer.Exit) as end, one_line_errors():
        raise error
    assert end.value.exit_code == 1
    assert capsys.readouterr() == ("", said)


def test_usage_errors_and_exits_pass_through():
    """Typer's own exceptions keep their exit codes."""
    with pytest.raises(typer.BadParameter), one_line_errors():
        raise typer.BadParameter("no")
    with pytest.raises(typer.Exit) as end, one_line_errors():
        fail("no")
    assert end.value.exit_code == 1


def test_json_is_readable_and_parses(capsys):
    """What --json prints."""
    print_json({"a": [1, None], "b": AppError("not_found").code})
    out = capsys.readouterr().out
    assert json.loads(out) == {"a": [1, None], "b": "not_found"}
    assert "\n  " in out


def test_serving_names_every_problem_of_every_part_at_once(tmp_path):
    """An operator mends production settings in one go, whichever server each problem belongs to."""
    wrong = {
        "FLEX_ENV": "production",
        "FLEX_ISSUER": "http://auth.example",
        "FLEX_CORS_ORIGINS": "*",
        "FLEX_VAR_DIR": str(tmp_path),
        "FLEX_KEYS_DIR": str(tmp_path / "keys"),
    }
    refused = subprocess.run(
        [sys.executable, "-m", "cli.main", "serve", "all"],
        env={**os.environ, **wrong},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    told = refused.stderr.splitlines()
    named = {line.split(":")[0] for line in told}
    assert refused.returncode == 1
    assert named == {"FLEX_CORS_ORIGINS", "FLEX_ISSUER", "FLEX_REDIS_URL", "FLEX_KEYS_PASSPHRASE_FILE"}
    assert len(told) == 4
