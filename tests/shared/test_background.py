"""Tasks beside the requests: their failures are told, and stopping them is certain."""

import asyncio

from shared import background
from shared.events import Event


async def test_a_task_that_fails_is_told(event_log) -> None:
    """One event with the kind of the error; a task that just ends is none."""

    async def fail() -> None:
        raise LookupError("x")

    async def end() -> None:
        return

    await asyncio.wait([background.start(fail()), background.start(end())])
    await asyncio.sleep(0)
    assert [line["reason"] for line in event_log.named(Event.INTERNAL_ERROR)] == ["LookupError"]


async def test_stopping_insists(event_log) -> None:
    """A task that loses one cancellation, as the store's client may, is cancelled again; nothing is told."""
    n_cancelled = 0

    async def deaf() -> None:
        nonlocal n_cancelled
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                n_cancelled += 1
                if n_cancelled == 2:
                    raise

    task = background.start(deaf())
    await asyncio.sleep(0)
    await background.stop([task])
    assert (task.cancelled(), n_cancelled) == (True, 2)
    assert event_log.lines == []


async def test_stopping_nothing_is_fine() -> None:
    """No tasks, and tasks that have ended already."""

    async def end() -> None:
        return

    task = background.start(end())
    await task
    await background.stop([])
    await background.stop([task])
