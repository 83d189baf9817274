"""Child processes that are kept alive: start, wait until ready, start again after a crash, stop.

Used by a server for its workers and by ``flex serve all`` for the servers.
"""

import asyncio
import ctypes
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

PARENT_VARIABLE = "FLEX_PARENT_PID"
EXIT_START_FAILED = 3  # a server that could not start: the same start would fail the same way again
_PR_SET_PDEATHSIG = 1
_SETTLED_S = 60.0
_BACKOFF_CAP_S = 10.0
_POLL_S = 0.05


def die_with_parent() -> None:
    """Ask the kernel for SIGTERM when the process that started us dies, even by SIGKILL (Linux; elsewhere nothing).

    Does nothing unless the parent set ``FLEX_PARENT_PID``. Exits at once where it is gone already.
    """
    parent = os.environ.pop(PARENT_VARIABLE, "")
    if not parent.isdecimal() or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(parent):
        raise SystemExit(0)


def backoff_s(n_crashes: int) -> float:
    """Seconds to wait before start number ``n_crashes + 1``: 0.1 after the first crash, doubling up to 10."""
    return float(min(_BACKOFF_CAP_S, 0.1 * 2 ** min(n_crashes - 1, 10)))


class StartFailedError(Exception):
    """A process that did not get ready; the text says which and why in one sentence."""


@dataclass(frozen=True, slots=True)
class Crash:
    """An unwanted end: which process, how (``exit_code`` is negative for a signal), and how long we wait now."""

    name: str
    pid: int
    exit_code: int
    wait_s: float


@dataclass(slots=True)
class KeptProcess:
    """One child process and how to keep it.

    ``is_ready`` tells whether it serves; ``on_crash`` is told of every unwanted end. A child that ran for 60 s counts
    as settled: its next crash is a first one again. Keeping ends by itself after ``max_crashes`` in a row, or at
    ``fatal_exit_code``, which says that another start would fail the same way.
    """

    name: str
    command: Sequence[str]
    is_ready: Callable[[], Awaitable[bool]]
    on_crash: Callable[[Crash], None]
    max_crashes: int = 30
    fatal_exit_code: int | None = None
    start_timeout_s: float = 30.0
    stop_timeout_s: float = 10.0
    pass_fds: Sequence[int] = ()
    environ: Mapping[str, str] = field(default_factory=dict)  # beside ours
    clock: Callable[[], float] = time.monotonic
    process: asyncio.subprocess.Process | None = None
    stopping: bool = False
    _n_crashes: int = field(default=0)
    _started_at: float = field(default=0.0)

    async def start(self) -> None:
        """Start it and wait until it is ready.

        Raises StartFailedError when it ends or does not get ready in time (then it is stopped again).
        """
        await self._spawn()
        deadline = self.clock() + self.start_timeout_s
        while not await self.is_ready():
            if self.process is None or self.process.returncode is not None:
                code = None if self.process is None else self.process.returncode
                raise StartFailedError(f"The {self.name} ended while it was starting (exit code {code}).")
            if self.clock() > deadline:
                await self.stop()
                raise StartFailedError(f"The {self.name} was not ready within {self.start_timeout_s:.0f} s.")
            await asyncio.sleep(_POLL_S)

    async def keep(self) -> int:
        """Start it again whenever it ends, until :meth:`stop` or until that is hopeless; gives the last exit code."""
        while True:
            if self.process is None:
                raise RuntimeError("keep() before start()")
            code = await self.process.wait()
            if self.stopping or code == self.fatal_exit_code:
                return code
            settled = self.clock() - self._started_at > _SETTLED_S
            self._n_crashes = 1 if settled else self._n_crashes + 1
            if self._n_crashes >= self.max_crashes:
                return code
            wait_s = backoff_s(self._n_crashes)
            self.on_crash(Crash(self.name, self.process.pid, code, wait_s))
            await asyncio.sleep(wait_s)
            if self.stopping:
                return code
            await self._spawn()

    async def stop(self) -> None:
        """Ask it to end (SIGTERM); kill it when it has not ended in time."""
        self.stopping = True
        process = self.process
        if process is None or process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), self.stop_timeout_s)
        except TimeoutError:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _spawn(self) -> None:
        # Its own session: Ctrl-C in a terminal reaches only us, and we stop the children in order.
        self._started_at = self.clock()
        self.process = await asyncio.create_subprocess_exec(
            *self.command,
            env={**os.environ, **self.environ, PARENT_VARIABLE: str(os.getpid())},
            pass_fds=tuple(self.pass_fds),
            start_new_session=True,
        )
