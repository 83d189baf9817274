"""Tokens that are no good, each different from all others. Pure but for the randomness."""

import base64
import secrets
from collections.abc import Callable, Mapping

import msgspec

TOO_LONG_BYTES = 5000
SIGNATURE_BYTES = 256


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unknown_kid(good: str) -> str:
    """A token that looks right and names a key that nobody has."""
    header = msgspec.json.encode({"alg": "RS256", "typ": "at+jwt", "kid": _b64(secrets.token_bytes(32))})
    return f"{_b64(header)}.{good.split('.')[1]}.{_b64(secrets.token_bytes(SIGNATURE_BYTES))}"


def bad_signature(good: str) -> str:
    """A good token with another signature, so that all the cryptography is done for nothing."""
    header, payload, _ = good.split(".")
    # Below the modulus of every key, whose first bit is set: else the number alone would give it away.
    signature = b"\x01" + secrets.token_bytes(SIGNATURE_BYTES - 1)
    return f"{header}.{payload}.{_b64(signature)}"


def too_long(good: str) -> str:
    """A token beyond the 4 KiB that are read at all."""
    return good + _b64(secrets.token_bytes(TOO_LONG_BYTES))


KINDS: Mapping[str, Callable[[str], str]] = {
    "unknown kids": unknown_kid,
    "bad signatures": bad_signature,
    "too long": too_long,
}
