"""What is revoked, and how one revocation looks in the stream.

An entry is one field of bytes: kind, sequence number, link to the entry before, when it was written, its time, its key,
and 16 bytes of HMAC-SHA-256 over all that under the key of the epoch. The link is the start of the previous entry's
code, so the entries are a chain: whoever knows the last link (it is in the signed head) knows the whole past, and an
entry that is missing, repeated, moved or from another history breaks it.

**Watermarks and the second.** A not-before of client, subject, grant or API key ends every token issued until then.
It counts milliseconds; a token is dead iff it was issued at or before the not-before. ``iat`` has whole seconds, as
every verifier expects; the millisecond is in the ``jti`` of our issuer (:mod:`shared.token_ids`), and counts if it lies
in the second of ``iat``. Any other token reads as issued at the start of its second, so it dies with every watermark
of that second, before or after it: the safe side. Therefore the auth server

- takes the time that becomes ``iat`` and ``jti`` *before* it reads the state of client, subject, grant or API key that
  the decision rests on (then a token decided on the old state is never younger than the watermark), and
- issues again only after ``RevocationFeed.revoke`` has returned, which it does once the clock is past the watermark's
  millisecond. Several auth servers must agree on the time as well as this is to hold between them.
"""

import functools
import hashlib
import hmac
import struct
from dataclasses import dataclass
from enum import IntEnum

import msgspec

from shared import token_ids
from shared.access_token import AccessToken
from shared.revocations.feed_key import MAC_BYTES, Authenticator, FeedKey

EPOCH_BYTES = 16
LINK_BYTES = 8
MAX_KEY_BYTES = 512
FIRST_LINK = bytes(LINK_BYTES)
_BODY = struct.Struct(">BQ8sQQ")  # kind, sequence, previous link, at_ms, time_ms; then the key
_HEX_JTI = 32


class Kind(IntEnum):
    """What a revocation ends."""

    TOKEN = 1  # one token, by its jti
    CLIENT = 2
    SUBJECT = 3
    GRANT = 4  # a refresh family and all that came from it (RFC 9700 section 4.14)
    API_KEY = 5
    SIGNING_KEY = 6  # every token of one kid


class NotAuthentic(Exception):  # noqa: N818 - it says what happened
    """Bytes from the store or the disk that were not written under the feed key."""


@dataclass(frozen=True, slots=True)
class Revocation:
    """One thing to refuse from now on; made by the functions below.

    ``time_ms`` is when a TOKEN expires, the not-before of a watermark, and 0 for a SIGNING_KEY; UTC milliseconds.
    """

    kind: Kind
    key: bytes
    time_ms: int

    def __post_init__(self) -> None:
        if not 0 < len(self.key) <= MAX_KEY_BYTES or not 0 <= self.time_ms < 2**63:
            raise ValueError("a revocation needs a key of 1 to 512 bytes and a time of this age")


class Entry(msgspec.Struct, frozen=True, gc=False):
    """An authentic entry of the stream; ``link`` is its own. A Struct because a million are made at a start."""

    kind: int
    sequence: int
    previous: bytes
    at_ms: int
    time_ms: int
    key: bytes
    link: bytes


@dataclass(frozen=True, slots=True)
class TokenMarks:
    """What of a token can be revoked, ready for look-up; worked out once a token, beside its verification.

    ``grant`` and ``api_key`` are empty where the token has none.
    """

    token: bytes
    signing_key: bytes
    client: bytes
    subject: bytes
    grant: bytes
    api_key: bytes
    issued_ms: int


def marks(token: AccessToken, *, grant_id: str = "", api_key_id: str = "") -> TokenMarks:
    """Work out the marks of a verified access token."""
    return TokenMarks(
        token=token_key(token.token_id),
        signing_key=_encoded(token.key.kid),
        client=_encoded(token.client_id),
        subject=_encoded(token.subject),
        grant=grant_id.encode(),
        api_key=api_key_id.encode(),
        issued_ms=_issued_ms(token),
    )


# Marks are held by the thousand, and most tokens share these with others: made once, that is 0.2 KiB less a token. Only
# what a verified token says gets in.
@functools.lru_cache(maxsize=256)
def _encoded(text: str) -> bytes:
    return text.encode()


def _issued_ms(token: AccessToken) -> int:
    by_id = token_ids.issued_ms(token.token_id)
    if by_id is not None and by_id // 1000 == token.issued_at:
        return by_id
    return milliseconds(token.issued_at)


def milliseconds(seconds: float) -> int:
    """Whole milliseconds of a time in seconds; a double tells microseconds apart, so rounding is exact."""
    return round(seconds * 1000)


def token_key(jti: str) -> bytes:
    """The 16 bytes under which a jti is kept: itself if it is 32 lower-case hex digits, else its BLAKE2b digest."""
    if len(jti) == _HEX_JTI:
        try:
            key = bytes.fromhex(jti)
        except ValueError:
            key = b""
        if key.hex() == jti:
            return key
    return hashlib.blake2b(jti.encode(), digest_size=16).digest()


def token_revoked(jti: str, expires_at: float) -> Revocation:
    """End one token; where its expiry is unknown, say when the longest possible life ends."""
    return Revocation(Kind.TOKEN, token_key(jti), milliseconds(expires_at))


def client_revoked(client_id: str, not_before: float) -> Revocation:
    """End all tokens of a client issued until ``not_before`` (UTC seconds)."""
    return Revocation(Kind.CLIENT, client_id.encode(), milliseconds(not_before))


def subject_revoked(subject: str, not_before: float) -> Revocation:
    """End all tokens about a subject issued until ``not_before``."""
    return Revocation(Kind.SUBJECT, subject.encode(), milliseconds(not_before))


def grant_revoked(grant_id: str, not_before: float) -> Revocation:
    """End all tokens of a grant (refresh family) issued until ``not_before``."""
    return Revocation(Kind.GRANT, grant_id.encode(), milliseconds(not_before))


def api_key_revoked(api_key_id: str, not_before: float) -> Revocation:
    """End all tokens that an API key was exchanged for until ``not_before``."""
    return Revocation(Kind.API_KEY, api_key_id.encode(), milliseconds(not_before))


def signing_key_revoked(kid: str) -> Revocation:
    """End all tokens signed with a key, whenever they say they were issued."""
    return Revocation(Kind.SIGNING_KEY, kid.encode(), 0)


def epoch_authenticator(key: FeedKey, epoch: bytes) -> Authenticator:
    """What the entries of one epoch are authenticated with."""
    return key.authenticator(b"entries", epoch)


def encode_entry(
    authenticator: Authenticator, revocation: Revocation, sequence: int, previous: bytes, at_ms: int
) -> tuple[bytes, bytes]:
    """Give the bytes of an entry, and its link."""
    body = _BODY.pack(revocation.kind, sequence, previous, at_ms, revocation.time_ms) + revocation.key
    code = authenticator.mac(body)[:MAC_BYTES]
    return body + code, code[:LINK_BYTES]


def decode_entry(authenticator: Authenticator, raw: bytes) -> Entry:
    """Read and authenticate one entry; its place in the chain is for the caller to check. Raises NotAuthentic."""
    body, code = raw[:-MAC_BYTES], raw[-MAC_BYTES:]
    if not hmac.compare_digest(authenticator.mac(body)[:MAC_BYTES], code):
        raise NotAuthentic
    kind, sequence, previous, at_ms, time_ms = _BODY.unpack_from(body)
    return Entry(kind, sequence, previous, at_ms, time_ms, body[_BODY.size :], code[:LINK_BYTES])
