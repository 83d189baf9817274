"""`flex serve`, with all three processes for real: ready, crashed, killed, stopped."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from shared.embedded_store import EmbeddedStore
from shared.settings import Settings
from shared.store import connect_sync

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
FLEX = [sys.executable, "-c", "from cli.main import main; main()"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Place:
    """One installation under test: its own var and keys folders and ports."""

    def __init__(self, folder: Path) -> None:
        self.var, self.auth, self.model = folder / "var", free_port(), free_port()
        self.environment = {
            **os.environ,
            "FLEX_VAR_DIR": str(self.var),
            "FLEX_KEYS_DIR": str(folder / "keys"),
            "FLEX_AUTH_PORT": str(self.auth),
            "FLEX_MODEL_PORT": str(self.model),
            "FLEX_ISSUER": f"http://127.0.0.1:{self.auth}",
            "FLEX_RESOURCE": f"http://127.0.0.1:{self.model}",
            "PYTHONPATH": str(ROOT),
        }
        self.started: list[Flex] = []

    def flex(self, *arguments: str, **environment: str) -> "Flex":
        self.started.append(Flex(self, arguments, self.environment | environment))
        return self.started[-1]

    def demo(self) -> dict[str, str]:
        return json.loads((self.var / "demo-client.json").read_text())

    def store_pid(self) -> int:
        with connect_sync(Settings(var_dir=self.var)) as client:
            return int(client.info("server")["process_id"])

    def token(self) -> str:
        demo = self.demo()
        form = {
            "grant_type": "client_credentials",
            "client_id": demo["client_id"],
            "client_secret": demo["client_secret"],
        }
        with urllib.request.urlopen(demo["token_endpoint"], urllib.parse.urlencode(form).encode(), timeout=5) as reply:
            return json.load(reply)["access_token"]

    def is_ready(self, port: int) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=2) as reply:
                return reply.status == 200
        except (OSError, urllib.error.URLError):
            return False

    def wait_ready(self, *ports: int) -> None:
        wait_until(lambda: all(self.is_ready(port) for port in ports))

    def assert_nothing_left(self) -> None:
        """No port is served and no store runs."""
        for port in (self.auth, self.model):
            with socket.socket() as probe:
                assert probe.connect_ex(("127.0.0.1", port)) != 0
        assert not EmbeddedStore(self.var).is_running()


class Flex:
    """One running `flex` command."""

    def __init__(self, place: Place, arguments: tuple[str, ...], environment: dict[str, str]) -> None:
        self.output = place.var.parent / f"output-{len(place.started)}"
        with self.output.open("w") as file:
            self.process = subprocess.Popen(
                [*FLEX, *arguments], cwd=ROOT, env=environment, stdout=file, stderr=subprocess.PIPE, text=True
            )

    @property
    def text(self) -> str:
        return self.output.read_text()

    def events(self, name: str) -> list[dict]:
        lines = [line for line in self.text.splitlines() if line.startswith("{") and f'"event":"{name}"' in line]
        return [json.loads(line) for line in lines]

    def server_pid(self, name: str) -> int:
        return self.events("server_started")[[e["name"] for e in self.events("server_started")].index(name)]["pid"]

    def wait_ready(self) -> None:
        wait_until(lambda: "Flex is ready" in self.text or self.process.poll() is not None)
        assert self.process.poll() is None, self.end()

    def end(self, number: int = 0) -> tuple[int, str]:
        """Send a signal (0: none) and wait; give exit code and standard error."""
        self.process.send_signal(number)
        _, err = self.process.communicate(timeout=45)
        return self.process.returncode, err


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 45
    while not condition():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.05)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """An installation; whatever a failed test left of it is ended."""
    made = Place(tmp_path)
    yield made
    for flex in made.started:
        if flex.process.poll() is None:
            flex.process.terminate()
            flex.process.communicate(timeout=45)
        for event in flex.events("server_started"):
            with suppress(ProcessLookupError):
                os.kill(event["pid"], 0)
                wait_until(lambda pid=event["pid"]: not Path(f"/proc/{pid}").exists())
    store = EmbeddedStore(made.var)
    if store.is_running():
        store.attach()
        store.release()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_all_three_start_serve_and_stop(place: Place, number: int) -> None:
    """The printed calls work as they stand; the stop is clean and leaves nothing running."""
    flex = place.flex("serve", "all")
    flex.wait_ready()
    shown = flex.text[flex.text.index("# Get an access token") :]
    calls = [line for line in shown.splitlines() if line.startswith(("TOKEN=", "curl "))]
    assert len(calls) == 4
    assert "make rotate-keys" in shown
    if shutil.which("curl"):
        answers = subprocess.run(
            ["/bin/sh", "-c", "\n".join(f"{call}\necho" for call in calls)],
            cwd=ROOT,
            env=place.environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split("\n")
        listed, score, reasons = (json.loads(answer) for answer in answers if answer)
        assert any(attribute["id"] == "grit" for attribute in listed["attributes"])
        assert 0 <= score["score"] <= 100
        assert "error" not in reasons
    assert flex.end(number) == (0, "")
    place.assert_nothing_left()
    stops = [event["name"] for event in flex.events("server_stopping")]
    assert stops == ["model", "auth"]


def test_a_restart_finds_every_client_again(place: Place) -> None:
    """State outlives a clean stop and a kill -9 of everything at once."""
    flex = place.flex("serve", "all", "--json")
    wait_until(lambda: '"auth_server"' in flex.text)
    before = place.demo()
    pids = [place.store_pid(), flex.process.pid, flex.server_pid("auth"), flex.server_pid("model")]
    place.token()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    flex.end()
    flex = place.flex("serve", "all")
    flex.wait_ready()
    assert place.demo() == before
    assert place.token()
    assert flex.end(signal.SIGTERM) == (0, "")
    place.assert_nothing_left()


def test_every_process_that_is_killed_comes_back(place: Place) -> None:
    """Kill -9 of the store, the auth server, the model server: each is started again, with all its state."""
    flex = place.flex("serve", "all")
    flex.wait_ready()
    os.kill(place.store_pid(), signal.SIGKILL)
    wait_until(lambda: EmbeddedStore(place.var).is_ready())
    place.wait_ready(place.auth)
    assert place.token()
    for name, port in (("auth", place.auth), ("model", place.model)):
        os.kill(flex.server_pid(name), signal.SIGKILL)
        wait_until(lambda name=name: any(e["name"] == f"{name} server" for e in flex.events("process_crashed")))
        place.wait_ready(port)
    assert place.token()
    assert flex.end(signal.SIGTERM) == (0, "")
    place.assert_nothing_left()


def test_servers_stop_when_the_supervisor_is_killed(place: Place) -> None:
    """Kill -9 of the supervisor leaves no server behind, and the next start works at once."""
    flex = place.flex("serve", "all")
    flex.wait_ready()
    flex.end(signal.SIGKILL)
    wait_until(lambda: not place.is_ready(place.auth) and not place.is_ready(place.model))
    wait_until(lambda: not EmbeddedStore(place.var).is_running())
    again = place.flex("serve", "all")
    again.wait_ready()
    assert again.end(signal.SIGTERM) == (0, "")


def test_a_second_one_on_the_same_folder_is_refused(place: Place) -> None:
    """One clear line, exit code 1, and the first one goes on."""
    flex = place.flex("serve", "all")
    flex.wait_ready()
    code, err = place.flex("serve", "all", FLEX_AUTH_PORT=str(free_port())).end()
    assert code == 1
    assert err.count("\n") == 1
    assert "FLEX_VAR_DIR" in err
    assert place.is_ready(place.auth)


def test_a_busy_port_is_said_before_anything_starts(place: Place) -> None:
    """The sentence names the port and its setting; no store and no server was started."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", place.model))
        other.listen()
        code, err = place.flex("serve", "all").end()
    assert code == 1
    assert str(place.model) in err
    assert "FLEX_MODEL_PORT" in err
    assert err.count("\n") == 1
    place.assert_nothing_left()


