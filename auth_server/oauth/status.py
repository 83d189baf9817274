"""Token Status List (draft-ietf-oauth-status-list-21): one bit a token, 0 valid, 1 invalid. Pure.

Section 4.1: entry ``i`` is bit ``i % 8`` of byte ``i // 8``, counted from the least significant; then DEFLATE in the
ZLIB format at the highest level, then base64url without padding.
"""

import zlib
from collections.abc import Iterable
from typing import TypedDict

from shared import base64url

LISTS_PATH = "/oauth2/status-lists"
TTL_S = 30  # how long a verifier may use a list before it looks again (section 5.1, ``ttl``)
LIFE_S = 300  # after that it is not to be used at all (``exp``)
_BITS = 1


class StatusListEntry(TypedDict):
    """Where the status of a token is found (section 6.2)."""

    idx: int
    uri: str


class StatusClaim(TypedDict):
    """The claim ``status`` of a token (section 6.1)."""

    status_list: StatusListEntry


def list_uri(issuer: str, list_id: str) -> str:
    """The address of a list, which is also its ``sub``."""
    return f"{issuer}{LISTS_PATH}/{list_id}"


def status_claim(issuer: str, list_id: str, index: int) -> StatusClaim:
    """The claim of the token at ``index`` of a list."""
    return {"status_list": {"idx": index, "uri": list_uri(issuer, list_id)}}


def encode_list(invalid: Iterable[int], size: int) -> str:
    """Encode a list of ``size`` entries (a multiple of 8) in which those at ``invalid`` are set."""
    entries = bytearray(size // 8)
    for index in invalid:
        entries[index >> 3] |= 1 << (index & 7)
    return base64url.encode(zlib.compress(entries, 9)).decode()


def list_claims(issuer: str, list_id: str, encoded: str, now: float) -> dict[str, object]:
    """The claims of a Status List Token (section 5.1); ``now`` in UTC seconds."""
    issued_at = int(now)
    return {
        "iss": issuer,
        "sub": list_uri(issuer, list_id),
        "iat": issued_at,
        "exp": issued_at + LIFE_S,
        "ttl": TTL_S,
        "status_list": {"bits": _BITS, "lst": encoded, "aggregation_uri": issuer + LISTS_PATH},
    }
