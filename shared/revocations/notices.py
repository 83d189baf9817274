"""What the feed tells the rest of the server: fixed words for its events and metrics, passed to one callable."""

from collections.abc import Callable
from enum import StrEnum

from shared.events import Event, emit
from shared.telemetry import REVOCATION_NOTICES

Detail = str | int | float
Notify = Callable[["Notice", dict[str, Detail]], None]


class Notice(StrEnum):
    """Everything worth an audit line. Details are counts, sequence numbers and fixed words, never keys or names."""

    EPOCH_OPENED = "revocation_epoch_opened"
    HEAD_REFUSED = "revocation_head_refused"
    WRITES_RESTORED = "revocation_writes_restored"
    FEED_WRITE_FAILED = "revocation_feed_write_failed"
    STATE_CHANGED = "revocation_state_changed"
    GAP_FOUND = "revocation_gap_found"
    BEAT_REFUSED = "revocation_beat_refused"
    FOLLOWER_FAILED = "revocation_follower_failed"
    SNAPSHOT_LOADED = "revocation_snapshot_loaded"
    SNAPSHOT_REFUSED = "revocation_snapshot_refused"
    SNAPSHOT_FAILED = "revocation_snapshot_failed"


class State(StrEnum):
    """Where a follower is. Only FOLLOWING takes heartbeats, so in every other state staleness grows."""

    STARTING = "starting"
    FOLLOWING = "following"
    REBUILDING = "rebuilding"
    BROKEN = "broken"
    DISCONNECTED = "disconnected"


def ignore(_notice: Notice, _details: dict[str, Detail]) -> None:
    """Tell nobody."""


def to_events(notice: Notice, details: dict[str, Detail]) -> None:
    """Tell whoever reads the events and the metrics."""
    REVOCATION_NOTICES.labels(notice).inc()
    emit(Event(notice.value), **details)
