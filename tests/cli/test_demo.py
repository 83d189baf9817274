"""``flex demo`` and, on an instance of its kind, ``flex predict`` and ``flex explain``: real servers, real store."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cli.demo_instance import Instance
from cli.demo_ports import DemoError, status_of

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@contextmanager
def started_demo(folder: Path, *arguments: str) -> Iterator[subprocess.Popen]:
    """Start ``flex demo`` with a temp folder of its own, so that what it leaves behind can be seen."""
    environ = {**os.environ, "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "cli.main", "demo", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # A suite that runs in the background of a shell ignores Ctrl-C, and its children would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(command, cwd=ROOT, env=environ, **pipes) as demo:
        try:
            yield demo
        finally:
            demo.terminate()


def wait_for_line(demo: subprocess.Popen, words: str) -> None:
    """Read what the demo says until a line has these words."""
    said = []
    for line in demo.stdout:
        said.append(line)
        if words in line:
            return
    pytest.fail(f"The demo never said {words!r}: {said}")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name: unix sockets have little room for theirs."""
    with tempfile.TemporaryDirectory(prefix="fd-") as name:
        yield Path(name)


def processes_of(folder: Path) -> list[str]:
    """Command lines of live processes that name the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            where = (process / "cwd").readlink()
        except OSError:
            continue
        if str(folder) in line or where.is_relative_to(folder):
            found.append(line)
    return found


def test_demo_tells_the_whole_story_and_leaves_nothing_behind(folder):
    """Exit code 0 because all of it held; folder and processes are gone."""
    with started_demo(folder, "--json") as demo:
        out, err = demo.communicate()
    assert demo.returncode == 0, err
    told = json.loads(out)
    assert told["ok"]
    assert all(step["ok"] and step["lines"] for step in told["steps"])
    lines = [line for step in told["steps"] for line in step["lines"]]
    assert "✓ 18/18 Stop cleanly" in err
    for said in (
        "of both keys meanwhile, 0 failed",
        "0 lost: one retry with a new token",
        "row 4: 429 at both model servers",
        "old enough and confirmed",
        "(live, has not verified with it)",
        "ms after the key was dropped",
        "POST /oauth2/revoke: 200",
        "ms after it was disabled",
        "2 limited",
        "the token that was revoked is still refused: 401",
    ):
        assert any(said in line for line in lines), said
    assert list(folder.iterdir()) == []
    assert processes_of(folder) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_interrupted_demo_leaves_nothing_behind(folder, number):
    """Ctrl-C and SIGTERM in the middle stop the servers, the store and remove the folder."""
    with started_demo(folder) as demo:
        wait_for_line(demo, "Get an access token")
        assert processes_of(folder)
        demo.send_signal(number)
        demo.communicate()
    assert demo.returncode == 130
    assert processes_of(folder) == []
    assert list(folder.iterdir()) == []


def test_killed_demo_takes_its_processes_with_it(folder):
    """Kill -9 leaves the folder, but no server and no store."""
    with started_demo(folder) as demo:
        wait_for_line(demo, "Get an access token")
        demo.kill()
        demo.communicate()
    deadline = time.monotonic() + 20
    while processes_of(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert processes_of(folder) == []


def test_demo_without_models_says_so_and_fails(folder):
    """One line, exit code 1, and nothing was started."""
    environ = {**os.environ, "FLEX_MODELS_DIR": str(folder)}
    command = [sys.executable, "-m", "cli.main", "demo"]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("flex: There is no attribute 'grit' in ")


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    """One running instance for the tests below."""
    with Instance(ROOT / "models") as instance:
        instance.start("auth")
        instance.start("model")
        yield instance


def test_predict_and_explain_work_with_the_demo_client(instance):
    """The two commands a newcomer types; everything comes from the demo client's file."""
    answer = instance.flex("predict", "grit", "--example", "--id", "p-17")
    assert (answer["id"], answer["attribute"], answer["status"]) == ("p-17", "grit", "ok")
    assert 0 <= answer["interval80"][0] <= answer["score"] <= answer["interval80"][1] <= 100
    explained = instance.flex("explain", "grit", "--example")
    points = sum(each["points"] for each in explained["contributions"])
    assert explained["base_value"] + points == pytest.approx(answer["raw"])
    assert explained["reasons"]


def test_predict_and_explain_speak_to_people_too(instance):
    """Without --json: the score, the reasons and what it is not for, in a few lines."""
    for verb, said in (("predict", "80 of 100 such records lie between"), ("explain", "because")):
        done = instance.run(verb, "grit", "--example")
        assert done.returncode == 0
        assert "grit: " in done.stdout
        assert said in done.stdout
        assert "not for: hiring" in done.stdout


def test_too_little_data_is_told_with_what_would_help(instance):
    """No number where there is none; explain names the missing answer that would help most."""
    for verb in ("predict", "explain"):
        done = instance.run(verb, "grit", "--features", '{"ipip_always_prepared": 4}')
        assert done.returncode == 0
        assert "no score, too little is known" in done.stdout
    assert "the missing answer that this model would use most" in done.stdout


def test_predict_works_with_a_client_of_ones_own(instance):
    """Created by the command line, its secret in a file."""
    made = instance.flex("client", "create", "--name", "own", "--scope", "predict:calm")
    (instance.folder / "secret").write_text(made["client_secret"] + "\n")
    own = ["--client-id", made["client_id"], "--client-secret-file", "secret"]
    assert instance.flex("predict", "calm", "--example", *own)["attribute"] == "calm"
    with pytest.raises(DemoError, match="404 Not found"):
        instance.flex("predict", "grit", "--features", "{}", *own)


def test_a_wrong_field_is_named_in_one_line(instance):
    """The server's pointer reaches the terminal; exit code 1."""
    done = instance.run("predict", "grit", "--features", '{"ipip_always_prepared": "often"}')
    assert done.returncode == 1
    assert "/features/ipip_always_prepared" in done.stderr
    assert done.stderr.count("\n") == 1


def test_part_that_can_not_start_is_told_with_its_last_words(instance):
    """The second auth server on the same port."""
    with Instance(ROOT / "models") as other:
        other._environ["FLEX_AUTH_PORT"] = instance.issuer.rpartition(":")[2]
        with pytest.raises(DemoError, match=r"'flex serve auth' ended with exit code 1: .*(in use|taken|busy)"):
            other.start("auth")
    assert status_of(f"{instance.issuer}/health/live") == 200
    assert not other.folder.exists()
