"""Single flight: of many callers who want the same thing, one fetches it and the others wait for the result."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class LeaderGoneError(Exception):
    """The caller who was fetching was cancelled before there was a result; another may lead."""


class SingleFlight(Generic[T]):
    """One fetch at a time, shared by threads and by tasks of any event loop.

    The lock is held for a few instructions only, never while waiting, so that a thread can't block a loop.
    ``patience_s`` bounds how long a follower waits for the leader; TimeoutError after that.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._flight: Future[T] | None = None

    @property
    def busy(self) -> bool:
        """Whether somebody is fetching now."""
        return self._flight is not None

    def run(self, fetch: Callable[[], T]) -> T:
        """Fetch, or wait for whoever fetches already. Raises what that fetch raised."""
        while True:
            flight, leads = self._join()
            if not leads:
                try:
                    return flight.result(self._patience_s)
                except LeaderGoneError:
                    continue
            try:
                result = fetch()
            except BaseException as error:
                self._fail(flight, error)
                raise
            self._land(flight, result)
            return result

    async def run_async(self, fetch: Callable[[], Awaitable[T]]) -> T:
        """Fetch, or wait for whoever fetches already. Raises what that fetch raised."""
        while True:
            flight, leads = self._join()
            if not leads:
                try:
                    return await asyncio.wait_for(asyncio.wrap_future(flight), self._patience_s)
                except LeaderGoneError:
                    continue
            try:
                result = await fetch()
            except BaseException as error:
                self._fail(flight, error)
                raise
            self._land(flight, result)
            return result

    def _join(self) -> tuple[Future[T], bool]:
        with self._lock:
            if self._flight is not None:
                return self._flight, False
            self._flight = Future()
            # A running future can't be cancelled: a follower that gives up takes nobody with it.
            self._flight.set_running_or_notify_cancel()
            return self._flight, True

    def _land(self, flight: Future[T], result: T) -> None:
        with self._lock:
            self._flight = None
        flight.set_result(result)

    def _fail(self, flight: Future[T], error: BaseException) -> None:
        with self._lock:
            self._flight = None
        flight.set_exception(error if isinstance(error, Exception) else LeaderGoneError())
