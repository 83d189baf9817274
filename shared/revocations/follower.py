"""The reading end of the feed: one task a process that keeps a :class:`RevokedSet` true and knows how old it is.

It reads all entries of the epoch from the first, checks the chain against the signed head, and only then calls itself
``following``; from there on it waits in a blocking read for entries and heartbeats. After a disconnect it goes on where
it was if the chain still fits, and whatever does not fit makes it read everything again. If that does not help it is
``broken``: it goes on taking in what is authentic, but no heartbeat makes it fresh.

A long file, because it is one state machine; what can be judged without I/O is in :mod:`.chain`.
"""

import asyncio
import math
from collections.abc import Callable
from typing import Any, cast

from redis.asyncio import Redis

from shared.errors import AppError
from shared.revocations.chain import Chain, Gap
from shared.revocations.ending import end_if_cancelled
from shared.revocations.entries import Entry, NotAuthentic, milliseconds
from shared.revocations.feed_key import FeedKey
from shared.revocations.head import BEATS_KEY, HEAD_KEY, Head, decode_head, stream_key
from shared.revocations.notices import Notice, Notify, State, ignore
from shared.revocations.revoked import SKEW_S, RevokedSet
from shared.revocations.snapshot import SnapshotFile, SnapshotKeeper
from shared.store import store_errors

BLOCK_MS = 500  # below the time-out of the store's sockets
_PAGE = 500  # 2 ms of work without a look at other tasks
_QUIET_S = 3.0  # without a heartbeat for so long we ask for the head ourselves
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.01, 1.0
_REBUILD_ATTEMPTS = 3  # a new epoch, or trimming while we read, looks like a gap once
_PASSING = frozenset({"epoch_changed", "missing_start", "missing_end", "rewound"})
_REBUILD_SHARE = 5  # a broken feed costs at most a fifth of the time in reading it again


