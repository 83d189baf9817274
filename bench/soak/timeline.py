"""Everything that a run saw, on one clock: seconds since its start, that never go back.

Who could not reach the store when is kept here, because it says until when a revoked token may still be served.
"""

import math
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from bench.spread import percentile

BOUND_S = 1.0
"""A revoked token is refused within this time of the acknowledgement, at every process that reaches the store."""
RETRY_WINDOW_S = 10.0
"""How long after an emergency rotation a 401 and one retry are what clients have to expect."""
MAX_FAILURES_KEPT = 200


class Mark(msgspec.Struct, frozen=True):
    """Something that was done or happened; ``until`` None for a moment."""

    at: float
    kind: str
    what: str
    until: float | None = None


class Second(msgspec.Struct, frozen=True):
    """The calls of one second to one host; latencies in milliseconds, from when a call was due."""

    at: int
    host: str
    n: int
    p50_ms: float
    p99_ms: float
    max_ms: float


class Staleness(msgspec.Struct, frozen=True):
    """What one worker said of the age of its revocations; None: it knows nothing."""

    at: float
    host: str
    worker: str
    staleness_s: float | None


class Failure(msgspec.Struct, frozen=True):
    """A call by a good token that was not answered well."""

    at: float
    host: str
    reason: str


class Outage(msgspec.Struct):
    """A time in which a host did not reach the store; infinite while it lasts."""

    host: str
    began: float
    ended: float = math.inf


class Timeline:
    """The record of one run."""

    def __init__(self) -> None:
        self._zero = time.monotonic()
        self.started_at = time.time()
        self.marks: list[Mark] = []
        self.staleness: list[Staleness] = []
        self.failures: list[Failure] = []
        self.outages: list[Outage] = []
        self.emergencies: list[tuple[float, float]] = []
        self.outcomes: Counter[str] = Counter()
        self._latencies: dict[tuple[int, str], list[float]] = {}

    def now(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._zero

    def mark(self, kind: str, what: str, *, since: float | None = None) -> None:
        """Note that something happened now, or went on until now."""
        now = self.now()
        self.marks.append(Mark(now, kind, what) if since is None else Mark(since, kind, what, now))

    # -- good calls --------------------------------------------------------------------------------------------------

    def good(self, host: str, due: float, *, retried: bool) -> None:
        """Note a call that was answered well; ``retried``: after a 401 and with a new token."""
        now = self.now()
        self.outcomes["recovered" if retried else "ok"] += 1
        self._latencies.setdefault((int(due), host), []).append((now - due) * 1000)

    def failed(self, host: str, reason: str) -> None:
        """Note a call that was not."""
        self.outcomes["failed"] += 1
        if len(self.failures) < MAX_FAILURES_KEPT:
            self.failures.append(Failure(round(self.now(), 3), host, reason))

    def retry_expected(self, at: float) -> bool:
        """Whether a 401 at this time follows from an emergency rotation."""
        return any(began <= at <= ended + RETRY_WINDOW_S for began, ended in self.emergencies)

    def seconds(self) -> list[Second]:
        """The latencies by second and host."""
        return [
            Second(at, host, len(found), percentile(found, 0.5), percentile(found, 0.99), max(found))
            for (at, host), found in sorted(self._latencies.items())
        ]

    def latencies(self) -> list[float]:
        """All latencies, in milliseconds."""
        return [one for found in self._latencies.values() for one in found]

    # -- outages -----------------------------------------------------------------------------------------------------

    @contextmanager
    def outage(self, *hosts: str) -> Iterator[None]:
        """Note that these hosts do not reach the store while the block runs."""
        began = self.now()
        outages = [Outage(host, began) for host in hosts]
        self.outages += outages
        try:
            yield
        finally:
            ended = self.now()
            for outage in outages:
                outage.ended = ended

    def cut_off(self, host: str) -> bool:
        """Whether a host does not reach the store now."""
        return any(one.host == host and math.isinf(one.ended) for one in self.outages)

    def due(self, host: str, acked_at: float) -> float:
        """Until when a host may serve a token whose revocation was acknowledged at ``acked_at``; later is too late."""
        return allowed_until([one for one in self.outages if one.host == host], acked_at)


def allowed_until(outages: list[Outage], acked_at: float) -> float:
    """The bound after the acknowledgement; it starts again at the end of every outage that falls into it."""
    from_ = acked_at
    for outage in sorted(outages, key=lambda one: one.began):
        if outage.began <= from_ + BOUND_S and outage.ended > from_:
            from_ = outage.ended
    return from_ + BOUND_S
