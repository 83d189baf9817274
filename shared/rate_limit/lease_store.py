"""Asking the store: many asks in one round trip, each one run of the script of ``lease_script``."""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError

from shared.errors import AppError
from shared.rate_limit.gcra import Limit
from shared.rate_limit.lease_script import RECALLS, SCRIPT
from shared.store import store_errors

LEASE_S = 10.0
_SHA = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()  # how EVALSHA names a script


@dataclass(frozen=True, slots=True)
class Line:
    """One limit of an ask; the words are those of the script. ``held`` -1 reports nothing."""

    key: str
    limit: Limit
    need: int = 0
    queued: int = 0
    ahead: int = 0
    held: int = -1
    spent: int = 0
    debt: int = 0


@dataclass(frozen=True, slots=True)
class LineAnswer:
    """What one limit got: ``ahead`` units on lease and ``queue`` to spend at once.

    ``room`` units are left in the store, one more comes in ``next_unit_us``, ``others`` are out at other workers.
    """

    ahead: int
    queue: int
    room: int
    next_unit_us: int
    others: int


@dataclass(frozen=True, slots=True)
class Answer:
    """``granted`` says whether every line got its need; ``lines`` is empty if the store held a later ask already."""

    granted: bool
    now_us: int
    lines: tuple[LineAnswer, ...]


class LeaseStore:
    """The store's side for one worker, called ``worker`` (a name no other process has), of ``n_workers`` in all.

    ``store_clock_us`` replaces the store's clock in tests. ``n_calls`` counts runs of the script so far.
    """

    def __init__(
        self,
        store: Redis,
        *,
        worker: str,
        n_workers: int,
        timeout_s: float,
        store_clock_us: Callable[[], int] | None = None,
    ) -> None:
        self._store = store
        self._worker = worker
        self._n_workers = n_workers
        self._timeout_s = timeout_s
        self._clock_us = store_clock_us or (lambda: 0)
        self._sequence = 0
        self.n_calls = 0

    async def ask(self, asks: Sequence[Sequence[Line]]) -> list[Answer]:
        """Run each ask, all or nothing within it, in one round trip.

        Raises AppError store_unavailable after ``timeout_s`` at the latest; the asks may have been carried out.
        """
        commands = [self._command(lines) for lines in asks]
        self.n_calls += len(commands)
        with store_errors():
            async with asyncio.timeout(self._timeout_s):
                replies = await self._run(commands)
                if any(isinstance(reply, NoScriptError) for reply in replies):  # a new or restarted store
                    await self._store.script_load(SCRIPT)
                    unknown = [n for n, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
                    again = await self._run([commands[n] for n in unknown])
                    for n, reply in zip(unknown, again, strict=True):
                        replies[n] = reply
        return [_answer(reply) for reply in replies]

    async def ping(self) -> None:
        """Raise AppError store_unavailable unless the store answers in time."""
        with store_errors():
            async with asyncio.timeout(self._timeout_s):
                await cast("Any", self._store.ping())

    async def _run(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        async with self._store.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.evalsha(*command)
            return list(await pipe.execute(raise_on_error=False))

    def _command(self, lines: Sequence[Line]) -> list[Any]:
        self._sequence += 1
        arguments: list[Any] = [
            self._clock_us(),
            self._worker,
            self._n_workers,
            int(LEASE_S * 1_000_000),
            self._sequence,
        ]
        for line in lines:
            arguments += (line.limit.interval_us, line.limit.count, line.need, max(line.need, line.queued), line.ahead)
            arguments += (line.held, line.spent, line.debt)
        return [_SHA, len(lines) + 1, *(line.key for line in lines), RECALLS, *arguments]


def _answer(reply: Any) -> Answer:
    if isinstance(reply, RedisError):
        raise AppError("store_unavailable", retry_after_s=1, reason=f"limits_{type(reply).__name__}")
    granted, now_us, *values = reply
    places = range(0, len(values), 5)
    return Answer(granted == 1, now_us, tuple(LineAnswer(*values[place : place + 5]) for place in places))
