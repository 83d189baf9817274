"""Hearing that another worker is short of units that this one may hold."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

from redis.asyncio import Redis

from shared.errors import AppError
from shared.rate_limit.lease_script import RECALLS
from shared.store import store_errors

_BLOCK_MS = 1000
_RETRY_S = 0.5


async def follow_recalls(store: Redis, holding: asyncio.Event, on_recall: Callable[[str, str, int], None]) -> None:
    """Call ``on_recall(store_key, field of who is short, store_time_us)`` for each recall, until cancelled.

    Reads only while ``holding`` is set, with one call that waits up to 1 s. Entries that were missed are read later;
    whoever listens compares the time with that of its lease.
    """
    cursor: bytes | str = "0"
    while not is_cancelled():
        await holding.wait()
        try:
            with store_errors():
                reply = await cast("Any", store.xread({RECALLS: cursor}, count=256, block=_BLOCK_MS))
        except AppError:
            await asyncio.sleep(_RETRY_S)
            continue
        for _, entries in reply.items() if isinstance(reply, dict) else reply or ():
            for entry_id, fields in entries:
                cursor = entry_id
                on_recall(fields[b"key"].decode(), fields[b"by"].decode(), int(fields[b"at"]))


def is_cancelled() -> bool:
    """Whether the running task was told to end. The client library may turn that into an error of its own."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
