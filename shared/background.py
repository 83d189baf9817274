"""Tasks that run beside the requests: none ends unnoticed, and all end when their server does."""

import asyncio
from collections.abc import Coroutine, Iterable

from shared import events
from shared.events import Event

Task = asyncio.Task[None]


def start(work: Coroutine[object, object, None]) -> Task:
    """Run ``work`` as a task; if it fails, an event says so."""
    task = asyncio.create_task(work)
    task.add_done_callback(_tell_end)
    return task


def _tell_end(task: Task) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        events.emit(Event.INTERNAL_ERROR, reason=type(error).__name__, where="background")


async def stop(tasks: Iterable[Task]) -> None:
    """Cancel tasks until they have ended."""
    pending = set(tasks)
    while pending:  # redis-py may lose a cancellation that comes together with a reply
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.5)
