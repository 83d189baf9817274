"""The run's store: the server program of the embedded store on a loopback port, that can be killed and frozen.

Every write is in the append-only file, and synced, before it is acknowledged; so a killed store has lost nothing.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from bench.instance import quiet_environment
from shared.embedded_store import find_server

READY_WITHIN_S = 20.0
_PING = b"PING\r\n"
# Whatever happens to the run, the store ends with it.
_LAUNCH = """import os, sys
from shared.processes import die_with_parent
die_with_parent()
os.execv(sys.argv[1], sys.argv[1:])"""


class Store:
    """One server process on ``port`` with its files in ``folder``."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start it and wait until it answers. Raises TimeoutError."""
        self._process = subprocess.Popen(  # noqa: ASYNC220 - a fork of 1 ms
            [
                *(sys.executable, "-c", _LAUNCH, str(find_server())),
                *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)),
                *("--appendonly", "yes", "--appendfsync", "always", "--save", ""),
                *("--maxmemory-policy", "noeviction", "--loglevel", "warning", "--logfile", "store.log"),
            ],
            env=quiet_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        async with asyncio.timeout(READY_WITHIN_S):
            while not await self.answers():  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.01)

    async def answers(self) -> bool:
        """Whether it answers a ping within half a second."""
        try:
            async with asyncio.timeout(0.5):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                try:
                    writer.write(_PING)
                    return (await reader.readline()).startswith(b"+PONG")
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return False

    async def kill(self) -> None:
        """End it as a power cut would."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)
            await asyncio.to_thread(self._process.wait)

    def freeze(self) -> None:
        """Stop it where it is; its connections stay."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server go on."""
        os.kill(self.pid, signal.SIGCONT)
