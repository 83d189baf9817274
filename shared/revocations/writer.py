"""The writing end of the feed: revocations into the stream, the heartbeat once a second, trimming, new epochs.

A code covers the sequence number, so the number must be known before the write: a writer signs against the head it
knows, and one script writes entries and new head only if the head is still that one (compare-and-set). Any number of
writers on any number of hosts keep one unbroken chain so, at one round trip a revocation when nobody interferes.

Trimming is the heartbeat's: the floor may only rise past entries that are authentic *and* old enough, which no script
can judge. It is exact (``MINID =``), so the first entry there is the one that the head names.

A long file, because every method replaces the same head under the same lock.
"""

import asyncio
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from redis.asyncio import Redis

from shared.errors import AppError
from shared.revocations import upkeep
from shared.revocations.ending import end_if_cancelled
from shared.revocations.entries import (
    EPOCH_BYTES,
    Kind,
    NotAuthentic,
    Revocation,
    decode_entry,
    encode_entry,
    epoch_authenticator,
    milliseconds,
)
from shared.revocations.feed_key import FeedKey
from shared.revocations.head import Head, decode_head
from shared.revocations.notices import Notice, Notify, ignore
from shared.revocations.recent import Position, Recent
from shared.revocations.revoked import SKEW_S, retention_s
from shared.revocations.stream import HeadMoved, Stream

BEAT_MS = 1000
MAX_LIVE = 3_000_000  # tokens revoked one by one; beyond it only watermarks are taken
_BATCH = 500
_CONTENTION_S = 2.0  # one of the writers wins each round trip, so this is reached by hundreds at once
_SKEW_MS = round(SKEW_S * 1000)


@dataclass(frozen=True, slots=True)
class _KnownHead:
    """A head, and the very bytes that the store holds for it (empty: not there yet)."""

    raw: bytes
    head: Head


