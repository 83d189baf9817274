"""Prove to the installation which of the issuer's keys this process can verify with, before they sign.

One task: read the canaries (:mod:`shared.verifiers`), verify each as any token is verified, against the keys that calls
are verified with, and report. A canary of an unknown key makes the key follower ask the issuer again.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from model_server.remote_keys import RemoteKeys
from model_server.revocations import Revocations, seconds
from model_server.store_link import StoreLink
from shared import events, verifiers
from shared.access_token import TokenRefused, VerificationKey, verify_access_token
from shared.errors import AppError
from shared.events import Event
from shared.revocations.ending import end_if_cancelled
from shared.revocations.feed_key import FeedKey
from shared.verifiers import Canaries, VerifierReport

if TYPE_CHECKING:
    from redis.asyncio import Redis

_TIDY_EVERY_S = 3600.0


def verifier_id(port: int, slot: int) -> str:
    """Name of this process among the verifiers, the same after a restart."""
    return f"{socket.gethostname()}-{port}-{slot}"


class KeyProofs:
    """What this process, named ``name``, can prove; kept and reported by :meth:`run`. ``clock`` gives UTC seconds."""

    def __init__(
        self, keys: RemoteKeys, revocations: Revocations, *, issuer: str, name: str, clock: Callable[[], float]
    ) -> None:
        self._keys = keys
        self._revocations = revocations
        self._issuer = issuer
        self._name = name
        self._clock = clock
        self._started_at = clock()
        self._proofs: dict[str, tuple[VerificationKey, float]] = {}
        self._generation = 0
        self._wanted = asyncio.Event()
        self._tidied_at = 0.0
        self._failing = ""

    def wake(self) -> None:
        """Report at once: the keys have changed."""
        self._wanted.set()

    async def run(self, link: StoreLink) -> None:
        """Prove and report every two seconds until cancelled; a store that is away is tried again."""
        key = await link.feed_key()
        await link.opened()
        await self._revocations.wait_until_known(verifiers.REPORT_EVERY_S)  # the first report shall say how the feed is
        while True:
            try:
                await self._stay_connected(link.connect(), key)
            except Exception as error:  # noqa: BLE001 - for example an address of no known form
                self._tell_failure(type(error).__name__)
            end_if_cancelled()
            await asyncio.sleep(verifiers.REPORT_EVERY_S)

    async def _stay_connected(self, client: "Redis", key: FeedKey) -> None:
        try:
            while True:
                try:
                    await self._turn(client, key)
                    self._failing = ""
                except AppError as error:
                    self._tell_failure(error.reason)
                end_if_cancelled()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(verifiers.REPORT_EVERY_S):
                        await self._wanted.wait()
                self._wanted.clear()
        finally:
            await client.aclose()

    async def leave(self, link: StoreLink) -> None:
        """Say goodbye: this process verifies nothing more, and no rotation needs to wait for it."""
        if not self._tidied_at:  # nothing was ever reported
            return
        client = link.connect()
        try:
            await verifiers.forget(client, self._name)
        except AppError as error:
            self._tell_failure(error.reason)
        finally:
            await client.aclose()

    async def _turn(self, client: "Redis", key: FeedKey) -> None:
        now = self._clock()
        canaries = await verifiers.read_canaries(client, key)
        self._prove(canaries, now)
        await verifiers.report(client, key, self._report(now))
        if not 0 <= now - self._tidied_at < _TIDY_EVERY_S:
            self._tidied_at = now
            await verifiers.forget(client, *verifiers.long_silent(await verifiers.read_reports(client, key), now))

    def _prove(self, canaries: Canaries | None, now: float) -> None:
        held, revoked = self._keys.held, self._revocations.revoked.signing_keys
        kept = self._proofs.items()
        self._proofs = {kid: proof for kid, proof in kept if held.get(kid) is proof[0] and kid not in revoked}
        if canaries is None:
            return
        self._generation = canaries.generation
        for kid, token in canaries.canaries.items():
            if kid in self._proofs or kid in revoked:
                continue
            try:
                proved = verify_access_token(
                    token, self._keys, issuer=self._issuer, audience=verifiers.CANARY_AUDIENCE, now=now
                )
            except (TokenRefused, AppError):
                continue  # an unknown key is asked for; whatever else is wrong, there is no proof
            if proved.key.kid == kid:
                self._proofs[kid] = (proved.key, now)
                events.emit(Event.KEY_PROVED, kid=kid, generation=canaries.generation)

    def _report(self, now: float) -> VerifierReport:
        return VerifierReport(
            id=self._name,
            started_at=self._started_at,
            seen_at=now,
            kids=tuple(self._keys.held),
            proofs={kid: proved_at for kid, (_, proved_at) in self._proofs.items()},
            feed_state=self._revocations.state,
            staleness_s=seconds(self._revocations.staleness_s),
            generation=self._generation,
        )

    def _tell_failure(self, reason: str) -> None:
        if reason != self._failing:
            events.emit(Event.VERIFIER_REPORT_FAILED, reason=reason)
        self._failing = reason
