"""Revocations all the time, by every way that a token can end early: itself, its client, its subject."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from bench.instance import Credentials
from bench.soak.issuer import Issuer, Refused
from bench.soak.timeline import Timeline
from bench.soak.trials import Trials

RETRY_S = 0.3
ACK_WITHIN_S = 60.0


@dataclass(slots=True)
class Revoking:
    """Makes tokens for ``scope`` and ends them, one trial after another for each of the kinds."""

    issuer: Issuer
    trials: Trials
    timeline: Timeline
    scope: str
    n_unacknowledged: int = 0

    async def run(self, kind: str, client: Credentials, stop: asyncio.Event, *, pause_s: float) -> None:
        """Hold trials of one kind with tokens of one client until told to stop."""
        while not stop.is_set():
            with contextlib.suppress(Refused):
                await self._once(kind, client)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await stop.wait()

    async def _once(self, kind: str, client: Credentials) -> None:
        try:
            token = await self.issuer.token(client, self.scope)
        except Refused as refusal:
            self.timeline.failed("auth", f"token for a trial: {refusal}")
            raise
        if kind == "jti":
            await self.trials.hold(kind, token, self._until_acked(lambda: self.issuer.revoke_token(client, token)))
        else:
            await self.trials.hold(kind, token, self._until_acked(lambda: self.issuer.revoke(kind, client.client_id)))

    def _until_acked(self, revoke: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[float]]:
        """Try until it is acknowledged, as whoever wants a token dead would; only then the time counts."""

        async def acked() -> float:
            until = self.timeline.now() + ACK_WITHIN_S
            while True:
                try:
                    await revoke()
                    return self.timeline.now()
                except Refused as refusal:
                    if not refusal.passing or self.timeline.now() > until:
                        self.n_unacknowledged += 1
                        self.timeline.mark("refused", f"revocation: {refusal}"[:300])
                        raise
                await asyncio.sleep(RETRY_S)

        return acked
