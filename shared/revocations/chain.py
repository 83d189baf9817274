"""Whether what was read from the stream is whole: the check of one epoch's chain, without any I/O."""

from collections.abc import Callable, Iterable

from shared.revocations.entries import Entry, NotAuthentic, decode_entry, epoch_authenticator
from shared.revocations.feed_key import FeedKey
from shared.revocations.head import Head

Page = Iterable[tuple[bytes, list[bytes]]]
_START = b"0-0"


class Gap(Exception):  # noqa: N818 - it says what happened
    """What we hold is not the whole truth. ``reason`` is one fixed word."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Chain:
    """A reading of one epoch, from its first entry or from where an earlier reading stopped.

    ``read_to`` is the stream id of the last entry taken; ``fault`` says what is wrong with what was read (empty:
    nothing). A fault does not stop the reading: every authentic entry counts, whatever is missing beside it.
    """

    def __init__(self, key: FeedKey, epoch: bytes) -> None:
        self.epoch = epoch
        self.read_to = _START
        self.fault = ""
        self._authenticator = epoch_authenticator(key, epoch)
        self._first: int | None = None
        self._last = 0
        self._link = b""
        self._links: list[bytes] = []  # of the entry last taken before the mark, and of all since

    def mark(self) -> None:
        """Say that no head or heartbeat that comes from now on is older than what was taken so far."""
        self._links = [self._link]

    def take(self, page: Page, apply: Callable[[Entry], object]) -> None:
        """Take entries in the order of the stream."""
        # Local names: this loop runs a million times at a start.
        authenticator, links = self._authenticator, self._links
        last, link = self._last, self._link
        for stream_id, fields in page:
            self.read_to = stream_id
            try:
                entry = decode_entry(authenticator, fields[1])
            except (NotAuthentic, IndexError):
                self.fault = self.fault or "not_authentic"
                continue
            apply(entry)
            sequence = entry.sequence
            if sequence != last + 1 or entry.previous != link:
                if self._first is None:
                    self._first = sequence
                    links[:] = [entry.previous] if links else []
                else:
                    self.fault = self.fault or "out_of_sequence"
            last, link = sequence, entry.link
            if links:
                links.append(link)
        self._last, self._link = last, link

    def confirm(self, head: Head) -> None:
        """Check what was taken against a head that was read after :meth:`mark` and before the last :meth:`take`.

        Raises Gap: epoch_changed, not_authentic, out_of_sequence, missing_start, missing_end, rewound (the head is
        behind what we had: the store lost writes), other_history.
        """
        if head.epoch != self.epoch:
            raise Gap("epoch_changed")
        if self.fault:
            raise Gap(self.fault)
        if self._first is None:
            if head.floor != head.last + 1:
                raise Gap("missing_start")
            self._begin(head.floor, head.link)
            return
        if self._first > head.floor:
            raise Gap("missing_start")
        if head.last > self._last:
            raise Gap("missing_end")
        n_younger = self._last - head.last
        if n_younger >= len(self._links):
            raise Gap("rewound")
        if self._links[-1 - n_younger] != head.link:
            raise Gap("other_history")

    def _begin(self, first: int, previous: bytes) -> None:
        self._first, self._last, self._link = first, first - 1, previous
        if self._links:
            self._links = [previous]
