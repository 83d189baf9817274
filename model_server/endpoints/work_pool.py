"""Work that would hold up the event loop: batches, profiles and explanations, on a few threads with a bounded queue."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from shared.errors import AppError

T = TypeVar("T")
JOB_TIMEOUT_S = 20.0
_LOOK_AGAIN_S = 0.005


class WorkPool:
    """Runs jobs on ``n_threads`` threads; at most ``n_waiting`` more may wait.

    ``prepare`` runs once in every thread before its first job (it makes the engine's buffers).
    """

    def __init__(self, n_threads: int, n_waiting: int, prepare: Callable[[], None]) -> None:
        self._n_threads = n_threads
        self._places = threading.BoundedSemaphore(n_threads + n_waiting)
        self._all_started = threading.Barrier(n_threads)
        self._executor = ThreadPoolExecutor(n_threads, thread_name_prefix="work", initializer=prepare)

    def start(self) -> None:
        """Start all threads now, so that no request pays for it; returns at once."""
        for _ in range(self._n_threads):  # each holds its thread until the last is there, so no thread takes two
            self._executor.submit(self._all_started.wait)

    def close(self) -> None:
        """Drop what waits; what runs comes to its end."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._all_started.abort()  # a thread that waits for one that will never start would keep the process alive

    async def run(self, job: Callable[[], T], *, patient: bool = False, timeout_s: float = JOB_TIMEOUT_S) -> T:
        """Give the job's result; what it raises is raised here.

        Raises AppError ``overloaded`` if the queue is full (a ``patient`` caller waits for a place instead) or the
        result is not there after ``timeout_s``; a job that waits is dropped then, one that runs ends unheard.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while not self._places.acquire(blocking=False):
                    if not patient:
                        raise AppError("overloaded", retry_after_s=1, reason="queue_full")
                    await asyncio.sleep(_LOOK_AGAIN_S)
                return await self._submitted(job)
        except TimeoutError:
            raise AppError("overloaded", retry_after_s=1, reason="job_timeout") from None

    async def _submitted(self, job: Callable[[], T]) -> T:
        try:
            future = self._executor.submit(job)
        except RuntimeError:  # shut down
            self._places.release()
            raise AppError("not_ready", reason="stopping") from None
        # The place is free when the thread is, not when the caller has given up.
        future.add_done_callback(lambda _: self._places.release())
        return await asyncio.wrap_future(future)
