"""Charging calls to their limits: after the caller is authorized, before the work.

What was refused before (401, 403, 404, 415) costs nothing; what is charged stays charged, also if the body turns out to
be unusable (400, 413, 422). Every answer of a charged call tells the caller what is left.
"""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.types import Scope

from model_server.accounts import ProfileTab
from shared.errors import AppError
from shared.rate_limit.headers import RateLimitHeaders, refused
from shared.rate_limit.lease import Admission, KeySet, Refusal
from shared.rate_limit.leases import Limiter
from shared.rate_limit.limits import CALL, Cost

ONE_CALL_NO_ROWS = Cost(1, 0)


class Till:
    """Charges calls of one worker. ``clock`` is the limiter's monotonic one."""

    def __init__(self, limiter: Limiter, clock: Callable[[], float] = time.monotonic) -> None:
        self._limiter = limiter
        self._headers = RateLimitHeaders()
        self._clock = clock

    def at_once(self, scope: Scope, key_set: KeySet) -> bool:
        """Charge one call without waiting; False if the store has to be asked (see :meth:`charged`).

        Raises AppError ``too_many_requests`` or ``overloaded``.
        """
        answer = self._limiter.admit(key_set)
        if answer is key_set.admission:
            scope["flex.lines"] = self._headers.lines(key_set, self._limiter.now)
            return True
        if answer is None:
            return False
        if self._admitted(scope, key_set, answer).degraded:  # what is answered at once never runs beside others
            self._limiter.done(key_set.degraded)
        return True

    @asynccontextmanager
    async def charged(self, scope: Scope, key_set: KeySet, cost: Cost = CALL) -> AsyncIterator[None]:
        """Charge a call that runs in the body of the context. Raises as :meth:`at_once`."""
        admission = self._admitted(scope, key_set, await self._limiter.acquire(key_set, cost))
        try:
            yield
        finally:
            self._limiter.done(admission)

    async def charge_rows(self, scope: Scope, key_set: KeySet, n_rows: int) -> None:
        """Charge further rows of a call that is running, all or none. Raises as :meth:`at_once`."""
        await self._charge_part(scope, key_set, key_set, Cost(0, n_rows))

    async def charge_some_rows(self, scope: Scope, key_set: KeySet, n_rows: int) -> tuple[int, AppError | None]:
        """Charge as many further rows as there is room for: how many, and the refusal if not all."""
        try:
            await self.charge_rows(scope, key_set, n_rows)
        except AppError:
            n_charged = 0
        else:
            return n_rows, None
        try:
            while n_charged < n_rows:  # to the last row that the budget holds
                await self.charge_rows(scope, key_set, 1)
                n_charged += 1
        except AppError as error:
            return n_charged, error
        return n_charged, None

    @asynccontextmanager
    async def charged_profile(self, scope: Scope, tab: ProfileTab) -> AsyncIterator[None]:
        """Charge one profile: one call, and of each budget one row for each attribute that it covers."""
        async with self.charged(scope, tab.key_set, ONE_CALL_NO_ROWS):
            for key_set, cost in tab.rows:
                await self._charge_part(scope, tab.key_set, key_set, cost)
            yield

    async def _charge_part(self, scope: Scope, shown: KeySet, key_set: KeySet, cost: Cost) -> None:
        self._limiter.done(self._admitted(scope, shown, await self._limiter.acquire(key_set, cost)))

    def _admitted(self, scope: Scope, shown: KeySet, answer: Admission | Refusal) -> Admission:
        """Leave the headers for the edge; raise for a refusal."""
        scope["flex.lines"] = self._headers.lines(shown, self._clock())
        if isinstance(answer, Refusal):
            raise refused(answer)
        return answer
