"""What is revoked, as this process knows it, and how old that knowledge is. Asked for every call: 0.5 µs, no I/O.

One task follows the feed into memory (:mod:`shared.revocations`); a snapshot on disk bridges a restart without a store.
"""

import asyncio
import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from model_server.store_link import StoreLink
from shared import events
from shared.access_token import LEEWAY_S
from shared.errors import AppError
from shared.events import Event
from shared.revocations.entries import TokenMarks
from shared.revocations.notices import Detail, Notice, State
from shared.revocations.policy import NORMAL_S, Freshness, ScopeKind, freshness
from shared.revocations.revoked import Reason, RevokedSet
from shared.revocations.snapshot import SnapshotFile
from shared.settings import MAX_ACCESS_TOKEN_TTL_S
from shared.telemetry import BEARER_REFUSED, REVOCATION_FOLLOWERS, REVOCATION_STALENESS, REVOCATIONS_HELD

if TYPE_CHECKING:
    from shared.revocations.follower import FeedFollower

RETRY_AFTER_S = 5
_WATCH_EVERY_S = 1.0
_NORMAL_MS = NORMAL_S * 1000
_STALE = BEARER_REFUSED.labels("revocations_stale")


class Revocations:
    """Kept true by :meth:`run`. ``limit_s`` is how stale the feed may be before calls are refused, ``clock`` gives UTC
    seconds, ``on_signing_key`` is told each kid that becomes revoked.
    """

    def __init__(self, *, limit_s: float, snapshot: Path, clock: Callable[[], float]) -> None:
        self.on_signing_key: Callable[[str], None] = lambda _kid: None
        self.revoked = RevokedSet(MAX_ACCESS_TOKEN_TTL_S, LEEWAY_S)
        self._is_revoked = self.revoked.is_revoked
        self._limit_s = limit_s
        self._snapshot = snapshot
        self._clock = clock
        self._follower: FeedFollower | None = None
        self._heard = asyncio.Event()
        self._last_notice: object = None

    def check(self, token: TokenMarks, now: float) -> Reason | None:
        """Say why a verified token is refused, None if it is not; ``now`` in UTC seconds.

        Raises AppError ``revocations_stale`` if too little is known to tell.
        """
        reason = self._is_revoked(token)
        if reason is not None:
            return reason
        follower = self._follower
        if follower is None or now * 1000 - follower.as_of_ms > _NORMAL_MS:
            self._require_fresh(now)
        return None

    def _require_fresh(self, now: float) -> None:
        as_of = self._follower.as_of if self._follower is not None else None
        staleness_s = math.inf if as_of is None else now - as_of
        if freshness(staleness_s, ScopeKind.MODEL, self._limit_s) is Freshness.REFUSE:
            _STALE.inc()
            raise AppError("revocations_stale", retry_after_s=RETRY_AFTER_S, staleness_s=staleness_s)

    @property
    def state(self) -> State:
        """Where the follower is."""
        return self._follower.state if self._follower is not None else State.STARTING

    @property
    def staleness_s(self) -> float:
        """How old our knowledge is; infinite if there is none."""
        return self._follower.staleness_s if self._follower is not None else math.inf

    @property
    def freshness(self) -> Freshness:
        """What the age of our knowledge allows."""
        return freshness(self.staleness_s, ScopeKind.MODEL, self._limit_s)

    @property
    def certain(self) -> bool:
        """Whether what is known is fresh enough for what must not rest on old knowledge (a minute)."""
        return freshness(self.staleness_s, ScopeKind.MANAGEMENT, self._limit_s) is not Freshness.REFUSE

    def is_key_revoked(self, kid: str) -> bool:
        """Whether a signing key is revoked, as far as is known."""
        return kid in self.revoked.signing_keys

    async def wait_until_known(self, at_most_s: float) -> None:
        """Wait until the feed is followed, or the store does not answer and a snapshot is loaded, or time is up.

        A process that served before would take tokens that were revoked while it was away.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(at_most_s):
                while not self._is_known():
                    self._heard.clear()
                    await self._heard.wait()

    def _is_known(self) -> bool:
        follower = self._follower
        if follower is None or not follower.as_of_ms:
            return False
        return follower.state not in {State.STARTING, State.REBUILDING}

    async def run(self, link: StoreLink) -> None:
        """Follow the feed and say how old our knowledge is, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow(link))
            tasks.create_task(self._watch())

    async def _follow(self, link: StoreLink) -> None:
        key = await link.feed_key()
        await link.opened()
        from shared.revocations.follower import FeedFollower  # noqa: PLC0415 - loaded by the link

        self._follower = FeedFollower(
            link.connect,
            key,
            self.revoked,
            clock=self._clock,
            notify=self._note,
            on_signing_key=self._signing_key_revoked,
            snapshot=SnapshotFile(self._snapshot, key),
        )
        await self._follower.follow()

    async def _watch(self) -> None:
        told = Freshness.OK
        while True:
            await asyncio.sleep(_WATCH_EVERY_S)
            staleness_s, state, verdict = self.staleness_s, self.state, self.freshness
            REVOCATION_STALENESS.set(staleness_s)
            REVOCATIONS_HELD.set(len(self.revoked))
            for one in State:
                REVOCATION_FOLLOWERS.labels(one).set(one is state)
            if verdict is not told:
                events.emit(
                    Event.REVOCATION_FRESHNESS_CHANGED, freshness=verdict, staleness_s=seconds(staleness_s), state=state
                )
            told = verdict

    def _note(self, notice: Notice, details: dict[str, Detail]) -> None:
        self._heard.set()
        if (notice, details) != self._last_notice:  # what is tried again and again is told once
            self._last_notice = (notice, details)
            events.emit(Event(notice.value), **details)

    def _signing_key_revoked(self, kid: str) -> None:
        events.emit(Event.KEY_REVOKED, kid=kid, source="feed")
        self.on_signing_key(kid)


def seconds(staleness_s: float) -> float | None:
    """Staleness for people and JSON: to a tenth of a second, None if nothing is known."""
    return round(staleness_s, 1) if math.isfinite(staleness_s) else None
