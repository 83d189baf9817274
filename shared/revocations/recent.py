"""What this process wrote in the last minute: to write it again if the store loses it, and not to write it twice.

At most 4,096 revocations, forgotten after 60 s; longer ago, a failover has either kept a write or been noticed.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from shared.revocations.entries import Kind, Revocation

_MAX = 4096
_KEPT_MS = 60_000


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the feed: the epoch, the number in it, and the store's own id of the entry."""

    epoch: bytes
    sequence: int
    stream_id: str


class Recent:
    """The last writes of one process, oldest first."""

    def __init__(self) -> None:
        self._written: OrderedDict[tuple[Kind, bytes], tuple[Revocation, Position, int]] = OrderedDict()

    def note(
        self, revocations: Sequence[Revocation], epoch: bytes, first: int, stream_ids: Sequence[bytes], now_ms: int
    ) -> Position:
        """Remember a written batch whose first entry has number ``first``; gives the place of its last."""
        for number, (revocation, stream_id) in enumerate(zip(revocations, stream_ids, strict=True), first):
            name = (revocation.kind, revocation.key)
            position = Position(epoch, number, stream_id.decode())
            self._written.pop(name, None)  # so that it stands at the end
            self._written[name] = (revocation, position, now_ms)
        while len(self._written) > _MAX:
            self._written.popitem(last=False)
        return position

    def position(self, revocation: Revocation, epoch: bytes) -> Position | None:
        """Where the same, or one that ends more, was written in this epoch; None if it was not lately."""
        held = self._written.get((revocation.kind, revocation.key))
        if held is None or held[0].time_ms < revocation.time_ms or held[1].epoch != epoch:
            return None
        return held[1]

    def newest(self) -> tuple[Revocation, Position] | None:
        """What the last write of all was, and where it went."""
        return self._written[next(reversed(self._written))][:2] if self._written else None

    def revocations(self) -> list[Revocation]:
        """All of them, oldest first."""
        return [revocation for revocation, _, _ in self._written.values()]

    def forget_before(self, now_ms: int) -> None:
        """Forget what is older than a minute."""
        while self._written:
            name = next(iter(self._written))
            if self._written[name][2] > now_ms - _KEPT_MS:
                return
            del self._written[name]