class FeedFollower:
    """Follows the feed into ``revoked``.

    ``open_store`` makes a client of its own for the follower, which blocks on it (socket time-out above 0.5 s).
    ``clock`` gives UTC seconds. ``on_signing_key`` is told each kid that becomes revoked, ``notify`` every change of
    state. ``state``, ``staleness_s``, ``as_of`` and ``as_of_ms`` (0: we know nothing) may be read at any time.
    """

    def __init__(
        self,
        open_store: Callable[[], Redis],
        feed_key: FeedKey,
        revoked: RevokedSet,
        *,
        clock: Callable[[], float],
        notify: Notify = ignore,
        on_signing_key: Callable[[str], None] | None = None,
        snapshot: SnapshotFile | None = None,
    ) -> None:
        self._open_store = open_store
        self._key = feed_key
        self._revoked = revoked
        self._clock = clock
        self._notify = notify
        self._on_signing_key = on_signing_key
        self._snapshots = SnapshotKeeper(snapshot, revoked, clock, notify) if snapshot else None
        self.state = State.STARTING
        self._following = asyncio.Event()
        self._chain = Chain(feed_key, b"")
        self.as_of_ms = 0
        self._beat_id = b"0-0"
        self._heard_at = 0.0
        self._retry_at = 0.0
        self._pause_s = _FIRST_PAUSE_S

    @property
    def as_of(self) -> float | None:
        """UTC seconds until which we certainly know every revocation (the writer's clock); None: we know nothing."""
        return self.as_of_ms / 1000 if self.as_of_ms else None

    @property
    def staleness_s(self) -> float:
        """How old our knowledge is, in seconds; infinite if there is none."""
        return max(0.0, self._clock() - self.as_of_ms / 1000) if self.as_of_ms else math.inf

    async def wait_until_following(self) -> None:
        """Wait until everything in the feed is in the set."""
        await self._following.wait()

    async def follow(self) -> None:
        """Follow for ever; run it as a task. Nothing but cancelling ends it."""
        if self._snapshots is not None:
            self.as_of_ms = await self._snapshots.load()
            for kid in self._revoked.signing_keys:
                self._tell(kid)
        while True:
            try:
                await self._stay_connected()
            except AppError as error:
                self._enter(State.DISCONNECTED, error.reason)
            except Exception as error:  # noqa: BLE001 - whatever it is, a follower that is gone would be worse
                self._notify(Notice.FOLLOWER_FAILED, {"error": type(error).__name__})
                self._enter(State.DISCONNECTED, "failed")
            end_if_cancelled()
            self._save_if_due()
            await asyncio.sleep(self._pause_s)
            self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)

    async def _stay_connected(self) -> None:
        client = self._open_store()
        try:
            for command in ("XREAD", "XRANGE"):  # the library's own reading costs as much as all of ours
                client.set_response_callback(command, cast("Any", _as_it_came))
            await self._make_sure(client)
            self._pause_s = _FIRST_PAUSE_S
            while True:
                await self._read(client)
                end_if_cancelled()
                # The writers' time, not ours: a clock of ours that jumps ahead for a moment must not empty the set.
                self._revoked.expire(self.as_of_ms)
                self._save_if_due()
        finally:
            await client.aclose()

    def _save_if_due(self) -> None:
        if self._snapshots is not None and self.as_of_ms:
            self._snapshots.save_if_due(self.as_of_ms, self._chain.read_to)

    # -- reading everything ----------------------------------------------------------------------------------------

    async def _make_sure(self, client: Redis) -> None:
        """Get from whatever we have to certainty, or to ``broken``."""
        began, reason = self._clock(), ""
        if self._chain.epoch:
            try:
                await self._catch_up(client, self._chain)
            except Gap as gap:
                reason = gap.reason
            else:
                self._enter(State.FOLLOWING)
                return
            if self.state is not State.BROKEN:
                self._notify(Notice.GAP_FOUND, {"reason": reason})
                self._enter(State.REBUILDING, reason)
        for _ in range(_REBUILD_ATTEMPTS):
            try:
                head = await self._head(client)
                self._chain = Chain(self._key, head.epoch)
                await self._catch_up(client, self._chain)
            except Gap as gap:
                reason = gap.reason
                if reason not in _PASSING:
                    break
            else:
                self._enter(State.FOLLOWING)
                return
        if self._chain.epoch or reason != "no_head":  # a store that no writer has used yet is nothing to worry about
            self._enter(State.BROKEN, reason)
        now = self._clock()
        self._retry_at = now + max(_LONGEST_PAUSE_S, _REBUILD_SHARE * (now - began))

    async def _catch_up(self, client: Redis, chain: Chain) -> None:
        """Take all that there is, then check it against a head no older. Raises Gap."""
        self._beat_id = b"0-0"
        await self._drain(client, chain)
        chain.mark()
        head = await self._head(client)
        await self._drain(client, chain)
        chain.confirm(head)
        self._heard_at = self._clock()
        self._believe(head)

    async def _drain(self, client: Redis, chain: Chain) -> None:
        """Take everything after what was taken. The store finds the next page while we take this one."""
        page = await _page(client, chain, chain.read_to)
        while len(page) == _PAGE:
            coming = asyncio.create_task(_page(client, chain, page[-1][0]))
            try:
                await asyncio.sleep(0)  # lets the request go out
                chain.take(page, self._apply)
                page = await coming
            finally:
                coming.cancel()
        chain.take(page, self._apply)

    async def _head(self, client: Redis) -> Head:
        with store_errors():
            raw: Any = await client.get(HEAD_KEY)
        if raw is None:
            raise Gap("no_head")
        try:
            return decode_head(self._key, raw)
        except NotAuthentic:
            raise Gap("head_not_authentic") from None

    # -- following -------------------------------------------------------------------------------------------------

    async def _read(self, client: Redis) -> None:
        """Wait for the next entries and heartbeats, and take them."""
        chain = self._chain
        chain.mark()
        entries_key = stream_key(chain.epoch).encode()
        with store_errors():
            reply: Any = await cast("Any", client).execute_command(
                *("XREAD", "COUNT", _PAGE, "BLOCK", BLOCK_MS, "STREAMS"),
                *(entries_key, BEATS_KEY, chain.read_to, self._beat_id),
            )
        pages: dict[bytes, Any] = dict(reply or ())
        page = pages.get(entries_key, ())
        chain.take(page, self._apply)
        if len(page) >= _PAGE:
            await self._drain(client, chain)
        gap = chain.fault
        for beat_id, fields in pages.get(BEATS_KEY.encode(), ()):
            self._beat_id = beat_id
            gap = self._hear(fields) or gap
        now = self._clock()
        if self.state is State.FOLLOWING:
            unsure = bool(gap) or now - self._heard_at > _QUIET_S
        else:
            unsure = gap == "epoch_changed" or now > self._retry_at
        if unsure:
            self._heard_at = now
            await self._make_sure(client)

    def _hear(self, fields: list[bytes]) -> str:
        """Take a heartbeat; gives what it says that we miss."""
        try:
            head = decode_head(self._key, fields[1])
        except (NotAuthentic, IndexError):
            self._notify(Notice.BEAT_REFUSED, {"reason": "not_authentic"})
            return ""
        if head.beat_ms <= self.as_of_ms:
            return ""  # one that we have had, or of a writer whose clock is behind: it says nothing new
        try:
            self._chain.confirm(head)
        except Gap as gap:
            return gap.reason
        if self.state is State.FOLLOWING:
            self._heard_at = self._clock()
            self._believe(head)
        return ""

    def _believe(self, head: Head) -> None:
        if head.beat_ms > milliseconds(self._clock() + SKEW_S):
            self._notify(Notice.BEAT_REFUSED, {"reason": "from_the_future"})
        else:
            self.as_of_ms = max(self.as_of_ms, head.beat_ms)

    def _apply(self, entry: Entry) -> None:
        if self._revoked.apply(entry):
            self._tell(entry.key.decode())

    def _tell(self, kid: str) -> None:
        if self._on_signing_key is not None:
            self._on_signing_key(kid)

    def _enter(self, state: State, reason: str = "") -> None:
        if state is self.state:
            return
        self.state = state
        if state is State.FOLLOWING:
            self._following.set()
        else:
            self._following.clear()
        self._notify(Notice.STATE_CHANGED, {"state": state, "reason": reason})


async def _page(client: Redis, chain: Chain, after: bytes) -> list[tuple[bytes, list[bytes]]]:
    with store_errors():
        found = await cast("Any", client).execute_command(
            "XRANGE", stream_key(chain.epoch), b"(" + after, "+", "COUNT", _PAGE
        )
    return cast("list[tuple[bytes, list[bytes]]]", found)


def _as_it_came(reply: object, **_: object) -> object:
    return reply