def test_a_server_that_can_not_start_ends_it_with_1(place: Place) -> None:
    """What only the server itself can find wrong is said, and nothing keeps running."""
    keys = Path(place.environment["FLEX_KEYS_DIR"])
    keys.mkdir(mode=0o700)
    (keys / "keyring.json").write_text("{")
    (keys / "keyring.json").chmod(0o600)
    code, err = place.flex("serve", "all").end()
    assert code == 1
    assert "The auth server ended while it was starting" in err
    place.assert_nothing_left()
    code, err = place.flex("serve", "all", FLEX_WORKERS="none").end()
    assert code == 1
    assert "FLEX_WORKERS" in err


def test_an_interrupted_start_is_a_clean_stop(place: Place) -> None:
    """Ctrl-C before everything is ready stops what was started."""
    flex = place.flex("serve", "all")
    wait_until(lambda: bool(flex.events("store_started")))
    assert flex.end(signal.SIGINT) == (0, "")
    place.assert_nothing_left()


def test_parts_run_alone(place: Place) -> None:
    """The auth server alone brings its store; the model server joins it later; the store stays while one uses it."""
    auth = place.flex("serve", "auth")
    auth.wait_ready()
    store = place.flex("serve", "store")
    store.wait_ready()
    model = place.flex("serve", "model")
    model.wait_ready()
    assert auth.end(signal.SIGTERM) == (0, "")
    assert EmbeddedStore(place.var).is_running()
    assert place.is_ready(place.model)
    assert store.end(signal.SIGTERM) == (0, "")
    assert model.end(signal.SIGTERM) == (0, "")
    place.assert_nothing_left()
