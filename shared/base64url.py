"""Base64url as JOSE means it: no padding, no foreign characters, one spelling a value (RFC 7515 section 2)."""

import binascii

_TO_STANDARD = bytes.maketrans(b"-_+/=", b"+/\0\0\0")
_PADDING = (b"", None, b"==", b"=")
# A last character with bits that belong to no byte would give one value several spellings.
_CANONICAL_ENDS = (None, None, frozenset(b"AQgw"), frozenset(b"AEIMQUYcgkosw048"))


def encode(value: bytes) -> bytes:
    """Spell bytes in base64url without padding."""
    return binascii.b2a_base64(value, newline=False).rstrip(b"=").replace(b"+", b"-").replace(b"/", b"_")


def decode(text: bytes) -> bytes:
    """Read base64url. Raises ValueError for padding, any other character, an impossible length or a second spelling."""
    rest = len(text) & 3
    padding = _PADDING[rest]
    if padding is None:
        raise ValueError("impossible length")
    ends = _CANONICAL_ENDS[rest]
    if ends is not None and text[-1] not in ends:
        raise ValueError("not the canonical spelling")
    # binascii.Error is a ValueError.
    return binascii.a2b_base64(text.translate(_TO_STANDARD) + padding, strict_mode=True)
