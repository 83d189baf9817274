"""Rotation by itself: when the active key has reached its age, the confirmed standby key takes over.

Nothing of the schedule is kept anywhere. Each look derives what is due from the ring and the verifiers' reports, so a
crash at any point is resumed by whoever looks next; of several that look at once, the ring's lock and the active key on
which they decided let one rotate.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

from auth_server.keyring import confirmation
from auth_server.keyring.changes import RingChanges, explanation
from auth_server.keyring.confirmation import Reports
from auth_server.keyring.ring import KeyRing, KeyState, removable
from auth_server.keyring.signer import Signer
from shared.errors import AppError
from shared.events import Event, emit

POLL_S = 1.0
_PAUSE_S = 5.0  # after a refusal under the lock, which is an event each time
_TELL_EVERY_S = 60.0
_ACTOR = "schedule"


class ScheduledRotation:
    """Rotates ``signer``'s ring through ``changes`` whenever its active key has signed for ``every_s`` seconds.

    ``read_reports`` gives what the verifiers say, None where the store can't be read.
    """

    def __init__(
        self, changes: RingChanges, signer: Signer, read_reports: Callable[[], Awaitable[Reports]], *, every_s: float
    ) -> None:
        self._changes = changes
        self._signer = signer
        self._read_reports = read_reports
        self._every_s = every_s
        self._told_at = float("-inf")

    async def keep(self, poll_s: float = POLL_S) -> None:
        """Do what is due until cancelled; returns at once if there is no schedule."""
        while self._every_s > 0:
            try:
                await self.step()
            except AppError as refusal:  # told by whoever refused; what was in the way may be gone at the next look
                self._tell(reason=explanation(refusal))
                await asyncio.sleep(_PAUSE_S)
            await asyncio.sleep(poll_s)

    async def step(self) -> None:
        """Look once: rotate if that is due and every verifier proved the next key, else remove what is over.

        Raises AppError if the ring can't be changed now.
        """
        ring, now = self._signer.ring, self._changes.clock()
        if rotation_due(ring, now, self._every_s) and await self._rotate(ring, now):
            return
        if any(removable(key, now, self._changes.policy) for key in ring.in_state(KeyState.RETIRED)):
            await asyncio.to_thread(self._changes.sweep)

    async def _rotate(self, ring: KeyRing, now: float) -> bool:
        reports, policy = await self._read_reports(), self._changes.policy
        missing = confirmation.obstacles(ring.next_standby, reports, now, policy)
        if missing:
            self._tell(
                kid=missing.key.kid,
                reason=" ".join(confirmation.sentences(missing, now, policy)),
                laggards=[each.verifier_id for each in missing.laggards],
            )
            return False
        changes = replace(self._changes, n_bits=ring.active.n_bits, actor=_ACTOR)
        await asyncio.to_thread(lambda: changes.rotate(seen_active=ring.active.kid, reports=reports))
        return True

    def _tell(self, **facts: str | list[str]) -> None:
        """Say what is in the way, at most once a minute."""
        now = self._changes.clock()
        if not 0 <= now - self._told_at < _TELL_EVERY_S:
            self._told_at = now
            emit(Event.KEY_ROTATION_BLOCKED, **facts)


def rotation_due(ring: KeyRing, now: float, every_s: float) -> bool:
    """Whether the active key has signed for long enough."""
    activated_at = ring.active.activated_at
    return activated_at is not None and now >= activated_at + every_s
