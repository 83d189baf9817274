"""What is revoked, as this worker knows it, and the way to revoke more; the feed itself is :mod:`shared.revocations`.

The set follows the feed within milliseconds; what this worker writes is in its own set at once.
"""

from dataclasses import dataclass

from shared.access_token import AccessToken
from shared.errors import AppError
from shared.events import Event, emit
from shared.revocations.entries import Entry, Kind, Revocation, marks
from shared.revocations.follower import FeedFollower
from shared.revocations.policy import Freshness, ScopeKind, freshness
from shared.revocations.recent import Position
from shared.revocations.revoked import Reason, RevokedSet
from shared.revocations.writer import RevocationFeed
from shared.telemetry import REVOCATION_STALENESS, REVOCATIONS_HELD, REVOCATIONS_WRITTEN


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocations:
    """Writer, follower and set of one worker. ``limit_s``: how stale the operator lets knowledge be (0: any age)."""

    feed: RevocationFeed
    follower: FeedFollower
    revoked: RevokedSet
    limit_s: float

    async def write(self, revocation: Revocation, *, by: str, reason: str = "") -> Position:
        """Write one to the feed; ``by`` is the client who wants it, for the event.

        Raises AppError store_unavailable, conflict or overloaded; nothing is certain then, and again does no harm.
        """
        position = await self.feed.revoke(revocation)
        self.revoked.apply(Entry(revocation.kind, 0, b"", 0, revocation.time_ms, revocation.key, b""))
        note_written(revocation, position, by=by, reason=reason)
        return position

    def why_revoked(self, token: AccessToken) -> Reason | None:
        """Say why a verified token is refused; None: it is not.

        What is revoked stays so, however old our knowledge is. Raises AppError revocations_stale (503, never 401) where
        it is too old to say that a token is not.
        """
        reason = self.revoked.is_revoked(marks(token))
        if reason is None and self._freshness() is Freshness.REFUSE:
            raise AppError("revocations_stale", staleness_s=self.follower.staleness_s)
        return reason

    def measure(self) -> None:
        """Publish how old our knowledge is, and how much there is."""
        REVOCATION_STALENESS.set(self.follower.staleness_s)
        REVOCATIONS_HELD.set(len(self.revoked))

    def _freshness(self) -> Freshness:
        return freshness(self.follower.staleness_s, ScopeKind.MANAGEMENT, self.limit_s)


def note_written(revocation: Revocation, position: Position, *, by: str, reason: str = "") -> None:
    """Tell events and metrics of a revocation that stands in the feed now, and who wanted it."""
    kind = revocation.kind.name.lower()
    is_token = revocation.kind is Kind.TOKEN
    key = revocation.key.hex() if is_token else revocation.key.decode("utf-8", "replace")
    REVOCATIONS_WRITTEN.labels(kind).inc()
    emit(Event.REVOCATION_WRITTEN, kind=kind, key=key, sequence=position.sequence, by=by, reason=reason or None)
