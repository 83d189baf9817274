"""What both tables of faults have around their server: a store that may die or freeze, and a writer beside it."""

import contextlib
import os
import signal

from shared.embedded_store import EmbeddedStore
from shared.settings import Settings
from shared.store import connect
from tests.conftest import Clock


class World:
    """One server that runs and stops, its real store, and a connection of our own to that store."""

    def __init__(self, store: EmbeddedStore, clock: Clock, patch, settings: Settings) -> None:
        self.store, self.clock, self.patch = store, clock, patch
        self.writer = connect(settings)
        self.pid = 0
        self.running = contextlib.AsyncExitStack()

    async def find_store(self) -> None:
        """Learn the store's process id, while it can still answer."""
        self.pid = (await self.writer.info("server"))["process_id"]

    async def stop(self) -> None:
        """Stop the server."""
        await self.running.aclose()
        self.running = contextlib.AsyncExitStack()

    async def end(self) -> None:
        """Stop it, the frozen store awake again."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)
        await self.stop()
        await self.writer.aclose()
