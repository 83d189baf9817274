"""Run one server: uvicorn with our bounded protocol, in this process or in several that share the port.

Exit codes: 0 after SIGTERM or Ctrl-C, 1 when it could not start (one line on standard error says why).
"""

import asyncio
import gc
import logging
import os
import resource
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import uvicorn

from shared import events
from shared.events import Event
from shared.http_protocol import BoundedHttpProtocol
from shared.listener import PortBusyError, listen
from shared.processes import EXIT_START_FAILED, Crash, KeptProcess, die_with_parent

_OPEN_FILES = 8192
SLOT_VARIABLE = "FLEX_WORKER_SLOT"
DRAINING = "draining"
"""Key of the lifespan state (``scope["state"]``) that turns True when the server is about to stop."""


@dataclass(frozen=True, slots=True)
class ServePlan:
    """How to run one server process.

    ``app`` is ``module:factory``, called without arguments. After SIGTERM the server goes on serving for ``drain_s``
    with readiness false, then finishes what runs for at most ``stop_timeout_s``.
    """

    app: str
    name: str
    host: str
    port: int
    drain_s: float = 0.0
    stop_timeout_s: float = 8.0
    backlog: int = 2048


def run(
    app: str,
    *,
    name: str,
    host: str,
    port: int,
    workers: int = 1,
    var_dir: Path = Path("var"),
    port_setting: str = "",
    drain_s: float = 0.0,
    stop_timeout_s: float = 8.0,
) -> None:
    """Serve until SIGTERM or SIGINT; returns after a clean stop, raises SystemExit(1) when it could not start.

    ``name`` ("auth", "model") goes into events and names the metrics folder under ``var_dir``; ``port_setting`` is
    the variable that the message about a busy port names (default ``FLEX_<NAME>_PORT``).
    """
    die_with_parent()
    plan = ServePlan(app, name, host, port, drain_s, stop_timeout_s)
    try:
        listener = listen(name, host, port, port_setting or f"FLEX_{name.upper()}_PORT")
    except PortBusyError as problem:
        print(problem, file=sys.stderr)
        raise SystemExit(1) from None
    if workers > 1:
        _prepare_metrics(var_dir / "metrics" / name)
        code = asyncio.run(_run_workers(plan, listener, workers))
    else:
        for variable in ("PROMETHEUS_MULTIPROC_DIR", SLOT_VARIABLE):
            os.environ.pop(variable, None)
        code = serve_on(listener, plan)
    if code != 0:
        raise SystemExit(1)


def worker_slot() -> int:
    """Number of this worker process, from 1; a crashed worker's successor has the same."""
    slot = os.environ.get(SLOT_VARIABLE, "")
    return int(slot) if slot.isdecimal() else 1


def _prepare_metrics(folder: Path) -> None:
    # Values of an earlier run would be added to ours.
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder.resolve())


# -- one process -------------------------------------------------------------------------------------------------


class _Server(uvicorn.Server):
    """uvicorn's server that drains before it stops and does not raise the signal again (that would be exit -15)."""

    def __init__(self, config: uvicorn.Config, plan: ServePlan) -> None:
        super().__init__(config)
        self._plan = plan

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take SIGTERM and SIGINT for the time of serving."""
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and leave everything that exists by now to its own: the garbage collector need not walk it again."""
        await super().startup(sockets)
        gc.collect()
        gc.freeze()
        for listener in sockets or ():
            host, port = listener.getsockname()[:2]
            events.emit(Event.SERVER_STARTED, name=self._plan.name, host=host, port=port, pid=os.getpid())

    async def main_loop(self) -> None:
        """Serve until told to stop; then go on for the draining time, with readiness false."""
        await super().main_loop()
        self.lifespan.state[DRAINING] = True
        events.emit(Event.SERVER_STOPPING, name=self._plan.name, pid=os.getpid())
        loop = asyncio.get_running_loop()
        end = loop.time() + self._plan.drain_s
        while loop.time() < end and not self.force_exit:  # noqa: ASYNC110 - a signal handler sets the flag
            await asyncio.sleep(0.05)


def serve_on(listener: socket.socket, plan: ServePlan) -> int:
    """Serve on a bound socket in this process until a signal; gives the exit code."""
    _allow_many_connections()
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    events.configure(server=plan.name)
    config = uvicorn.Config(
        plan.app,
        factory=True,
        loop="auto",
        http=BoundedHttpProtocol,
        ws="none",
        interface="asgi3",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=plan.backlog,
        timeout_graceful_shutdown=round(plan.stop_timeout_s),
        workers=1,
    )
    server = _Server(config, plan)
    try:
        server.run(sockets=[listener])
    except SystemExit:  # uvicorn's way to say that the application's start failed; the reason is on standard error
        return EXIT_START_FAILED
    finally:
        events.flush()
    return 0 if server.started else EXIT_START_FAILED


def _allow_many_connections() -> None:
    """Raise the soft limit of open files, often 1,024, towards the hard one: each connection takes a descriptor."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


# -- several processes -------------------------------------------------------------------------------------------


async def _run_workers(plan: ServePlan, listener: socket.socket, n_workers: int) -> int:
    """Keep ``n_workers`` processes on one socket; a crashed one is replaced, one that can't start ends them all."""
    workers = [_worker(plan, listener.fileno(), number) for number in range(1, n_workers + 1)]
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    for worker in workers:
        await worker.start()
    keepers = [asyncio.create_task(worker.keep()) for worker in workers]
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait([stopped, *keepers], return_when=asyncio.FIRST_COMPLETED)
    failed = not stop.is_set()
    stopped.cancel()
    await asyncio.gather(*(worker.stop() for worker in workers))
    await asyncio.gather(*keepers)
    return EXIT_START_FAILED if failed else 0


def _worker(plan: ServePlan, fd: int, number: int) -> KeptProcess:
    return KeptProcess(
        f"{plan.name} worker {number}",
        [sys.executable, "-m", "shared.serve", msgspec.json.encode(plan).decode(), str(fd)],
        _at_once,
        _report_crash,
        fatal_exit_code=EXIT_START_FAILED,
        stop_timeout_s=plan.drain_s + plan.stop_timeout_s + 1.0,
        pass_fds=(fd,),
        environ={SLOT_VARIABLE: str(number)},
    )


async def _at_once() -> bool:
    return True


def _report_crash(crash: Crash) -> None:
    events.emit(Event.PROCESS_CRASHED, name=crash.name, exit_code=crash.exit_code, restart_in_s=crash.wait_s)
    # Its live gauges would be added to the others' for ever.
    for file in Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]).glob(f"gauge_live*_{crash.pid}.db"):
        file.unlink(missing_ok=True)


def main() -> None:
    """Entry of one worker process: ``python -m shared.serve <plan as JSON> <file descriptor>``."""
    die_with_parent()
    plan = msgspec.json.decode(sys.argv[1], type=ServePlan)
    raise SystemExit(serve_on(socket.socket(fileno=int(sys.argv[2])), plan))


if __name__ == "__main__":
    main()
