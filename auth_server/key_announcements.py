"""What every verifier has to hear about our keys: canaries to prove them with, and which of them are compromised.

Each worker of each auth server does it by itself, from what the ring says; several do no harm. Whatever a crash, a
lost store or another process left undone is done at the next look.
"""

import asyncio
from collections.abc import Callable, Iterable

from redis.asyncio import Redis

from auth_server.keyring.canaries import CANARY_LIFE_S
from auth_server.keyring.changes import explanation
from auth_server.keyring.policy import LONGEST_TTL_S
from auth_server.keyring.ring import KeyRing, KeyState
from auth_server.keyring.signer import Signer
from shared.access_token import TokenRefused, verify_access_token
from shared.errors import AppError
from shared.events import Event, emit
from shared.revocations.entries import signing_key_revoked
from shared.revocations.feed_key import FeedKey
from shared.revocations.writer import RevocationFeed
from shared.verifiers import CANARY_AUDIENCE, Canaries, publish_canaries, read_canaries

POLL_S = 0.25
_LOOK_EVERY_S = 5.0  # at what the store holds: it may have been emptied, or put back
_RENEW_AFTER_S = CANARY_LIFE_S / 3
# The stream forgets an entry when the longest token is over; a verifier that can't fetch may trust the key longer.
_PUSH_AGAIN_AFTER_S = LONGEST_TTL_S / 2


class KeyAnnouncements:
    """Keeps the store's canaries and the feed's signing-key revocations true to the ring.

    ``trusted_s``: how long a verifier that can't fetch goes on with its last key set. ``clock`` gives UTC seconds.
    """

    def __init__(
        self,
        store: Redis,
        feed_key: FeedKey,
        feed: RevocationFeed,
        signer: Signer,
        *,
        trusted_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._feed_key = feed_key
        self._feed = feed
        self._signer = signer
        self._trusted_s = trusted_s
        self._clock = clock
        self._announced = 0  # the generation
        self._looked_at = float("-inf")
        self._pushed_at: dict[str, float] = {}  # of every compromised key that matters; few

    async def keep(self, poll_s: float = POLL_S) -> None:
        """Announce until cancelled. A failure is told once, and tried again at the next look."""
        told = ""
        while True:
            try:
                await self.announce()
                told = ""
            except AppError as error:
                if explanation(error) != told:
                    emit(
                        Event.KEY_ANNOUNCEMENT_FAILED,
                        reason=explanation(error),
                        generation=self._signer.ring.generation,
                    )
                told = explanation(error)
            await asyncio.sleep(poll_s)

    async def announce(self) -> None:
        """Write what is missing: compromised keys first. Raises AppError if the store or the keys can't be used."""
        ring, now = self._signer.ring, self._clock()
        try:
            await self._push(ring, now)
        finally:
            await self._publish(ring, now)

    async def _publish(self, ring: KeyRing, now: float) -> None:
        if ring.generation == self._announced and 0 <= now - self._looked_at < _LOOK_EVERY_S:
            return
        if await self._stale(ring, now):
            generation, canaries = await asyncio.to_thread(self._signer.canaries)
            await publish_canaries(self._store, self._feed_key, generation, canaries, now)
            emit(Event.CANARIES_PUBLISHED, generation=generation, n_keys=len(canaries))
        self._announced, self._looked_at = ring.generation, now

    async def _push(self, ring: KeyRing, now: float) -> None:
        due = [
            kid
            for kid in compromised(ring, now, self._trusted_s)
            if not 0 <= now - self._pushed_at.get(kid, float("-inf")) < _PUSH_AGAIN_AFTER_S
        ]
        if due:
            await push_revocations(self._feed, due)
            self._pushed_at |= dict.fromkeys(due, now)

    async def _stale(self, ring: KeyRing, now: float) -> bool:
        held = await read_canaries(self._store, self._feed_key)
        if held is None or abs(now - held.written_at) >= _RENEW_AFTER_S:
            return True
        return held.generation < ring.generation or (held.generation == ring.generation and not self._good(held, now))

    def _good(self, held: Canaries, now: float) -> bool:
        """Whether canaries of this generation are of our keys and issuer: either may be another since a restart."""
        try:
            for raw in held.canaries.values():
                verify_access_token(raw, self._signer, issuer=self._signer.issuer, audience=CANARY_AUDIENCE, now=now)
        except TokenRefused:
            return False
        return True


def compromised(ring: KeyRing, now: float, trusted_s: float) -> list[str]:
    """The compromised keys that a verifier which can't fetch any more might still trust, or whose tokens may live."""
    keys = ring.in_state(KeyState.REMOVED)
    kept_s = trusted_s + LONGEST_TTL_S
    return [key.kid for key in keys if key.compromised and now - (key.removed_at or now) < kept_s]


async def push_revocations(feed: RevocationFeed, kids: Iterable[str]) -> None:
    """Tell every verifier to drop these keys: within a second. Raises AppError as ``RevocationFeed.revoke`` does."""
    kids = list(kids)
    await feed.revoke_many([signing_key_revoked(kid) for kid in kids])
    for kid in kids:
        emit(Event.KEY_REVOCATION_PUSHED, kid=kid)
