"""What a writer reads back from the stream: where to trim, and what is left to save. Only authentic entries count."""

from shared.revocations.entries import Kind, NotAuthentic, Revocation, decode_entry, epoch_authenticator
from shared.revocations.feed_key import FeedKey
from shared.revocations.head import Head
from shared.revocations.stream import PAGE, Stream


async def trim_point(stream: Stream, key: FeedKey, head: Head, oldest_ms: int) -> tuple[int, str]:
    """The floor to say from now on, and the stream id to keep from (empty: nothing to trim): past what was written
    before ``oldest_ms``, at most 1,000 entries at once.

    An entry that is not authentic decides nothing: otherwise whoever adds or deletes entries would move the floor.
    """
    authenticator, floor, keep_from = epoch_authenticator(key, head.epoch), head.floor, ""
    for n_entries in (1, PAGE):  # mostly the first is young enough, and that is all there is to read
        for stream_id, raw in await stream.entries(head.epoch, "-", n_entries):
            try:
                entry = decode_entry(authenticator, raw)
            except NotAuthentic:
                continue
            if entry.at_ms >= oldest_ms:
                return floor, keep_from
            if floor <= entry.sequence <= head.last:
                first, _, second = stream_id.decode().partition("-")
                floor, keep_from = entry.sequence + 1, f"{first}-{int(second) + 1}"
    return floor, keep_from


async def survivors(stream: Stream, key: FeedKey, head: Head, oldest_ms: int) -> list[Revocation]:
    """Every authentic revocation of the head's epoch that is still there and was not written before ``oldest_ms``."""
    found, start, authenticator = [], "-", epoch_authenticator(key, head.epoch)
    while page := await stream.entries(head.epoch, start, PAGE):
        for _, raw in page:
            try:
                entry = decode_entry(authenticator, raw)
                if entry.at_ms >= oldest_ms:
                    found.append(Revocation(Kind(entry.kind), entry.key, entry.time_ms))
            except (NotAuthentic, ValueError):
                continue
        start = "(" + page[-1][0].decode()
    return found
