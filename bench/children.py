"""Child processes on a chosen core: started, awaited, and always ended; never anything that we did not start."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.machine import on_core

READY_WITHIN_S = 60.0
STOP_WITHIN_S = 10.0
_POLL_S = 0.001


class NotReadyError(Exception):
    """A child ended, or did not answer in time; the message ends with its last lines."""


@dataclass(frozen=True, slots=True)
class Child:
    """One process we started; ``started`` is on the monotonic clock."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    started: float

    @property
    def pid(self) -> int:
        """Process id."""
        return self.process.pid

    def last_words(self) -> str:
        """End of what the child printed."""
        with contextlib.suppress(OSError):
            return self.log.read_text(errors="replace")[-1500:]
        return ""


def free_port() -> int:
    """Port of the loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def child(
    name: str, command: Sequence[str], *, core: int | None = None, environ: Mapping[str, str], log: Path, cwd: Path
) -> Iterator[Child]:
    """Run a process in a session of its own while the block runs; its output goes to ``log``.

    Without ``core`` it runs on any.
    """
    with log.open("ab") as output, contextlib.nullcontext() if core is None else on_core(core):
        started = time.perf_counter()
        process = subprocess.Popen(
            command,
            env=dict(environ),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield Child(name, process, log, started)
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a child kindly; after 10 s, and for anything left of its session, without asking."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_WITHIN_S)
    # The child leads a session of its own, so its group holds only what it started itself.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_ready(one: Child, port: int, path: str, *, within_s: float = READY_WITHIN_S) -> float:
    """Seconds from exec to the first 200 of ``GET path``; raises NotReadyError when that does not come."""
    while time.perf_counter() - one.started < within_s:
        if one.process.poll() is not None:
            raise NotReadyError(f"{one.name} ended with {one.process.returncode}: {one.last_words()}")
        if _answers_200(port, path):
            return time.perf_counter() - one.started
        time.sleep(_POLL_S)
    raise NotReadyError(f"{one.name} did not answer {path} within {within_s:.0f} s: {one.last_words()}")


def _answers_200(port: int, path: str) -> bool:
    request = f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n".encode()
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(request)
            return connection.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False
