"""Our issuer's ``jti``: a UUIDv7 (RFC 9562 section 5.7), so that it also says in which millisecond a token was issued.

32 lower-case hexadecimal digits without dashes: 48 bits of unix milliseconds, version, 12 random bits, variant, 62
random bits. ``iat`` stays in whole seconds, which every verifier reads.
"""

from typing import Final

RANDOM_BYTES: Final = 10
_LENGTH = 32
_VERSION = 0x7 << 76
_VARIANT = 0b10 << 62
_UPPER_RANDOM = ((1 << 12) - 1) << 64
_LOWER_RANDOM = (1 << 62) - 1
_VARIANT_DIGITS = frozenset("89ab")
_DIGITS = frozenset("0123456789abcdef")


def token_id(issued_ms: int, random: bytes) -> str:
    """Make the id of a token issued at ``issued_ms`` (UTC milliseconds) with 10 random bytes, whose 74 bits count."""
    chance = int.from_bytes(random, "big")
    number = issued_ms << 80 | _VERSION | chance & _UPPER_RANDOM | _VARIANT | chance & _LOWER_RANDOM
    return f"{number:032x}"


def issued_ms(jti: str) -> int | None:
    """The UTC millisecond in an id of this form; None for any other id. Nobody but its issuer vouches for it."""
    if len(jti) != _LENGTH or jti[12] != "7" or jti[16] not in _VARIANT_DIGITS or not _DIGITS.issuperset(jti):
        return None
    return int(jti[:12], 16)
