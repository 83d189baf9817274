"""The feed's commands to the store, for the writing side; each ends in time or raises AppError store_unavailable."""

from collections.abc import Awaitable, Sequence
from hashlib import sha1
from typing import Any, Final, cast

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from shared.revocations import scripts
from shared.revocations.head import BEATS_KEY, FIELD, HEAD_KEY, stream_key
from shared.store import store_errors

PAGE: Final = 1000


class HeadMoved(Exception):  # noqa: N818 - it says what happened
    """The head is not the one that the caller knew; ``raw`` is what it is (None: there is none)."""

    def __init__(self, raw: bytes | None) -> None:
        self.raw = raw
        super().__init__("the head is another by now")


class Stream:
    """Head, entries and heartbeats in one store. Nothing here looks into them."""

    def __init__(self, store: Redis) -> None:
        self._store = store

    async def head(self) -> bytes | None:
        """The head as it is."""
        with store_errors():
            return cast("bytes | None", await self._store.get(HEAD_KEY))

    async def append(self, epoch: bytes, expected: bytes, head: bytes, entries: Sequence[bytes]) -> list[bytes]:
        """Append entries and replace the head, if it is still ``expected`` (else HeadMoved); gives their ids."""
        answer = await self._run(scripts.APPEND, [HEAD_KEY, stream_key(epoch)], [expected, head, *entries])
        return cast("list[bytes]", answer)

    async def beat(self, epoch: bytes, expected: bytes, head: bytes, keep_from: str = "") -> None:
        """Replace the head and publish it as a heartbeat, if it is still the ``expected`` one (else HeadMoved).

        ``expected`` is empty where none is; entries before the id ``keep_from`` are trimmed.
        """
        await self._run(scripts.BEAT, [HEAD_KEY, stream_key(epoch), BEATS_KEY], [expected, head, keep_from])

    async def write_aside(self, epoch: bytes, entries: Sequence[bytes]) -> list[bytes]:
        """Fill the stream of an epoch that no head names yet; gives the ids."""
        ids: list[bytes] = []
        for start in range(0, len(entries), PAGE):
            with store_errors():
                async with self._store.pipeline(transaction=False) as pipe:
                    for entry in entries[start : start + PAGE]:
                        pipe.xadd(stream_key(epoch), {FIELD: entry})
                    ids += await pipe.execute()
        return ids

    async def drop(self, epoch: bytes, after_s: int = 0) -> None:
        """Delete the stream of an epoch, now or later."""
        with store_errors():
            await self._store.expire(stream_key(epoch), after_s)

    async def entries(self, epoch: bytes, start: str, count: int, end: str = "+") -> list[tuple[bytes, bytes]]:
        """Up to ``count`` stream ids with their entries, not yet verified."""
        with store_errors():
            found: Any = await self._store.xrange(stream_key(epoch), start, end, count)
        return [(stream_id, fields.get(FIELD, b"")) for stream_id, fields in found]

    async def _run(self, script: str, keys: Sequence[str], arguments: Sequence[bytes | str]) -> object:
        rest = [*keys, *cast("Sequence[str]", arguments)]
        digest = sha1(script.encode(), usedforsecurity=False).hexdigest()
        with store_errors():
            try:
                answer = await cast("Awaitable[object]", self._store.evalsha(digest, len(keys), *rest))
            except NoScriptError:
                answer = await cast("Awaitable[object]", self._store.eval(script, len(keys), *rest))
        if not isinstance(answer, list):
            raise HeadMoved(cast("bytes | None", answer))
        return answer