class RevocationFeed:
    """Writes revocations; one a process. ``clock`` gives UTC seconds, ``max_token_life_s`` the longest life of any
    token, ``leeway_s`` what verifiers grant beyond ``exp``. ``remembered`` gives what this process knows to be in
    force: it is written again where a store has lost everything.

    Every operation raises AppError store_unavailable if the store does not answer (the write may then have happened,
    and doing it again does no harm), and conflict while the head in the store is not authentic (see :meth:`reseal`).
    """

    def __init__(
        self,
        store: Redis,
        feed_key: FeedKey,
        *,
        clock: Callable[[], float],
        max_token_life_s: float,
        leeway_s: float,
        notify: Notify = ignore,
        remembered: Callable[[], list[Revocation]] = list,
    ) -> None:
        self._stream = Stream(store)
        self._key = feed_key
        self._clock = clock
        self._life_ms = round(max_token_life_s * 1000)
        self._retention_ms = round(retention_s(max_token_life_s, leeway_s) * 1000)
        self._notify = notify
        self._remembered = remembered
        self._lock = asyncio.Lock()
        self._known: _KnownHead | None = None
        self._recent = Recent()

    async def revoke(self, revocation: Revocation) -> Position:
        """Write one revocation, and give its place in the stream.

        Returns when the clock is past a watermark's millisecond: what is issued afterwards is not ended by it. One
        that this process wrote within the last minute is not written again. Raises AppError overloaded for a token
        beyond the three millionth.
        """
        return await self.revoke_many([revocation])

    async def revoke_many(self, revocations: Sequence[Revocation]) -> Position:
        """Write several, 500 in each atomic step, and give the place of the last. Raises ValueError for none."""
        if not revocations:
            raise ValueError("there is nothing to revoke")
        now_ms = self._now_ms()
        wanted = [self._bounded(revocation, now_ms) for revocation in revocations]
        async with self._lock:
            position = self._recent.position(wanted[0], self._epoch()) if len(wanted) == 1 else None
            for start in range(0, 0 if position else len(wanted), _BATCH):
                position = await self._append(wanted[start : start + _BATCH])
        assert position is not None
        if self._now_ms() <= max((item.time_ms for item in wanted if item.kind != Kind.TOKEN), default=0):
            await asyncio.sleep(0.001)
        return position

    async def heartbeat(self) -> bool:
        """Say that the feed is alive, unless a writer did so within the last second; whether this call was the one.

        Also opens the first epoch of a store that has none, trims what no live token needs, and writes again what the
        store has lost: of this process's last minute (a failover that lost writes), and all that is remembered where
        the store was emptied or put back.
        """
        async with self._lock:
            before = self._known
            known = await self._read_head()
            put_back = (
                before is not None and before.head.epoch == known.head.epoch and known.head.last < before.head.last
            )
            now_ms = self._now_ms()
            won = False
            if not -_SKEW_MS <= now_ms - known.head.beat_ms < BEAT_MS:
                floor, keep_from = await upkeep.trim_point(self._stream, self._key, known.head, self._oldest_ms())
                won = await self._beat(known, replace(known.head, floor=floor, beat_ms=now_ms), keep_from)
            await self._restore_lost(now_ms, put_back=put_back)
        return won

    async def keep_beating(self, every_s: float = 0.25) -> None:
        """Call :meth:`heartbeat` for ever; run it as a task in every auth-server worker. What fails is tried again."""
        failing = ""
        while True:
            try:
                await self.heartbeat()
                failing = ""
            except AppError as error:
                if error.reason != failing:
                    self._notify(Notice.FEED_WRITE_FAILED, {"reason": error.reason})
                failing = error.reason
            end_if_cancelled()
            await asyncio.sleep(every_s)

    async def reseal(self) -> int:
        """Open a new epoch with every authentic entry that the store still holds; gives how many those are.

        For an operator, after entries were deleted or altered in the store (followers say ``broken``): what is gone is
        accepted as gone. Raises AppError conflict if another writer changed the head meanwhile.
        """
        async with self._lock:
            raw = await self._stream.head() or b""
            try:
                old = decode_head(self._key, raw)
            except NotAuthentic:
                old = None
            survivors = await upkeep.survivors(self._stream, self._key, old, self._oldest_ms()) if old else []
            try:
                await self._open_epoch(raw, [*survivors, *self._recent.revocations()], "resealed")
            except HeadMoved:
                raise AppError("conflict", "Another writer changed the feed at the same time; try again.") from None
            if old:
                await self._stream.drop(old.epoch, self._retention_ms // 1000)
            return len(survivors)

    # -- appending -----------------------------------------------------------------------------------------------

    def _now_ms(self) -> int:
        return milliseconds(self._clock())

    def _oldest_ms(self) -> int:
        return self._now_ms() - self._retention_ms

    def _epoch(self) -> bytes:
        return self._known.head.epoch if self._known else b""

    def _bounded(self, revocation: Revocation, now_ms: int) -> Revocation:
        """No token outlives the longest life, and a watermark in the future would end tokens not yet issued."""
        latest_ms = now_ms + (self._life_ms if revocation.kind == Kind.TOKEN else 0)
        return revocation if revocation.time_ms <= latest_ms else replace(revocation, time_ms=latest_ms)

    async def _append(self, revocations: Sequence[Revocation]) -> Position:
        deadline = asyncio.get_running_loop().time() + _CONTENTION_S
        while asyncio.get_running_loop().time() < deadline:
            known = self._known or await self._read_head()
            if known.head.last - known.head.floor >= MAX_LIVE and any(r.kind == Kind.TOKEN for r in revocations):
                raise AppError("overloaded", "Too many tokens are revoked one by one; revoke the client instead.")
            now_ms = self._now_ms()
            entries, head = self._chain(known.head, revocations, now_ms)
            new = _KnownHead(head.encode(self._key), head)
            try:
                ids = await self._stream.append(head.epoch, known.raw, new.raw, entries)
            except HeadMoved as moved:
                self._known = self._trusted(moved.raw)  # again at once: any pause would make this head old, too
                continue
            self._known = new
            return self._recent.note(revocations, head.epoch, known.head.last + 1, ids, now_ms)
        raise AppError("store_unavailable", reason="revocation_contention")

    def _chain(self, head: Head, revocations: Iterable[Revocation], now_ms: int) -> tuple[list[bytes], Head]:
        authenticator = epoch_authenticator(self._key, head.epoch)
        entries, last, link = [], head.last, head.link
        for revocation in revocations:
            last += 1
            entry, link = encode_entry(authenticator, revocation, last, link, now_ms)
            entries.append(entry)
        return entries, replace(head, last=last, link=link)

    # -- the head ------------------------------------------------------------------------------------------------

    async def _read_head(self) -> _KnownHead:
        known = self._trusted(await self._stream.head())
        while known is None:
            try:
                known = await self._open_epoch(b"", self._in_force(), "no_head")
            except HeadMoved as moved:
                known = self._trusted(moved.raw)
        self._known = known
        return known

    def _trusted(self, raw: bytes | None) -> _KnownHead | None:
        if raw is None:
            return None
        if self._known is not None and raw == self._known.raw:
            return self._known
        try:
            return _KnownHead(raw, decode_head(self._key, raw))
        except NotAuthentic:
            self._known = None
            self._notify(Notice.HEAD_REFUSED, {})
            raise AppError(
                "conflict",
                "The revocation feed in the store was not written with this installation's feed key. Restore the key "
                "file, or reseal the feed.",
                reason="revocation_head_not_authentic",
            ) from None

    async def _open_epoch(self, expected: bytes, revocations: Sequence[Revocation], reason: str) -> _KnownHead:
        """Fill a stream of its own first, then switch to it in one step. Raises HeadMoved if another was first."""
        now_ms = self._now_ms()
        entries, head = self._chain(Head(os.urandom(EPOCH_BYTES), beat_ms=now_ms), revocations, now_ms)
        ids = await self._stream.write_aside(head.epoch, entries)
        new = _KnownHead(head.encode(self._key), head)
        try:
            await self._stream.beat(head.epoch, expected, new.raw)
        except HeadMoved:
            await self._stream.drop(head.epoch)
            raise
        self._known = new
        if revocations:
            self._recent.note(revocations, head.epoch, 1, ids, now_ms)
        self._notify(Notice.EPOCH_OPENED, {"reason": reason, "n_entries": len(entries)})
        return new

    # -- the heartbeat -------------------------------------------------------------------------------------------

    async def _beat(self, known: _KnownHead, head: Head, keep_from: str) -> bool:
        new = _KnownHead(head.encode(self._key), head)
        try:
            await self._stream.beat(head.epoch, known.raw, new.raw, keep_from)
        except HeadMoved as moved:
            self._known = self._trusted(moved.raw)
            return False
        self._known = new
        return True

    async def _is_there(self, revocation: Revocation, at: Position) -> bool:
        if at.epoch != self._epoch():
            return False
        found = await self._stream.entries(at.epoch, at.stream_id, 1, at.stream_id)
        try:
            # After a failover another writer's entry may have the same id, if it came within the same millisecond.
            entry = decode_entry(epoch_authenticator(self._key, at.epoch), found[0][1])
        except (IndexError, NotAuthentic):
            return False
        return (entry.kind, entry.key, entry.time_ms) == (revocation.kind, revocation.key, revocation.time_ms)

    async def _restore_lost(self, now_ms: int, *, put_back: bool) -> None:
        self._recent.forget_before(now_ms)
        newest = self._recent.newest()
        if not put_back and (newest is None or await self._is_there(*newest)):
            return
        lost = self._in_force() if put_back else self._recent.revocations()
        for start in range(0, len(lost), _BATCH):
            await self._append(lost[start : start + _BATCH])
        self._notify(Notice.WRITES_RESTORED, {"n_entries": len(lost)})

    def _in_force(self) -> list[Revocation]:
        """What is remembered, and this process's last writes, which may be newer."""
        both = {(one.kind, one.key): one for one in [*self._remembered(), *self._recent.revocations()]}
        return list(both.values())
