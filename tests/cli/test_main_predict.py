"""``flex predict`` and ``flex explain``: what is refused before anything is sent (the rest is in test_demo)."""

import json
import sys

import pytest

from cli import main as flex


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run ``flex`` in an empty folder; gives (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["flex", *arguments])
        with pytest.raises(SystemExit) as end:
            flex.main()
        return int(end.value.code or 0), *capsys.readouterr()

    return run


@pytest.mark.parametrize("verb", ["predict", "explain"])
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--features, or use --example"),
        (["--features", "{}", "--example"], "--features, or use --example"),
        (["--features", "{"], "is not JSON"),
        (["--features", "[1]"], "must be a JSON object"),
        (["--features", '{"features": 1}'], "must be an object"),
        (["--features", "{}", "--client-id", "c"], "needs --client-secret-file"),
    ],
)
def test_wrong_usage_is_refused_before_anything_is_sent(run, verb, arguments, said):
    """Exit code 2, and what is wrong."""
    code, out, err = run(verb, "grit", *arguments)
    assert (code, out) == (2, "")
    assert said in err


@pytest.mark.parametrize("verb", ["predict", "explain"])
def test_without_a_client_it_says_how_to_get_one(run, verb):
    """The first thing that a newcomer runs into."""
    code, _, err = run(verb, "grit", "--example")
    assert code == 1
    assert "demo-client.json" in err
    assert "flex serve all" in err
    assert err.count("\n") == 1


def test_unreachable_token_endpoint_is_one_line(run, tmp_path):
    """Nobody listens: the line names the place, and not the secret."""
    members = {"client_id": "c", "client_secret": "s3cret-word", "token_endpoint": "http://127.0.0.1:1/oauth2/token"}
    (tmp_path / "client.json").write_text(json.dumps({**members, "resource": "http://127.0.0.1:1"}))
    code, _, err = run("predict", "grit", "--features", "{}", "--client-file", "client.json")
    assert code == 1
    assert "http://127.0.0.1:1/oauth2/token did not answer" in err
    assert (err.count("\n"), "s3cret-word" in err) == (1, False)


def test_features_come_from_a_file_or_from_standard_input(run, tmp_path, monkeypatch):
    """@FILE and -; a whole request body is fine too. Here they get as far as the missing server."""
    (tmp_path / "s").write_text("s")
    (tmp_path / "r.json").write_text('{"features": {"x": 1}}')
    client = ["--client-id", "c", "--client-secret-file", "s", "--token-endpoint", "http://127.0.0.1:1/t"]
    assert run("predict", "grit", "--features", "@r.json", *client)[0] == 1
    code, _, err = run("predict", "grit", "--features", "@missing.json", *client)
    assert (code, err) == (1, "flex: No such file or directory: missing.json\n")
    with (tmp_path / "r.json").open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert "did not answer" in run("predict", "grit", "--features", "-", *client)[2]
