"""What is kept of a token that is in a status list: enough to judge it, and nobody else can have written it.

About 200 bytes a token, authenticated under the feed key together with the list's id and the index; so who can write to
the store can't give a revoked token another one's good name.
"""

import hmac
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from shared.revocations.entries import NotAuthentic, TokenMarks
from shared.revocations.feed_key import MAC_BYTES, Authenticator, FeedKey


@dataclass(frozen=True, slots=True)
class ListedToken:
    """One token of a list: its index, what of it can be revoked, and its ``exp`` (UTC seconds)."""

    index: int
    marks: TokenMarks
    expires_at: int


class _Record(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """As it rests in the store (MessagePack), before the code."""

    index: int
    expires_at: int
    issued_ms: int
    token: bytes
    signing_key: bytes
    client: bytes
    subject: bytes
    grant: bytes
    api_key: bytes


_pack = msgspec.msgpack.Encoder().encode
_unpack: Callable[[bytes], _Record] = msgspec.msgpack.Decoder(_Record).decode


def list_authenticator(key: FeedKey, list_id: str) -> Authenticator:
    """What the records of one list are authenticated with."""
    return key.authenticator(b"status list", list_id.encode())


def encode_record(authenticator: Authenticator, listed: ListedToken) -> bytes:
    """Give the bytes of a record."""
    marks = listed.marks
    body = _pack(
        _Record(
            listed.index,
            listed.expires_at,
            marks.issued_ms,
            marks.token,
            marks.signing_key,
            marks.client,
            marks.subject,
            marks.grant,
            marks.api_key,
        )
    )
    return body + authenticator.mac(body)[:MAC_BYTES]


def decode_record(authenticator: Authenticator, raw: bytes, share: dict[bytes, bytes]) -> ListedToken:
    """Read and authenticate a record; ``share`` holds names that many records have in common. Raises NotAuthentic."""
    body, code = raw[:-MAC_BYTES], raw[-MAC_BYTES:]
    if not hmac.compare_digest(authenticator.mac(body)[:MAC_BYTES], code):
        raise NotAuthentic
    record = _unpack(body)
    signing_key, client, subject, grant, api_key = (
        share.setdefault(name, name)
        for name in (record.signing_key, record.client, record.subject, record.grant, record.api_key)
    )
    marks = TokenMarks(record.token, signing_key, client, subject, grant, api_key, record.issued_ms)
    return ListedToken(record.index, marks, record.expires_at)
