"""A throw-away instance for ``flex demo``: its own folder, ports, keys, store and servers, all gone afterwards.

Its parts are ``auth``, ``model`` and ``model-2``, a model server as on another host: with a var folder of its own, at
the same store. Both model servers are one resource, so a token is good at either.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self, cast

from cli.demo_ports import DemoError, free_ports, status_of
from shared.embedded_store import EmbeddedStore
from shared.processes import PARENT_VARIABLE
from shared.settings import Settings
from shared.store import connect_sync

JWKS_MAX_AGE_S = 2
_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 15.0
_COMMAND_TIMEOUT_S = 40.0
_POLL_S = 0.05
# A server that is started so gets SIGTERM from the kernel should the demo be killed.
_CHILD = "from shared.processes import die_with_parent; die_with_parent(); from cli.main import main; main()"


class Instance:
    """Everything the demo starts. A context manager: what is still there at its end is stopped and removed."""

    def __init__(self, models_dir: Path) -> None:
        if not (models_dir / "grit").is_dir():
            raise DemoError(f"There is no attribute 'grit' in {models_dir.absolute()}; FLEX_MODELS_DIR says where.")
        self.folder = Path(tempfile.mkdtemp(prefix="flex-demo-"))
        self._auth_port, *self._model_ports = free_ports(3)
        self.issuer = f"http://127.0.0.1:{self._auth_port}"
        self.model_servers = tuple(f"http://127.0.0.1:{port}" for port in self._model_ports)
        self.resource = self.model_servers[0]
        self.token_endpoint = f"{self.issuer}/oauth2/token"
        self._environ = self._own_environ(models_dir.absolute())
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def start(self, part: str) -> None:
        """Run ``flex serve PART`` and wait until it is ready. Raises DemoError."""
        with (self.folder / f"{part}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", _CHILD, "serve", part.partition("-")[0]],
                cwd=self.folder,
                env={**self._environ, **self._environ_of(part), PARENT_VARIABLE: str(os.getpid())},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches the demo alone, which then stops its parts in order
            )
        self._running[part] = process
        url = self._address_of(part) + "/health/ready"

        def ready() -> bool:
            if process.poll() is not None:
                raise DemoError(
                    f"'flex serve {part}' ended with exit code {process.returncode}: {self._last_line(part)}"
                )
            return status_of(url) == 200

        if not wait_until(ready, _START_TIMEOUT_S):
            raise DemoError(f"'flex serve {part}' was not ready in {_START_TIMEOUT_S:g} s: {self._last_line(part)}")

    def stop(self, part: str) -> int:
        """Send SIGTERM and give the exit code. Raises DemoError if it has to be killed."""
        process = self._running.pop(part)
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise DemoError(f"'flex serve {part}' did not stop within {_STOP_TIMEOUT_S:g} s.") from None

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a ``flex`` command on this instance. Raises DemoError if it does not end."""
        try:
            return subprocess.run(
                [sys.executable, "-m", "cli.main", *arguments],
                cwd=self.folder,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_COMMAND_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            command = " ".join(arguments[:2])
            raise DemoError(f"'flex {command}' did not end within {_COMMAND_TIMEOUT_S:g} s.") from None

    def flex(self, *arguments: str) -> dict[str, Any]:
        """Run a ``flex`` command with ``--json`` and give what it prints. Raises DemoError."""
        done = self.run(*arguments, "--json")
        command = "flex " + " ".join(arguments[:2])
        if done.returncode != 0:
            said = done.stderr.strip().splitlines() or ["nothing"]
            raise DemoError(f"'{command}' ended with exit code {done.returncode} and said: {said[-1]}")
        try:
            answer: dict[str, Any] = json.loads(done.stdout)
        except ValueError:
            raise DemoError(f"'{command}' did not print JSON.") from None
        return answer

    def event_at(self, name: str) -> float:
        """When a command last said that something has happened (UTC seconds). Raises DemoError."""
        with (self.folder / "var" / "operator-events.jsonl").open(encoding="utf-8") as lines:
            times = [event["ts"] for event in map(json.loads, lines) if event["event"] == name]
        if not times:
            raise DemoError(f"No command has left the event '{name}'.")
        return float(times[-1])

    def store_runs(self) -> bool:
        """Whether the embedded store's process lives."""
        return EmbeddedStore(self.folder / "var").is_running()

    @contextmanager
    def frozen_store(self) -> Iterator[None]:
        """Halt the embedded store's process, as on a machine that hangs; a dead one would be started again."""
        with connect_sync(Settings(var_dir=self.folder / "var")) as client:
            pid = cast("dict[str, int]", client.info("server"))["process_id"]
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    @contextmanager
    def frozen_server(self, part: str) -> Iterator[None]:
        """Halt a server's process, as one that hangs."""
        pid = self._server_pid(part)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def store_answers(self) -> bool:
        """Whether the embedded store answers within 0.2 s."""
        return EmbeddedStore(self.folder / "var").is_ready(0.2)

    def remove(self) -> None:
        """Stop whatever still runs, the store too, and remove the folder."""
        for process in self._running.values():
            process.terminate()
        for process in self._running.values():
            try:
                process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()
        if self.folder.is_dir() and self.store_runs():
            with EmbeddedStore(self.folder / "var"):
                """Attach to a store whose users were killed: the last one to leave stops it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _server_pid(self, part: str) -> int:
        """Find the server under its supervisor: it has said who it is."""
        for line in reversed((self.folder / f"{part}.log").read_text("utf-8", "replace").splitlines()):
            if '"server_started"' in line:
                return int(json.loads(line)["pid"])
        raise DemoError(f"'{part}' never said that it has started.")

    def _address_of(self, part: str) -> str:
        return {"auth": self.issuer, "model": self.model_servers[0], "model-2": self.model_servers[1]}[part]

    def _environ_of(self, part: str) -> dict[str, str]:
        if part != "model-2":
            return {}
        var = self.folder / "var"
        return {
            "FLEX_MODEL_PORT": str(self._model_ports[1]),
            "FLEX_VAR_DIR": str(self.folder / "var-2"),
            "FLEX_REDIS_URL": f"unix://{EmbeddedStore(var).socket_path}",
            "FLEX_FEED_KEY_FILE": str(var / "feed.key"),
        }

    def _last_line(self, part: str) -> str:
        lines = (self.folder / f"{part}.log").read_text("utf-8", "replace").strip().splitlines()
        return lines[-1][:300] if lines else "it said nothing."

    def _own_environ(self, models_dir: Path) -> dict[str, str]:
        inherited = {name: text for name, text in os.environ.items() if not name.startswith("FLEX_")}
        own = {
            "AUTH_PORT": self._auth_port,
            "MODEL_PORT": self._model_ports[0],
            "ISSUER": self.issuer,
            "RESOURCE": self.resource,
            "VAR_DIR": self.folder / "var",
            "KEYS_DIR": self.folder / "keys",
            "MODELS_DIR": models_dir,
            "JWKS_MAX_AGE_S": JWKS_MAX_AGE_S,
            "LOG_ACCESS": 0,
        }
        root = str(Path(__file__).parent.parent)  # so that it also runs from a source folder that is not installed
        return {**inherited, "PYTHONPATH": root, **{f"FLEX_{name}": str(value) for name, value in own.items()}}


def wait_until(holds: Callable[[], bool], timeout_s: float) -> bool:
    """Look again and again until it holds; False after ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True
