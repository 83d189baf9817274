"""Who used what: counts in memory for each client and attribute, uploaded to the store in batches.

What is not yet uploaded is at most ``MAX_WAITING`` lines of one client, attribute and day; what does not fit is counted
as dropped, with one event. A batch whose fate is unknown is sent again under its number, so nothing counts twice.
"""

import asyncio
import secrets
from bisect import bisect_left
from collections.abc import Callable

from shared import events
from shared.errors import AppError
from shared.events import Event
from shared.telemetry import USAGE_DROPPED
from shared.usage import BOUNDS_S, COUNTS, Counts, UsageLedger, UsageLine, day_of

UPLOAD_EVERY_S = 10.0
MAX_WAITING = 20_000
_MAX_IN_BATCH = 2_000
OK, INVALID, DENIED, LIMITED, FAILED, ROWS, EXPLANATIONS, TIME_US = range(8)
_FIRST_BUCKET = TIME_US + 1
_OUTCOMES = {400: INVALID, 403: DENIED, 404: DENIED, 413: INVALID, 415: INVALID, 422: INVALID, 429: LIMITED}
# What became of an answer with a status; no status (0) is a call that got no answer.
_OUTCOME = [_OUTCOMES.get(status, OK if 200 <= status < 300 else FAILED) for status in range(600)]


class Tally:
    """Counts of one client's calls to one attribute since the last upload, in the order of ``shared.usage.COUNTS``.

    For the event loop's thread only.
    """

    __slots__ = ("_meter", "_noted", "attribute", "client_id", "counts")

    def __init__(self, meter: "Meter", client_id: str, attribute: str) -> None:
        self._meter = meter
        self._noted = False
        self.client_id = client_id
        self.attribute = attribute
        self.counts: Counts = [0] * len(COUNTS)

    def note(self, status: int, seconds: float) -> None:
        """Count one answered call; half a microsecond."""
        counts = self.counts
        counts[_OUTCOME[status]] += 1
        counts[TIME_US] += int(seconds * 1_000_000)
        counts[_FIRST_BUCKET + bisect_left(BOUNDS_S, seconds)] += 1
        if not self._noted:
            self._noted = True
            self._meter.noted.append(self)

    def add(self, count: int, number: int) -> None:
        """Count records scored (``ROWS``) or explained (``EXPLANATIONS``), also for a call that another tally has."""
        self.counts[count] += number
        if not self._noted:
            self._noted = True
            self._meter.noted.append(self)

    def taken(self) -> Counts:
        """Give the counts and begin anew."""
        self._noted = False
        counts, self.counts = self.counts, [0] * len(COUNTS)
        return counts


class Meter:
    """All counts of one worker. ``clock`` gives UTC seconds; the day of a count is that of its collection."""

    def __init__(self, clock: Callable[[], float], *, max_waiting: int = MAX_WAITING) -> None:
        self._clock = clock
        self._max_waiting = max_waiting
        self._writer = secrets.token_hex(8)
        self._waiting: dict[UsageLine, Counts] = {}
        self._batch: dict[UsageLine, Counts] = {}
        self._sequence = 0
        self.noted: list[Tally] = []
        self.n_dropped = 0

    def __len__(self) -> int:
        """How many lines wait for their upload."""
        return len(self._waiting) + len(self._batch)

    def tally(self, client_id: str, attribute: str) -> Tally:
        """Make a tally; several of one client and attribute are added up in the store."""
        return Tally(self, client_id, attribute)

    def collect(self) -> None:
        """Take over what was counted since the last time."""
        day, n_dropped = day_of(self._clock()), 0
        noted, self.noted = self.noted, []
        for tally in noted:
            counts = tally.taken()
            line = UsageLine(day, tally.client_id, tally.attribute)
            held = self._waiting.get(line)
            if held is not None:
                self._waiting[line] = [one + other for one, other in zip(held, counts, strict=True)]
            elif len(self) < self._max_waiting:
                self._waiting[line] = counts
            else:
                n_dropped += sum(counts[:ROWS])
        if n_dropped:
            self.n_dropped += n_dropped
            USAGE_DROPPED.inc(n_dropped)
            events.emit(Event.USAGE_DROPPED, n_calls=n_dropped)

    async def upload(self, ledger: UsageLedger) -> None:
        """Collect, then write everything that waits.

        Raises AppError store_unavailable; then it all waits for the next time.
        """
        self.collect()
        while self._batch or self._waiting:
            if not self._batch:
                self._sequence += 1
                for line in list(self._waiting)[:_MAX_IN_BATCH]:
                    self._batch[line] = self._waiting.pop(line)
            await ledger.add(self._writer, self._sequence, self._batch)
            self._batch = {}

    async def keep_uploading(self, ledger: UsageLedger | None, every_s: float = UPLOAD_EVERY_S) -> None:
        """Upload every ``every_s`` seconds until cancelled; without a ledger nothing is kept."""
        lost = False
        while True:
            await asyncio.sleep(every_s)
            reason = await self._try_upload(ledger)
            if reason and not lost:
                events.emit(Event.STORE_LOST, kind="usage", reason=reason, n_lines=len(self))
            lost = bool(reason)

    async def finish(self, ledger: UsageLedger | None) -> None:
        """Upload for the last time; an event says what could not be."""
        if reason := await self._try_upload(ledger):
            n_calls = sum(sum(counts[:ROWS]) for held in (self._batch, self._waiting) for counts in held.values())
            events.emit(Event.USAGE_DROPPED, n_calls=n_calls, reason=reason)

    async def _try_upload(self, ledger: UsageLedger | None) -> str:
        """Give why it could not be; empty if all is written."""
        if ledger is None:
            for tally in self.noted:
                tally.taken()
            self.noted.clear()
            return ""
        try:
            await self.upload(ledger)
        except AppError as error:
            return error.reason
        return ""
