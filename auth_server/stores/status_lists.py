"""The tokens of clients that want theirs in a Token Status List: a free index for each, and what is needed to judge it.

A list takes tokens for an hour or until it is half full, then the next one is opened; so it is over, as a whole, when
its last token is. Indexes are random: they tell nobody which token came before which, and a half-full list has one in
the first of a few tries.

Keys (all end by themselves; one hash slot): ``flex:{status}:open`` the list that takes tokens and until when,
``flex:{status}:lists`` ids by the time they end, and for each list ``…:taken:<id>`` its indexes as a bitmap and
``…:records:<id>`` its records in the order in which they came.
"""

import asyncio
import math
import secrets
from dataclasses import dataclass
from typing import Any, cast

from redis.asyncio import Redis

from auth_server.stores.status_records import ListedToken, encode_record, list_authenticator
from shared.errors import AppError
from shared.revocations.entries import TokenMarks
from shared.revocations.feed_key import FeedKey
from shared.revocations.revoked import retention_s
from shared.store import store_errors

SIZE = 2**16
WINDOW_S = 3600
OPEN = "flex:{status}:open"
LISTS = "flex:{status}:lists"
_CANDIDATES = 4  # of a half-full list, one in sixteen tries finds all of them taken
_ATTEMPTS = 32
_AT_A_TIME = 32  # the client library gives up at a hundred connections, and others need some too
_PAGE = 500

# KEYS 1 open, 2 taken, 3 records; ARGV 1 list id, 2 now, 3 how many tokens a list takes, 4 how long to keep it, then
# index and record in turn. Answers the id of the list to use (empty: open one) and the index, or -1 to ask again.
_TAKE = """
local open = redis.call('HMGET', KEYS[1], 'list', 'until')
if open[1] ~= ARGV[1] then return {open[1] or '', -1} end
if tonumber(ARGV[2]) >= tonumber(open[2]) or redis.call('LLEN', KEYS[3]) >= tonumber(ARGV[3]) then return {'', -1} end
for n = 5, #ARGV, 2 do
  if redis.call('SETBIT', KEYS[2], ARGV[n], 1) == 0 then
    if redis.call('RPUSH', KEYS[3], ARGV[n + 1]) == 1 then
      redis.call('EXPIRE', KEYS[2], ARGV[4])
      redis.call('EXPIRE', KEYS[3], ARGV[4])
    end
    return {ARGV[1], tonumber(ARGV[n])}
  end
end
return {ARGV[1], -1}
"""

# KEYS 1 open, 2 lists; ARGV 1 the list to replace (empty: none), 2 the new one, 3 until when it takes tokens, 4 when it
# is over, 5 now, 6 how long to keep it. Answers the list that takes tokens after this, empty if there is none.
_OPEN = """
local held = redis.call('HGET', KEYS[1], 'list') or ''
if held ~= ARGV[1] then return held end
redis.call('HSET', KEYS[1], 'list', ARGV[2], 'until', ARGV[3])
redis.call('EXPIRE', KEYS[1], ARGV[6])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', ARGV[5])
redis.call('ZADD', KEYS[2], ARGV[4], ARGV[2])
redis.call('EXPIRE', KEYS[2], ARGV[6])
return ARGV[2]
"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the status of a token is: which list, and its index there."""

    list_id: str
    index: int


@dataclass(frozen=True, slots=True)
class RecordsPage:
    """Some raw records of a list, not yet authenticated, and how many it has."""

    records: tuple[bytes, ...]
    n_records: int


class StatusLists:
    """The lists in the store. Every operation raises AppError store_unavailable if the store does not answer.

    ``max_token_life_s`` is the longest life of any token, ``leeway_s`` what verifiers grant beyond ``exp``; ``size``
    the entries of a list, of which half are used.
    """

    def __init__(
        self, store: Redis, feed_key: FeedKey, *, max_token_life_s: float, leeway_s: float, size: int = SIZE
    ) -> None:
        self._store = store
        self._key = feed_key
        self.size = size
        self._keep_s = WINDOW_S + math.ceil(retention_s(max_token_life_s, leeway_s))
        self._open_list = ""
        self._turns = asyncio.Semaphore(_AT_A_TIME)

    async def add(self, marks: TokenMarks, expires_at: int, now: float) -> Place:
        """Put a token that is about to be signed into a list: one round trip. ``now`` in UTC seconds.

        Raises AppError overloaded if no place was found, which a thousand others at once would take.
        """
        async with self._turns:
            list_id = self._open_list
            for _ in range(_ATTEMPTS):
                if not list_id:
                    list_id = await self._open("", now)
                use, index = await self._take(list_id, marks, expires_at, now)
                if index >= 0:
                    self._open_list = list_id
                    return Place(list_id, index)
                list_id = use or await self._open(list_id, now)
        raise AppError("overloaded", retry_after_s=1, reason="status_list_contention")

    async def ids(self, now: float) -> list[str]:
        """Ids of the lists that hold tokens which may still be good."""
        with store_errors():
            found = await self._store.zrange(LISTS, cast("Any", f"({now!r}"), cast("Any", "+inf"), byscore=True)
        return [cast("bytes", list_id).decode() for list_id in found]

    async def exists(self, list_id: str, now: float) -> bool:
        """Whether a list is there and not over."""
        with store_errors():
            ends_at = await self._store.zscore(LISTS, list_id)
        return ends_at is not None and ends_at > now

    async def read(self, list_id: str, start: int, now: float) -> RecordsPage | None:
        """Read the next records of a list, from number ``start`` on; None for a list that does not exist or is over."""
        records_key = f"flex:{{status}}:records:{list_id}"
        with store_errors():
            async with self._store.pipeline(transaction=True) as pipe:
                pipe.zscore(LISTS, list_id)
                pipe.lrange(records_key, start, start + _PAGE - 1)
                pipe.llen(records_key)
                ends_at, records, n_records = await pipe.execute()
        return None if ends_at is None or ends_at <= now else RecordsPage(tuple(records), n_records)

    async def _take(self, list_id: str, marks: TokenMarks, expires_at: int, now: float) -> tuple[str, int]:
        authenticator = list_authenticator(self._key, list_id)
        candidates: list[str | bytes] = []
        for _ in range(_CANDIDATES):
            index = secrets.randbelow(self.size)
            candidates += [str(index), encode_record(authenticator, ListedToken(index, marks, expires_at))]
        keys = [OPEN, f"flex:{{status}}:taken:{list_id}", f"flex:{{status}}:records:{list_id}"]
        use, index = await self._run(
            _TAKE, keys, [list_id, repr(now), str(self.size // 2), str(self._keep_s), *candidates]
        )
        return use.decode(), index

    async def _open(self, replaced: str, now: float) -> str:
        """Open a list in place of ``replaced``, unless somebody did; gives the one that is open then."""
        ends_at = repr(now + self._keep_s)
        arguments = [replaced, secrets.token_hex(8), repr(now + WINDOW_S), ends_at, repr(now), str(self._keep_s)]
        held: bytes = await self._run(_OPEN, [OPEN, LISTS], arguments)
        return held.decode()

    async def _run(self, script: str, keys: list[str], arguments: list[Any]) -> Any:
        with store_errors():
            return await self._store.eval(script, len(keys), *keys, *arguments)
