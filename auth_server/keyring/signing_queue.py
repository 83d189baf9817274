"""Signing on the event loop without keeping others waiting: at most six RSA signatures an iteration of the loop.

A thread would cost two hops and its share of the GIL for each token. Whatever else is ready runs after 2.5 ms at the
latest, however many wait for their signature.
"""

import asyncio
from collections import deque
from collections.abc import Mapping

from auth_server.keyring import changes, material
from auth_server.keyring.signer import Signer
from shared.errors import AppError

MAX_WAITING = 64
# RSA empties the processor's caches, so what follows a lone signature runs cold: signing one at a time costs
# about 90 us more a token than signing several in a row.
AT_A_TIME = 6
_Waiting = tuple[Mapping[str, object], "asyncio.Future[str]"]


class SigningQueue:
    """First come, first signed. Holds at most ``max_waiting`` claim sets; all belong to one event loop."""

    def __init__(self, signer: Signer, *, max_waiting: int = MAX_WAITING) -> None:
        self._signer = signer
        self._max_waiting = max_waiting
        self._waiting: deque[_Waiting] = deque()
        self._turn_is_over = True
        self._refreshing: asyncio.Task[None] | None = None

    @property
    def n_waiting(self) -> int:
        """How many signatures are waited for."""
        return len(self._waiting)

    async def sign(self, claims: Mapping[str, object]) -> str:
        """Sign as ``Signer.sign`` does, when it is this call's turn.

        Raises AppError overloaded if too many wait already, and what ``Signer.sign`` raises.
        """
        loop = asyncio.get_running_loop()
        if self._turn_is_over and not self._waiting:
            # Nobody signed in this iteration and nobody waits: no future, no second pass through the loop.
            token = self._signer.sign_if_ready(claims)
            if token is not None:
                self._turn_is_over = False
                loop.call_soon(self._next_turn)
                return token
        if len(self._waiting) >= self._max_waiting:
            raise AppError("overloaded", retry_after_s=1, reason="signing_queue_full")
        turn: asyncio.Future[str] = loop.create_future()
        self._waiting.append((claims, turn))
        if self._turn_is_over:
            self._turn_is_over = False
            loop.call_soon(self._next_turn)
        return await turn

    def _next_turn(self) -> None:
        """Sign for the first few who still wait; runs once an iteration, and not while the ring is being read."""
        for _ in range(AT_A_TIME):
            while self._waiting and self._waiting[0][1].done():  # its caller has gone away
                self._waiting.popleft()
            if not self._waiting:
                self._turn_is_over = True
                return
            if not self._sign_first():
                return
        asyncio.get_running_loop().call_soon(self._next_turn)

    def _sign_first(self) -> bool:
        """Sign for the first in the queue; False if the ring has to be read before."""
        claims, turn = self._waiting[0]
        try:
            token = self._signer.sign_if_ready(claims)
        except Exception as problem:  # noqa: BLE001 - it belongs to the caller whose claims these are
            self._waiting.popleft()
            turn.set_exception(problem)
            return True
        if token is None:
            self._refreshing = asyncio.get_running_loop().create_task(self._refresh_for(claims))
            return False
        self._waiting.popleft()
        turn.set_result(token)
        return True

    async def _refresh_for(self, claims: Mapping[str, object]) -> None:
        """Read the ring again, or reserve more, in a thread; the queue goes on after it, or fails whoever waits."""
        exp = claims["exp"]
        try:
            await asyncio.to_thread(self._signer.refresh, exp if isinstance(exp, int | float) else 0.0)
        except Exception as problem:  # noqa: BLE001 - whatever it is, nobody may wait for ever
            self._fail_all(problem)
        self._next_turn()

    def _fail_all(self, problem: Exception) -> None:
        reason = changes.explanation(problem) if isinstance(problem, AppError) else type(problem).__name__
        while self._waiting:
            turn = self._waiting.popleft()[1]
            if not turn.done():
                turn.set_exception(material.unusable(reason))
