"""The head: one signed record that says what the stream must hold, and, once a second, that the feed is alive.

It is the value of one key in the store, replaced by compare-and-set, so it is also the counter; the heartbeat is a copy
of it in a stream of its own.
"""

import hmac
import struct
from dataclasses import dataclass
from typing import Final

from shared.revocations.entries import FIRST_LINK, NotAuthentic
from shared.revocations.feed_key import FeedKey

HEAD_KEY: Final = "flex:{revocations}:head"
BEATS_KEY: Final = "flex:{revocations}:beats"
FIELD: Final = b"e"
_BODY = struct.Struct(">B16sQQ8sQ")
_FORMAT = 1
_CODE_BYTES = 32


def stream_key(epoch: bytes) -> str:
    """Where the entries of an epoch rest."""
    return "flex:{revocations}:entries:" + epoch.hex()


@dataclass(frozen=True, slots=True)
class Head:
    """What must be there: in ``epoch``, every entry from number ``floor`` to number ``last``, whose link is ``link``.

    Nothing is there if ``floor`` is ``last`` + 1. Numbers start at 1. ``beat_ms`` is the writer's time (UTC ms) of the
    last heartbeat.
    """

    epoch: bytes
    floor: int = 1
    last: int = 0
    link: bytes = FIRST_LINK
    beat_ms: int = 0

    def encode(self, key: FeedKey) -> bytes:
        """The signed record."""
        body = _BODY.pack(_FORMAT, self.epoch, self.floor, self.last, self.link, self.beat_ms)
        return body + key.authenticator(b"head").mac(body)


def decode_head(key: FeedKey, raw: bytes) -> Head:
    """Read and authenticate a head. Raises NotAuthentic."""
    body, code = raw[:-_CODE_BYTES], raw[-_CODE_BYTES:]
    if len(body) != _BODY.size or not hmac.compare_digest(key.authenticator(b"head").mac(body), code):
        raise NotAuthentic
    _, epoch, floor, last, link, beat_ms = _BODY.unpack(body)
    return Head(epoch, floor, last, link, beat_ms)
