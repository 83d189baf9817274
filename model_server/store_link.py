"""This process's way to the installation's store, which may be away at the start and at any time.

Nothing that answers a call uses it: only the tasks that follow revocations and report what this verifier holds. The
store's client library takes 7 MiB and 50 ms to load, so it is loaded in a thread and only where there is a feed.
"""

import asyncio
import typing
from typing import TYPE_CHECKING

from shared import events
from shared.errors import AppError
from shared.events import Event
from shared.revocations.feed_key import FeedKey, load_or_create_feed_key
from shared.settings import Settings

if TYPE_CHECKING:
    from redis.asyncio import Redis

KEY_RETRY_S = 5.0


class StoreLink:
    """Opened by :meth:`run`, a task; whoever needs the store waits for it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._opened = asyncio.Event()
        self._key: FeedKey | None = None
        self._key_known = asyncio.Event()

    async def run(self) -> None:
        """Hold the embedded store, if that is the one in use, and read the feed key; until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._read_key())
            tasks.create_task(self._hold())

    async def feed_key(self) -> FeedKey:
        """Give the feed key as soon as it can be read."""
        await self._key_known.wait()
        assert self._key is not None
        return self._key

    async def opened(self) -> None:
        """Wait until the store was tried once; it may still be away."""
        await self._opened.wait()

    def connect(self) -> "Redis":
        """Make a client of its own for whoever asks. Raises StoreRefusedError for an address of no known form."""
        from shared.store import connect  # noqa: PLC0415 - loaded by run

        return connect(self._settings)

    async def _hold(self) -> None:
        await asyncio.to_thread(_load_library)
        from shared.store import embedded_store  # noqa: PLC0415 - see above

        async with embedded_store(self._settings, required=False):
            self._opened.set()
            await asyncio.Event().wait()

    async def _read_key(self) -> None:
        told = ""
        while self._key is None:
            try:
                self._key = await asyncio.to_thread(load_or_create_feed_key, self._settings.feed_key_file)
            except AppError as problem:
                if problem.reason != told:
                    events.emit(Event.FEED_KEY_PROBLEM, reason=problem.reason)
                told = problem.reason
                await asyncio.sleep(KEY_RETRY_S)
        self._key_known.set()


def _load_library() -> None:
    import shared.revocations.follower  # noqa: PLC0415 - see the module's first lines
    import shared.store  # noqa: F401, PLC0415

    typing.clear_overloads()  # nobody asks for them here, and the library has 750
