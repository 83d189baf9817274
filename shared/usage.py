"""Usage in the store: written by model servers in batches, read by the admin API and the command line.

Keys, all in one hash slot, and all end by themselves (days and scopes after 100 days, numbers after one):
``flex:{usage}:day:<day>`` the clients that called on a day, ``flex:{usage}:calls:<day>:<client>`` a hash of
``<attribute>:<count>``, ``flex:{usage}:scopes:<client>`` a hash of scope to the last day it was used,
``flex:{usage}:seen:<writer>`` the number of a writer's last batch.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple, cast

from redis.asyncio import Redis

from shared.store import store_errors

KEPT_DAYS = 100
PROFILE = "*"
"""What stands for the attribute where a profile is counted: its call here, its rows under each attribute."""
BOUNDS_S = (0.001, 0.005, 0.025, 0.1, 1.0)
BUCKETS = ("le_1ms", "le_5ms", "le_25ms", "le_100ms", "le_1s", "slower")
COUNTS = ("ok", "invalid", "denied", "limited", "failed", "rows", "explanations", "time_us", *BUCKETS)
"""``ok`` 2xx; ``invalid`` a body that could not be used; ``denied`` 403 and 404; ``limited`` 429; ``failed`` the rest.

``rows`` and ``explanations`` are records answered; ``time_us`` the sum of all answer times; then calls by answer time.
"""
Counts = list[int]
_PREFIX = "flex:{usage}:"
_KEPT_S = KEPT_DAYS * 86_400
_MAX_GROUPS = 100

_SCRIPT = """
-- KEYS 1 the writer's last number, then for each group: clients of the day, the client's day, the client's scopes.
-- ARGV 1 number, 2 life of the keys (s); for each group: client, day, n counts, n scopes, field and amount…, scope…
if tonumber(ARGV[1]) <= tonumber(redis.call('GET', KEYS[1]) or '0') then return 0 end
local at = 3
for group = 2, #KEYS, 3 do
  local client, day, n_counts, n_scopes = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  at = at + 4
  redis.call('SADD', KEYS[group], client)
  redis.call('EXPIRE', KEYS[group], ARGV[2])
  for _ = 1, n_counts do
    redis.call('HINCRBY', KEYS[group + 1], ARGV[at], ARGV[at + 1])
    at = at + 2
  end
  redis.call('EXPIRE', KEYS[group + 1], ARGV[2])
  for _ = 1, n_scopes do
    local last = redis.call('HGET', KEYS[group + 2], ARGV[at])
    if not last or last < day then redis.call('HSET', KEYS[group + 2], ARGV[at], day) end
    at = at + 1
  end
  if n_scopes > 0 then redis.call('EXPIRE', KEYS[group + 2], ARGV[2]) end
