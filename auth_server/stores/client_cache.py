"""Clients held in memory, so that issuing a token costs no store round trip, and goes on while the store is away.

Holds up to 4,096 clients (about 1.5 KiB each), from the start on and whether they ask or not, the oldest let go first;
replaced one by one by following the change stream; emptied after a gap in it and after ``hold_s`` without the store.
Absent clients are never held.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from redis.asyncio import Redis

from auth_server.records import Client, proves
from auth_server.stores.clients import CHANGES, MAX_PAGE, Clients
from shared.errors import AppError
from shared.events import Event, emit
from shared.store import store_errors

MAX_CLIENTS = 4096
BLOCK_MS = 500  # below the time-out of the store's sockets, so silence of a second means that the store is gone
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0


class ClientCache:
    """The clients of this worker. ``feed`` is a connection of its own: it spends its life in one blocking read.

    ``hold_s``: how long after the store was lost its last state is still used; ``clock`` gives monotonic seconds.
    ``end_tokens`` ends all tokens of a client issued until now: called, when the store is back, for each client that
    was served without it and that the store says should not have been.
    """

    def __init__(
        self,
        clients: Clients,
        feed: Redis,
        *,
        hold_s: float,
        clock: Callable[[], float],
        end_tokens: Callable[[str], Awaitable[object]],
    ) -> None:
        self._clients = clients
        self._feed = feed
        self._hold_s = hold_s
        self._clock = clock
        self._end_tokens = end_tokens
        # By client and hash of its secret: when it was last served since the store was last heard. At most two each.
        self._served: dict[tuple[str, bytes], float] = {}
        self._held: dict[str, Client] = {}
        self._n_seen = 0
        self._changed = 0  # counts everything that may have made a read in flight stale
        self._following = asyncio.Event()
        self._lost_at: float | None = None

    def held(self, client_id: str) -> Client | None:
        """The client if it is in memory: certainly not older than the last change that reached this host, or, while
        the store is away, than the moment at which it was lost.
        """
        if self._lost_at is not None and self._clock() >= self._lost_at + self._hold_s:
            self._held.clear()
        return self._held.get(client_id)

    @property
    def degraded(self) -> bool:
        """Whether the store is away and clients are served as they were before."""
        return self._lost_at is not None and self._clock() < self._lost_at + self._hold_s and bool(self._held)

    def note_served(self, client_id: str, secret_hash: bytes, now: float) -> None:
        """Remember that a client gets a token, until the store has confirmed its state; ``now`` in UTC seconds."""
        self._served[client_id, secret_hash] = now

    async def load(self, client_id: str) -> Client | None:
        """Read a client from the store and hold it. Raises AppError store_unavailable."""
        changed = self._changed
        client = await self._clients.get(client_id)
        # A change that came while the reply was under way may be newer than the reply: use it, but do not keep it.
        if client is not None and changed == self._changed and self._following.is_set():
            if len(self._held) >= MAX_CLIENTS:
                del self._held[next(iter(self._held))]
            self._held[client_id] = client
        return client

    async def wait_until_following(self) -> None:
        """Wait until changes reach this worker."""
        await self._following.wait()

    @property
    def following(self) -> bool:
        """Whether changes reach this worker."""
        return self._following.is_set()

    async def follow(self) -> None:
        """Follow the change stream until cancelled; without the store, try again for ever."""
        pause_s, lost = _FIRST_PAUSE_S, False
        while not _cancelled():
            try:
                position = await self._start()
                self._begin(await self._read_all())
                if lost:
                    emit(Event.STORE_RECOVERED, kind="clients")
                pause_s, lost = _FIRST_PAUSE_S, False
                await self._review_served()
                while not _cancelled():
                    position = await self._read(position)
            except AppError as error:
                if not lost:
                    self._stop_following()
                    emit(Event.STORE_LOST, kind="clients", reason=error.reason, n_held=len(self._held))
                lost = True
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    async def _start(self) -> bytes:
        """Find the end of the stream."""
        with store_errors():
            last: Any = await self._feed.xrevrange(CHANGES, count=1)
        position, self._n_seen = (last[0][0], int(last[0][1][b"n"])) if last else (b"0-0", 0)
        return position

    async def _read_all(self) -> dict[str, Client]:
        """Read every client. A change meanwhile comes after our place in the stream, so it replaces what we read."""
        found: dict[str, Client] = {}
        cursor = ""
        while len(found) < MAX_CLIENTS:
            page = await self._clients.page(cursor, MAX_PAGE)
            found.update((client.client_id, client) for client in page.clients[: MAX_CLIENTS - len(found)])
            cursor = page.next_cursor
            if not cursor:
                break
        return found

    def _begin(self, found: dict[str, Client]) -> None:
        """Hold what was read in place of what was held before, of which changes may have been missed.

        Not a moment earlier: a store that breaks off again while it is read must leave what an outage is to be got
        through with.
        """
        self._held = found
        self._lost_at = None
        self._following.set()

    async def _review_served(self) -> None:
        """End what was issued without the store to clients that were disabled, deleted or given another secret
        meanwhile: others reached the store when we did not. What fails is done again with the next start.
        """
        ended = {
            client_id
            for (client_id, secret_hash), served_at in list(self._served.items())  # more may be served meanwhile
            if not proves(self._held.get(client_id) or await self._clients.get(client_id), secret_hash, served_at)
        }
        for client_id in ended:
            await self._end_tokens(client_id)
        self._served.clear()

    async def _read(self, position: bytes) -> bytes:
        with store_errors():
            answer: Any = await self._feed.xread({CHANGES: position}, block=BLOCK_MS, count=1000)
        self._served.clear()  # whoever changes a client ends its tokens once more when this has reached us
        if not answer:
            return position
        entries = answer[0][1] if isinstance(answer, list) else next(iter(answer.values()))[0]
        for entry_id, fields in entries:
            self._apply(fields)
            position = entry_id
        for client_id in dict.fromkeys(fields[b"client"].decode() for _, fields in entries):
            await self.load(client_id)  # so that an outage finds it here
        return position

    def _apply(self, fields: dict[bytes, bytes]) -> None:
        n_change = int(fields[b"n"])
        self._changed += 1
        if n_change != self._n_seen + 1:
            self._held.clear()  # entries were trimmed before we saw them, or the store was replaced
        else:
            self._held.pop(fields[b"client"].decode(), None)
        self._n_seen = n_change

    def _stop_following(self) -> None:
        self._following.clear()
        self._changed += 1
        self._lost_at = self._clock()


def _cancelled() -> bool:
    """Whether this task was told to end: redis-py loses a cancellation that comes together with a reply."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
