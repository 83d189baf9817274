"""The writing end of the feed: revocations into the stream, the heartbeat once a second, trimming, new epochs.

A code covers the sequence number, so the number must be known before the write: a writer signs against the head it
knows, and one script writes entries and new head only if the head is still that one (compare-and-set). Any number of
writers on any number of hosts keep one unbroken chain so, at one round trip a revocation when nobody interferes.

Trimming is the heartbeat's: the floor may only rise past entries that are authentic *and* old enough, which no script
can judge. It is exact (``MINID =``), so the first entry there is the one that the head names.
"""

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha1
from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from shared.errors import AppError
from shared.revocations import scripts
from shared.revocations.entries import (
    FIRST_LINK,
    Kind,
    NotAuthentic,
    Revocation,
    decode_entry,
    encode_entry,
    epoch_authenticator,
    milliseconds,
)
from shared.revocations.feed_key import FeedKey
from shared.revocations.head import BEATS_KEY, FIELD, HEAD_KEY, Head, decode_head, stream_key
from shared.revocations.notices import Notice, Notify, ignore
from shared.revocations.recent import Position, Recent
from shared.revocations.revoked import SKEW_S, retention_s
from shared.store import store_errors

BEAT_MS = 1000
MAX_LIVE = 3_000_000  # tokens revoked one by one; beyond it only watermarks are taken
_BATCH = 500
_MAX_ATTEMPTS = 100
_PAGE = 1000
_SKEW_MS = round(SKEW_S * 1000)