end
redis.call('SET', KEYS[1], ARGV[1], 'EX', 86400)
return 1
"""


class UsageLine(NamedTuple):
    """What counts are about. ``day`` as ``2027-01-15`` (UTC)."""

    day: str
    client_id: str
    attribute: str


@dataclass(frozen=True, slots=True)
class Page:
    """Lines in the order of client, attribute, day; ``next_cursor`` is empty on the last page."""

    lines: tuple[tuple[UsageLine, Counts], ...]
    next_cursor: str


def day_of(now: float) -> str:
    """The UTC day of a moment."""
    return datetime.fromtimestamp(now, UTC).date().isoformat()


def days_between(first: str, last: str) -> list[str]:
    """All days from one to another. Raises ValueError for a text that is no day, and for more than 100 days."""
    start, end = date.fromisoformat(first), date.fromisoformat(last)
    n_days = (end - start).days + 1
    if not 0 < n_days <= KEPT_DAYS:
        raise ValueError(f"a range has 1 to {KEPT_DAYS} days")
    return [(start + timedelta(days=number)).isoformat() for number in range(n_days)]


class UsageLedger:
    """Usage in the store. Every operation raises AppError store_unavailable if the store does not answer."""

    def __init__(self, store: Redis) -> None:
        self._store = store

    async def add(self, writer: str, sequence: int, lines: Mapping[UsageLine, Counts]) -> None:
        """Add one batch, in one round trip. The same batch of a writer, sent again, is added once.

        A writer's numbers rise by 1 and a batch that failed is sent again, unchanged, before the next.
        """
        groups: dict[tuple[str, str], list[tuple[str, Counts]]] = {}
        for line, counts in lines.items():
            groups.setdefault((line.day, line.client_id), []).append((line.attribute, counts))
        commands = [
            self._command(f"{writer}:{place}", sequence, list(groups.items())[place : place + _MAX_GROUPS])
            for place in range(0, len(groups), _MAX_GROUPS)
        ]
        with store_errors():
            async with self._store.pipeline(transaction=False) as pipe:
                for keys, arguments in commands:
                    pipe.eval(_SCRIPT, len(keys), *keys, *arguments)
                await pipe.execute()

    @staticmethod
    def _command(
        writer: str, sequence: int, groups: Sequence[tuple[tuple[str, str], list[tuple[str, Counts]]]]
    ) -> tuple[list[str], list[str]]:
        keys, arguments = [_PREFIX + "seen:" + writer], [str(sequence), str(_KEPT_S)]
        for (day, client_id), attributes in groups:
            keys += [_day_key(day), _calls_key(day, client_id), _scopes_key(client_id)]
            fields = [
                (f"{attribute}:{name}", str(count))
                for attribute, counts in attributes
                for name, count in zip(COUNTS, counts, strict=True)
                if count
            ]
            scopes = [scope for attribute, counts in attributes for scope in _scopes_used(attribute, counts)]
            arguments += [client_id, day, str(len(fields)), str(len(scopes))]
            arguments += [text for pair in fields for text in pair]
            arguments += scopes
        return keys, arguments

    async def note_scopes(self, client_id: str, scopes: Iterable[str], day: str) -> None:
        """Note that a client used scopes on a day: for those that no model call shows, such as ``keys:manage``."""
        used = dict.fromkeys(scopes, day)
        if not used:
            return
        with store_errors():
            async with self._store.pipeline(transaction=False) as pipe:
                pipe.hset(_scopes_key(client_id), mapping=cast("dict[Any, Any]", used))
                pipe.expire(_scopes_key(client_id), _KEPT_S)
                await pipe.execute()

    async def scopes_used(self, client_ids: Sequence[str]) -> dict[str, dict[str, str]]:
        """For each client the scopes it used, with the last day of each."""
        replies = await self._hashes([_scopes_key(client_id) for client_id in client_ids])
        return {
            client_id: {scope.decode(): day.decode() for scope, day in fields.items()}
            for client_id, fields in zip(client_ids, replies, strict=True)
        }

    async def page(
        self,
        days: Sequence[str],
        *,
        client_id: str = "",
        attribute: str = "",
        by_day: bool = False,
        cursor: str = "",
        limit: int = 100,
    ) -> Page:
        """Read the usage of some days, of at most ``limit`` clients after ``cursor``; empty filters mean all.

        Added up over the days, whose first is then the line's day, unless ``by_day``.
        """
        clients = [client_id] if client_id else await self._clients(days)
        waiting = [each for each in clients if each > cursor]
        shown = waiting[:limit]
        wanted = [(each, day) for each in shown for day in days]
        replies = await self._hashes([_calls_key(day, each) for each, day in wanted])
        totals: dict[UsageLine, Counts] = {}
        for (each, day), fields in zip(wanted, replies, strict=True):
            for field, count in fields.items():
                named, _, name = field.decode().rpartition(":")
                if (not attribute or named == attribute) and name in COUNTS:
                    line = UsageLine(day if by_day else days[0], each, named)
                    totals.setdefault(line, [0] * len(COUNTS))[COUNTS.index(name)] += int(count)
        lines = sorted(totals.items(), key=lambda item: (item[0].client_id, item[0].attribute, item[0].day))
        return Page(tuple(lines), shown[-1] if len(waiting) > limit else "")

    async def _clients(self, days: Sequence[str]) -> list[str]:
        with store_errors():
            async with self._store.pipeline(transaction=False) as pipe:
                for day in days:
                    pipe.smembers(_day_key(day))
                replies = await pipe.execute()
        return sorted({member.decode() for reply in replies for member in reply})

    async def _hashes(self, keys: Sequence[str]) -> list[dict[bytes, bytes]]:
        with store_errors():
            async with self._store.pipeline(transaction=False) as pipe:
                for key in keys:
                    pipe.hgetall(key)
                return list(await pipe.execute())


def _scopes_used(attribute: str, counts: Counts) -> list[str]:
    if attribute == PROFILE:
        return []
    rows, explanations = (counts[COUNTS.index(name)] for name in ("rows", "explanations"))
    return [f"predict:{attribute}"] * bool(rows) + [f"explain:{attribute}"] * bool(explanations)


def _day_key(day: str) -> str:
    return f"{_PREFIX}day:{day}"


def _calls_key(day: str, client_id: str) -> str:
    return f"{_PREFIX}calls:{day}:{client_id}"


def _scopes_key(client_id: str) -> str:
    return f"{_PREFIX}scopes:{client_id}"
