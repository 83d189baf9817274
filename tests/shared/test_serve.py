"""A served application as a process: start, refusal to start, workers, crash, drain, stop."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
APP = """
import asyncio, os, sys
def create():
    if os.environ.get("BROKEN"):
        raise SystemExit(1)
    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        if scope["path"] == "/crash":
            os._exit(7)
        if scope["path"] == "/slow":
            await asyncio.sleep(0.6)
        if scope["path"] == "/stuck":
            await asyncio.sleep(3600)
        body = f"{os.getpid()} {scope['state'].get('draining', False)} {os.environ.get('PROMETHEUS_MULTIPROC_DIR', '')}"
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body.encode()})
    return app
"""
SCRIPT = "import sys; from pathlib import Path; from shared.serve import run; run('served_app:create', name='auth', host='127.0.0.1', var_dir=Path(sys.argv[1]), port=int(sys.argv[2]), workers=int(sys.argv[3]), drain_s=float(sys.argv[4]), stop_timeout_s=1.0)"

pytestmark = pytest.mark.slow


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Served:
    """One server process under test."""

    def __init__(
        self, folder: Path, *, workers: int = 1, drain_s: float = 0.0, port: int = 0, broken: bool = False
    ) -> None:
        (folder / "served_app.py").write_text(APP)
        self.port = port or free_port()
        environment = {**os.environ, "PYTHONPATH": f"{folder}:{ROOT}"} | ({"BROKEN": "1"} if broken else {})
        command = [sys.executable, "-c", SCRIPT, str(folder), str(self.port), str(workers), str(drain_s)]
        self.process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def get(self, path: str = "/") -> str:
        """Body of one GET on a connection of its own; raises OSError where there is none."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
        if not answer:
            raise ConnectionError("no answer")
        return answer.partition(b"\r\n\r\n")[2].decode()

    def wait_ready(self) -> None:
        self.wait_until(lambda: bool(self.get()))

    def wait_until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 15
        while True:
            try:
                if condition():
                    return
            except OSError:
                pass
            assert time.monotonic() < end, "it did not come to be"
            time.sleep(0.02)

    def end(self, number: int = 0) -> tuple[int, str, str]:
        """Send a signal (0: none) and wait; give exit code, standard output and standard error."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, out, err


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Start servers; none outlives the test."""
    started: list[Served] = []

    def start(**options) -> Served:
        started.append(Served(tmp_path, **options))
        return started[-1]

    yield start
    for served in started:
        if served.process.poll() is None:
            served.process.kill()
        served.process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("workers", [1, 2])
def test_it_serves_and_stops_cleanly(serve: Callable[..., Served], number: int, workers: int) -> None:
    """SIGTERM and Ctrl-C both end it with exit code 0, and its events say what happened."""
    served = serve(workers=workers)
    seen: set[str] = set()
    served.wait_until(lambda: bool(seen.add(served.get().split()[0])) or len(seen) == workers)
    code, out, err = served.end(number)
    assert (code, err) == (0, "")
    assert out.count("server_started") == out.count("server_stopping") == workers
    with pytest.raises(OSError):
        served.get()


def test_a_busy_port_is_one_clear_sentence(serve: Callable[..., Served]) -> None:
    """The message names the port and the setting."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        code, out, err = serve(port=port).end()
    assert (code, out) == (1, "")
    assert str(port) in err
    assert "FLEX_AUTH_PORT" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_an_application_that_can_not_start_ends_it(serve: Callable[..., Served], workers: int) -> None:
    """Exit code 1, at once, without trying for ever."""
    served = serve(workers=workers, broken=True)
    assert served.process.wait(timeout=15) == 1


def test_a_running_request_is_finished_before_the_end(serve: Callable[..., Served]) -> None:
    """What was begun before SIGTERM gets its answer."""
    served = serve()
    served.wait_ready()
    with socket.create_connection(("127.0.0.1", served.port), timeout=5) as connection:
        connection.sendall(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(0.2)
        served.process.send_signal(signal.SIGTERM)
        assert b"200 OK" in connection.recv(4096)
    assert served.end()[0] == 0


def test_a_stuck_request_does_not_stop_the_stop(serve: Callable[..., Served]) -> None:
    """After the stop time-out a request is cut off with 503."""
    served = serve()
    served.wait_ready()
    with socket.create_connection(("127.0.0.1", served.port), timeout=5) as connection:
        connection.sendall(b"GET /stuck HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(0.2)
        served.process.send_signal(signal.SIGTERM)
        assert b"503 Service Unavailable" in connection.recv(4096)
    assert served.end()[0] == 0


def test_a_draining_server_serves_and_says_that_it_drains(serve: Callable[..., Served]) -> None:
    """Between SIGTERM and the end requests are answered, and the state tells readiness to be false."""
    served = serve(drain_s=1.0)
    served.wait_ready()
    assert served.get().split()[1] == "False"
    served.process.send_signal(signal.SIGTERM)
    served.wait_until(lambda: served.get().split()[1] == "True")
    assert served.end()[0] == 0


def test_a_crashed_worker_is_replaced_while_the_other_serves(serve: Callable[..., Served], tmp_path: Path) -> None:
    """Two processes share the port; one that dies is started again, and old metrics do not stay."""
    (tmp_path / "metrics" / "auth").mkdir(parents=True)
    (tmp_path / "metrics" / "auth" / "counter_1.db").write_text("old")
    served = serve(workers=2)
    seen: set[str] = set()
    served.wait_until(lambda: bool(seen.add(served.get().split()[0])) or len(seen) == 2)
    assert served.get().split()[2] == str(tmp_path / "metrics" / "auth")
    assert not (tmp_path / "metrics" / "auth" / "counter_1.db").exists()
    with pytest.raises(OSError):
        served.get("/crash")
    assert served.get()
    before = set(seen)
    served.wait_until(lambda: served.get().split()[0] not in before)
    code, out, _ = served.end(signal.SIGTERM)
    assert code == 0
    assert '"exit_code":7' in out


def test_workers_die_with_a_killed_parent(serve: Callable[..., Served]) -> None:
    """Kill -9 of the parent leaves no process on the port."""
    served = serve(workers=2)
    served.wait_ready()
    served.process.kill()
    served.process.wait()

    def gone() -> bool:
        try:
            served.get()
        except ConnectionRefusedError:
            return True
        return False

    served.wait_until(gone)
