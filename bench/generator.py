"""The load generator on its own core: ``wrk`` where it is installed, else our own, which says so in the report.

Both read the same request files, rotate through them over kept-alive connections, and give the same figures.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench.machine import on_core

MISSING_WRK = (
    "wrk is not installed (Debian and Ubuntu: apt-get install wrk); using the slower generator of this project"
)
SCRIPT = Path(__file__).with_name("wrk.lua")
STUCK_AFTER_S = 60


class LoadFailedError(Exception):
    """An answer was not what it must be, or a connection broke; the figures of such a run mean nothing."""


@dataclass(frozen=True, slots=True)
class Load:
    """Load on one address of the loopback; ``cold`` requests are used once each, ``warm`` ones over and over."""

    port: int
    connections: int
    seconds: int
    warm: Path
    cold: Path | None = None
    cold_every: int = 0


class Outcome(msgspec.Struct, frozen=True):
    """What one load brought: ``n`` answers in ``duration_us``; latencies in microseconds."""

    n: int
    duration_us: float
    p50_us: float
    p99_us: float
    max_us: float
    ran_out: int
    failed: dict[str, int]

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.n / self.duration_us * 1e6


def write_requests(path: Path, requests: Iterable[bytes]) -> Path:
    """Write whole HTTP requests to a file, each after its length; both generators read this form."""
    with path.open("wb") as file:
        for request in requests:
            file.write(b"%d\n%s" % (len(request), request))
    return path


def has_wrk() -> bool:
    """Whether wrk can be used."""
    return shutil.which("wrk") is not None


def name() -> str:
    """Which generator is used, with its version."""
    wrk = shutil.which("wrk")
    if wrk is None:
        return "the project's own generator (asyncio; wrk is not installed)"
    banner = subprocess.run([wrk, "--version"], capture_output=True, text=True, check=False).stdout.split()
    numbers = [part for word in banner[:2] for part in word.split("/") if part[:1].isdecimal()]
    return " ".join(["wrk", *(number.split("-")[0] for number in numbers[:1])])


def command(load: Load) -> list[str]:
    """Command line that runs one load."""
    files = [str(load.warm), str(load.cold or "-"), str(load.cold_every)]
    wrk = shutil.which("wrk")
    if wrk is None:
        numbers = [str(load.port), str(load.connections), str(load.seconds)]
        return [sys.executable, "-m", "bench.own_generator", *numbers, *files]
    url = f"http://127.0.0.1:{load.port}/"
    return [wrk, "-t1", f"-c{load.connections}", f"-d{load.seconds}s", "-s", str(SCRIPT), url, "--", *files]


class Running:
    """A load that has begun on ``core``; :meth:`finish` waits for its end."""

    def __init__(self, load: Load, core: int) -> None:
        self._load = load
        with on_core(core):
            self._process = subprocess.Popen(command(load), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def finish(self) -> Outcome:
        """Wait and read the figures.

        Raises LoadFailedError when an answer had an error status, a connection broke, or cold tokens ran out.
        """
        try:
            output, _ = self._process.communicate(timeout=self._load.seconds + STUCK_AFTER_S)
        finally:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
        return read_outcome(output)


def read_outcome(output: bytes) -> Outcome:
    """Read a generator's output; raises LoadFailedError unless every answer was good."""
    _, mark, line = output.rpartition(b"@@")
    if not mark:
        raise LoadFailedError(f"the load generator said: {output.decode(errors='replace')[-400:].strip()}")
    outcome = msgspec.json.decode(line.strip(), type=Outcome)
    failed = {kind: count for kind, count in outcome.failed.items() if count}
    if failed:
        raise LoadFailedError(f"not every answer was good: {failed} of {outcome.n}")
    if outcome.ran_out:
        raise LoadFailedError(f"{outcome.ran_out} requests were meant to carry a new token, but none was left")
    if not outcome.n:
        raise LoadFailedError("no answer arrived at all")
    return outcome


def run(load: Load, core: int) -> Outcome:
    """Run one load to its end on ``core``; see :class:`Running`."""
    return Running(load, core).finish()