class RevocationFeed:
    """Writes revocations; one a process. ``clock`` gives UTC seconds, ``max_token_life_s`` the longest life of any
    token, ``leeway_s`` what verifiers grant beyond ``exp``.

    Every operation raises AppError store_unavailable if the store does not answer; the write may then have happened,
    and doing it again does no harm.
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
    ) -> None:
        self._store = store
        self._key = feed_key
        self._clock = clock
        self._life_ms = round(max_token_life_s * 1000)
        self._retention_ms = round(retention_s(max_token_life_s, leeway_s) * 1000)
        self._notify = notify
        self._lock = asyncio.Lock()
        self._known: _KnownHead | None = None
        self._recent = Recent()

    async def revoke(self, revocation: Revocation) -> Position:
        """Write one revocation, and give its place in the stream.

        Returns when the clock is past a watermark's millisecond: what is issued afterwards is not ended by it. One
        that was written a moment ago is not written again. Raises AppError overloaded for a token beyond the three
        millionth, conflict while the head in the store is not ours (see :meth:`reseal`).
        """
        return await self.revoke_many([revocation])

    async def revoke_many(self, revocations: Sequence[Revocation]) -> Position:
        """Write several, 500 in each atomic step, and give the place of the last. Raises what :meth:`revoke` does.

        Raises ValueError for none at all.
        """
        if not revocations:
            raise ValueError("there is nothing to revoke")
        now_ms = self._now_ms()
        wanted = [self._bounded(revocation, now_ms) for revocation in revocations]
        async with self._lock:
            for start in range(0, len(wanted), _BATCH):
                position = await self._append(wanted[start : start + _BATCH])
        latest_ms = max((item.time_ms for item in wanted if item.kind != Kind.TOKEN), default=0)
        if latest_ms >= self._now_ms():
            await asyncio.sleep(0.001)
        return position

    async def heartbeat(self) -> bool:
        """Say that the feed is alive, unless a writer did so within the last second; whether this call was the one.

        Also opens the first epoch of a store that has none, trims what no live token needs, and writes again what the
        store has lost of this process's last minute (a failover that lost writes).
        """
        async with self._lock:
            known = await self._read_head()
            now_ms = self._now_ms()
            age_ms = now_ms - known.head.beat_ms
            won = False
            if not -_SKEW_MS <= age_ms < BEAT_MS:
                floor, keep_from = await self._trimmed(known.head, now_ms)
                won = await self._beat(known, replace(known.head, floor=floor, beat_ms=now_ms), keep_from)
            await self._restore_lost(now_ms)
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
            await asyncio.sleep(every_s)

    async def reseal(self) -> int:
        """Open a new epoch with every authentic entry that the store still holds; gives how many that are.

        For an operator, after entries were deleted or altered in the store (followers say ``broken``): what is gone is
        accepted as gone. Raises AppError conflict if another writer changed the head meanwhile.
        """
        async with self._lock:
            with store_errors():
                raw: bytes | None = await self._store.get(HEAD_KEY)
            try:
                old = decode_head(self._key, raw or b"")
            except NotAuthentic:
                survivors, old_stream = [], None
            else:
                old_stream = stream_key(old.epoch)
                survivors = await self._survivors(old)
            if await self._open_epoch(raw or b"", [*survivors, *self._recent.revocations()], "resealed") is None:
                raise AppError("conflict", "Another writer changed the feed at the same time; try again.")
            if old_stream is not None:
                with store_errors():
                    await self._store.expire(old_stream, self._retention_ms // 1000 + 1)
            return len(survivors)

    # -- appending -----------------------------------------------------------------------------------------------

    def _now_ms(self) -> int:
        return milliseconds(self._clock())

    def _bounded(self, revocation: Revocation, now_ms: int) -> Revocation:
        """No token outlives the longest life, and a watermark in the future would end tokens not yet issued."""
        latest_ms = now_ms + (self._life_ms if revocation.kind == Kind.TOKEN else 0)
        return revocation if revocation.time_ms <= latest_ms else replace(revocation, time_ms=latest_ms)

    async def _append(self, revocations: Sequence[Revocation]) -> Position:
        for attempt in range(_MAX_ATTEMPTS):
            known = self._known or await self._read_head()
            if len(revocations) == 1 and (position := self._recent.position(revocations[0], known.head.epoch)):
                return position
            if known.head.last - known.head.floor >= MAX_LIVE and any(r.kind == Kind.TOKEN for r in revocations):
                raise AppError("overloaded", "Too many tokens are revoked one by one; revoke the client instead.")
            now_ms = self._now_ms()
            payloads, head = self._chain(known.head, revocations, now_ms)
            new = _KnownHead(head.encode(self._key), head)
            answer = await self._run(
                scripts.APPEND, [HEAD_KEY, stream_key(head.epoch)], [known.raw, new.raw, *payloads]
            )
            if isinstance(answer, list):
                self._known = new
                first = known.head.last + 1
                return self._recent.note(revocations, head.epoch, first, answer, now_ms)
            self._known = self._trusted(answer)
            if attempt > 2:
                await asyncio.sleep(random.random() * 0.002)  # noqa: S311 - so that two writers do not stay in step
        raise AppError("store_unavailable", reason="revocation_contention")

    def _chain(self, head: Head, revocations: Iterable[Revocation], now_ms: int) -> tuple[list[bytes], Head]:
        authenticator = epoch_authenticator(self._key, head.epoch)
        payloads, last, link = [], head.last, head.link
        for revocation in revocations:
            last += 1
            payload, link = encode_entry(authenticator, revocation, last, link, now_ms)
            payloads.append(payload)
        return payloads, replace(head, last=last, link=link)

    # -- the head ------------------------------------------------------------------------------------------------

    async def _read_head(self) -> "_KnownHead":
        with store_errors():
            raw: bytes | None = await self._store.get(HEAD_KEY)
        known = self._trusted(raw)
        while known is None:
            known = await self._open_epoch(b"", self._recent.revocations(), "no_head")
        self._known = known
        return known

    def _trusted(self, raw: bytes | None) -> "_KnownHead | None":
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

    async def _open_epoch(self, held: bytes, revocations: Sequence[Revocation], reason: str) -> "_KnownHead | None":
        """Write a stream of its own first and switch to it in one step; None if another writer was first."""
        epoch, now_ms = os.urandom(16), self._now_ms()
        payloads, head = self._chain(Head(epoch, link=FIRST_LINK, beat_ms=now_ms), revocations, now_ms)
        stream, ids = stream_key(epoch), []
        with store_errors():
            for start in range(0, len(payloads), _PAGE):
                async with self._store.pipeline(transaction=False) as pipe:
                    for payload in payloads[start : start + _PAGE]:
                        pipe.xadd(stream, {FIELD: payload})
                    ids += await pipe.execute()
        new = _KnownHead(head.encode(self._key), head)
        answer = await self._run(scripts.BEAT, [HEAD_KEY, stream, BEATS_KEY], [held, new.raw, ""])
        if not isinstance(answer, list):
            with store_errors():
                await self._store.delete(stream)
            return self._trusted(answer) if not held else None
        self._known = new
        if revocations:
            self._recent.note(revocations, epoch, 1, ids, now_ms)
        self._notify(Notice.EPOCH_OPENED, {"reason": reason, "n_entries": len(payloads)})
        return new

    async def _survivors(self, head: Head) -> list[Revocation]:
        found, start, now_ms = [], "-", self._now_ms()
        authenticator = epoch_authenticator(self._key, head.epoch)
        while page := await self._range(stream_key(head.epoch), start, _PAGE):
            for _, raw in page:
                try:
                    entry = decode_entry(authenticator, raw)
                    if entry.at_ms + self._retention_ms > now_ms:
                        found.append(Revocation(Kind(entry.kind), entry.key, entry.time_ms))
                except (NotAuthentic, ValueError):
                    continue
            start = "(" + page[-1][0].decode()
        return found

    # -- the heartbeat -------------------------------------------------------------------------------------------

    async def _beat(self, known: "_KnownHead", head: Head, keep_from: str) -> bool:
        new = _KnownHead(head.encode(self._key), head)
        keys = [HEAD_KEY, stream_key(head.epoch), BEATS_KEY]
        answer = await self._run(scripts.BEAT, keys, [known.raw, new.raw, keep_from])
        won = isinstance(answer, list)
        self._known = new if won else self._trusted(answer)
        return won

    async def _trimmed(self, head: Head, now_ms: int) -> tuple[int, str]:
        """The floor to say from now on, and the stream id to keep from (empty: nothing to trim)."""
        authenticator, floor, keep_from = epoch_authenticator(self._key, head.epoch), head.floor, ""
        oldest_ms = now_ms - self._retention_ms
        for n_entries in (1, _PAGE):  # mostly the first is young enough, and that is all there is to read
            for stream_id, raw in await self._range(stream_key(head.epoch), "-", n_entries):
                try:
                    entry = decode_entry(authenticator, raw)
                except NotAuthentic:
                    continue
                if entry.at_ms >= oldest_ms:
                    return floor, keep_from
                if head.floor <= entry.sequence <= head.last:
                    milliseconds_part, _, number = stream_id.decode().partition("-")
                    floor, keep_from = entry.sequence + 1, f"{milliseconds_part}-{int(number) + 1}"
        return floor, keep_from

    async def _restore_lost(self, now_ms: int) -> None:
        self._recent.forget_before(now_ms)
        newest = self._recent.newest()
        if newest is None:
            return
        found = await self._range(stream_key(newest.epoch), newest.stream_id, 1, newest.stream_id)
        if newest.epoch == self._epoch() and found:
            return
        lost = self._recent.take_all()
        for start in range(0, len(lost), _BATCH):
            await self._append(lost[start : start + _BATCH])
        self._notify(Notice.WRITES_RESTORED, {"n_entries": len(lost)})

    def _epoch(self) -> bytes:
        return self._known.head.epoch if self._known else b""

    # -- the store -----------------------------------------------------------------------------------------------

    async def _range(self, stream: str, start: str, count: int, end: str = "+") -> list[tuple[bytes, bytes]]:
        with store_errors():
            found: Any = await self._store.xrange(stream, start, end, count)
        return [(stream_id, fields.get(FIELD, b"")) for stream_id, fields in found]

    async def _run(self, script: str, keys: Sequence[str], arguments: Sequence[bytes | str]) -> Any:
        rest = [*keys, *cast("Sequence[str]", arguments)]
        digest = sha1(script.encode(), usedforsecurity=False).hexdigest()
        with store_errors():
            try:
                return await cast("Awaitable[Any]", self._store.evalsha(digest, len(keys), *rest))
            except NoScriptError:
                return await cast("Awaitable[Any]", self._store.eval(script, len(keys), *rest))


@dataclass(frozen=True, slots=True)
class _KnownHead:
    """A head, and the very bytes that the store holds for it."""

    raw: bytes
    head: Head
