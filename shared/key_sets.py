"""Public keys that verify access tokens: the one seam behind which they come, and how a JWK set is read.

RFC 7517 (JWK), RFC 7518 section 6.3.1 (RSA public keys), RFC 8725 section 3.1 (one algorithm a key).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers

from shared import base64url
from shared.strict_json import decode_object

MAX_BODY_BYTES = 64 * 1024
MAX_KEYS = 16
MAX_KID_LENGTH = 256
MIN_MODULUS_BITS = 2048
MAX_MODULUS_BITS = 8192
_SECRET_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A public RSA key that may verify RS256 signatures of one issuer, and nothing else.

    Two of them are equal if issuer, kid and key material are; ``public_key`` is ready for use (its import costs
    6 µs, so it is done once).
    """

    issuer: str
    kid: str
    modulus: int = field(repr=False)
    exponent: int = field(repr=False)
    public_key: RSAPublicKey = field(repr=False, compare=False)


class KeySet(Protocol):
    """Where verification keys come from: a fixed mapping, or a background task that follows the issuer."""

    def get(self, kid: str) -> VerificationKey | None:
        """Give the key of that id, or None if the set has none.

        No I/O ever. Raises AppError ``keys_unavailable`` where no usable set is held at all.
        """


class StaticKeySet:
    """Keys that never change: the auth server's own ring at one moment, and tests."""

    def __init__(self, by_kid: Mapping[str, VerificationKey]) -> None:
        self._by_kid = dict(by_kid)

    def get(self, kid: str) -> VerificationKey | None:
        """Give the key of that id, or None."""
        return self._by_kid.get(kid)


class KeySetRefused(Exception):  # noqa: N818 - it says what happened
    """A JWK set that must not be used; ``reason`` is one fixed word for log and metrics."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


def verification_key(public_key: RSAPublicKey, *, kid: str, issuer: str) -> VerificationKey:
    """Bind a public key to its id and issuer."""
    numbers = public_key.public_numbers()
    return VerificationKey(issuer, kid, numbers.n, numbers.e, public_key)


def as_jwk(key: VerificationKey) -> dict[str, str]:
    """Write a key as a JWK (RFC 7517 section 4, RFC 7518 section 6.3.1) that :func:`parse_key_set` reads."""
    numbers = {"n": key.modulus, "e": key.exponent}
    encoded = {
        name: base64url.encode(number.to_bytes((number.bit_length() + 7) // 8, "big")).decode()
        for name, number in numbers.items()
    }
    return {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": key.kid, **encoded}


def parse_key_set(body: bytes, issuer: str) -> dict[str, VerificationKey]:
    """Read a JWK set (RFC 7517 section 5) into the keys that may verify RS256 tokens of ``issuer``, by kid.

    Keys of another type, use or algorithm are left out. One secret member, one repeated kid or one unfit RS256 key
    refuses the whole set: its publisher has lost control of it. ``alg`` and ``use`` must be spelt out.
    Raises KeySetRefused; an empty result is refused too.
    """
    if len(body) > MAX_BODY_BYTES:
        raise KeySetRefused("too_large")
    try:
        jwks = decode_object(body).get("keys")
    except (ValueError, RecursionError):
        raise KeySetRefused("malformed") from None
    if not isinstance(jwks, list) or not all(isinstance(jwk, dict) for jwk in jwks):
        raise KeySetRefused("malformed")
    if len(jwks) > MAX_KEYS:
        raise KeySetRefused("too_many_keys")
    if any(_SECRET_MEMBERS & jwk.keys() for jwk in jwks):
        raise KeySetRefused("private_member")
    kids = [jwk["kid"] for jwk in jwks if isinstance(jwk.get("kid"), str)]
    if len(set(kids)) != len(kids):
        raise KeySetRefused("duplicate_kid")
    by_kid = {key.kid: key for key in (_read_key(jwk, issuer) for jwk in jwks if _verifies_rs256(jwk))}
    if not by_kid:
        raise KeySetRefused("no_usable_key")
    return by_kid


def _verifies_rs256(jwk: dict[str, object]) -> bool:
    if (jwk.get("kty"), jwk.get("use"), jwk.get("alg")) != ("RSA", "sig", "RS256"):
        return False
    return jwk.get("key_ops", ["verify"]) == ["verify"]


def _read_key(jwk: dict[str, object], issuer: str) -> VerificationKey:
    kid = jwk.get("kid")
    if not isinstance(kid, str) or not 0 < len(kid) <= MAX_KID_LENGTH:
        raise KeySetRefused("bad_kid")
    modulus, exponent = _read_integer(jwk.get("n")), _read_integer(jwk.get("e"))
    if not MIN_MODULUS_BITS <= modulus.bit_length() <= MAX_MODULUS_BITS or modulus % 2 == 0:
        raise KeySetRefused("unfit_modulus")
    if not 65537 <= exponent < 2**32 or exponent % 2 == 0:
        raise KeySetRefused("unfit_exponent")
    try:
        public_key = RSAPublicNumbers(exponent, modulus).public_key()
    except ValueError:
        raise KeySetRefused("unfit_key") from None
    return VerificationKey(issuer, kid, modulus, exponent, public_key)


def _read_integer(member: object) -> int:
    if not isinstance(member, str) or not member:
        raise KeySetRefused("malformed")
    try:
        return int.from_bytes(base64url.decode(member.encode("ascii")), "big")
    except ValueError:
        raise KeySetRefused("malformed") from None
