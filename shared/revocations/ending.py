"""Ending a task that loops for ever on the store."""

import asyncio


def end_if_cancelled() -> None:
    """Raise CancelledError if the running task was cancelled; for each turn of such a loop.

    Before Python 3.12 ``asyncio.wait_for`` (python/cpython#86296), in which the store's client sends, loses a
    cancellation that arrives just as the sending is done; the task would go on for ever.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
