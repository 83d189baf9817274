"""JWT access tokens (RFC 9068): the only place that checks their signature.

Three steps, in this order: a strict reading of the text that costs no cryptography, the RS256 signature, the claims.
Everything is offline; keys come through a :class:`KeySet`.

The signature is checked by ``cryptography`` itself: PyJWT's ``RSAAlgorithm`` makes the very same call, but importing
PyJWT costs a serving process 0.1 s of start and 10 MiB.
"""

import functools
import sys
from dataclasses import dataclass
from typing import Annotated

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

from shared import base64url
from shared.key_sets import KeySet, StaticKeySet, VerificationKey, parse_key_set
from shared.rate_limit.budgets import Budget, BudgetError, parse_details
from shared.rate_limit.gcra import MAX_COUNT
from shared.strict_json import decode_object

__all__ = [
    "AccessToken",
    "KeySet",
    "StaticKeySet",
    "TokenRefused",
    "VerificationKey",
    "parse_key_set",
    "verify_access_token",
]

MAX_TOKEN_BYTES = 4096
MAX_HEADER_BYTES = 512
MAX_PAYLOAD_BYTES = 3 * 1024
LEEWAY_S = 30.0
_TYPES = frozenset({"at+jwt", "application/at+jwt"})
# Header members that ask the verifier to trust, fetch, inflate or reinterpret something (RFC 8725 sections 3.6, 3.10).
_FORBIDDEN = frozenset({"crit", "b64", "jwk", "jku", "x5u", "x5c", "zip"})
_PADDING = PKCS1v15()
_HASH = SHA256()

# Header text -> kid, of headers that stood on a correctly signed token; at most 64, emptied when full.
# It saves reading the same few bytes again (about 6 µs) and decides nothing: the key is looked up every time.
_known_headers: dict[bytes, str] = {}
_MAX_KNOWN_HEADERS = 64


class TokenRefused(Exception):  # noqa: N818 - it says what happened
    """A token that is not good here. ``reason`` is one fixed word, for log and metrics only; callers get one answer."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A verified access token. Times are UTC seconds; ``key`` is the one that its signature was checked with.

    ``calls_per_hour`` None: the installation's limit. ``budgets``: what its ``authorization_details`` allow.
    """

    key: VerificationKey
    subject: str
    client_id: str
    token_id: str
    audiences: tuple[str, ...]
    scopes: frozenset[str]
    issued_at: float
    not_before: float
    expires_at: float
    calls_per_hour: int | None = None
    budgets: tuple[Budget, ...] = ()

    def check_time(self, now: float, leeway_s: float = LEEWAY_S) -> None:
        """Raise TokenRefused unless the token is valid at ``now`` (RFC 7519 sections 4.1.4 to 4.1.6)."""
        if now >= self.expires_at + leeway_s:
            raise TokenRefused("expired")
        if now < self.not_before - leeway_s:
            raise TokenRefused("not_yet_valid")
        if now < self.issued_at - leeway_s:
            raise TokenRefused("issued_in_the_future")


# 2**53: beyond it a float no longer tells seconds apart, and no calendar needs it.
_Seconds = Annotated[int, msgspec.Meta(ge=0, le=2**53)] | Annotated[float, msgspec.Meta(ge=0, le=2**53)]
_Text = Annotated[str, msgspec.Meta(min_length=1)]


class _Claims(msgspec.Struct):
    """RFC 9068 section 2.2: what must be there, with strict types; and what limits its use (RFC 9396 section 9.1)."""

    iss: str
    aud: str | list[str]
    exp: _Seconds
    iat: _Seconds
    sub: _Text
    client_id: _Text
    jti: _Text
    nbf: _Seconds = 0
    scope: str = ""
    calls_per_hour: Annotated[int, msgspec.Meta(ge=1, le=MAX_COUNT)] | msgspec.UnsetType = msgspec.UNSET
    authorization_details: list[object] | msgspec.UnsetType = msgspec.UNSET


def verify_access_token(
    raw_token: bytes | str, keys: KeySet, *, issuer: str, audience: str | None, now: float, leeway_s: float = LEEWAY_S
) -> AccessToken:
    """Verify one RFC 9068 access token (compact JWS, RS256) at the moment ``now`` (UTC seconds).

    ``audience`` None is for the issuer alone, who looks into its own tokens whoever they are for and serves none by it.
    Raises TokenRefused with one of: too_long, malformed, bad_header, wrong_alg, wrong_typ, forbidden_header, bad_kid,
    bad_payload, wrong_issuer, unknown_kid, bad_signature, bad_claims, sender_constrained, wrong_audience, expired,
    not_yet_valid, issued_in_the_future; and passes on the AppError of a key set that holds nothing.
    """
    token = raw_token.encode("utf-8", "replace") if isinstance(raw_token, str) else raw_token
    if len(token) > MAX_TOKEN_BYTES:
        raise TokenRefused("too_long")
    parts = token.split(b".")
    if len(parts) != 3 or not all(parts):
        raise TokenRefused("malformed")
    raw_header, raw_payload, raw_signature = parts
    try:
        payload = base64url.decode(raw_payload)
        signature = base64url.decode(raw_signature)
    except ValueError:
        raise TokenRefused("malformed") from None
    kid = _known_headers.get(raw_header) or _read_header(raw_header)
    document = _read_payload(payload)
    # A key is bound to its issuer, so the claimed issuer takes part in choosing it (RFC 8725 section 3.8).
    if document.get("iss") != issuer:
        raise TokenRefused("wrong_issuer")
    key = keys.get(kid)
    if key is None or key.issuer != issuer:
        raise TokenRefused("unknown_kid")
    _check_signature(key, token[: -len(raw_signature) - 1], signature)
    _remember_header(raw_header, kid)
    access_token = _read_claims(document, key, audience)
    access_token.check_time(now, leeway_s)
    return access_token


def _read_header(raw_header: bytes) -> str:
    """Give the kid of a protected header that asks for exactly what we do (RFC 9068 section 2.1)."""
    try:
        text = base64url.decode(raw_header)
    except ValueError:
        raise TokenRefused("malformed") from None
    if len(text) > MAX_HEADER_BYTES:
        raise TokenRefused("bad_header")
    try:
        header = decode_object(text)
    except (ValueError, RecursionError):
        raise TokenRefused("bad_header") from None
    if not _FORBIDDEN.isdisjoint(header):
        raise TokenRefused("forbidden_header")
    if header.get("alg") != "RS256":  # case matters (RFC 7515 section 4.1.1)
        raise TokenRefused("wrong_alg")
    typ = header.get("typ")
    if not isinstance(typ, str) or typ.lower() not in _TYPES:  # case does not (RFC 7515 section 4.1.9)
        raise TokenRefused("wrong_typ")
    kid = header.get("kid")
    if not isinstance(kid, str) or not kid:
        raise TokenRefused("bad_kid")
    return kid


def _remember_header(raw_header: bytes, kid: str) -> None:
    if raw_header not in _known_headers:
        if len(_known_headers) >= _MAX_KNOWN_HEADERS:
            _known_headers.clear()
        _known_headers[raw_header] = kid


def _read_payload(payload: bytes) -> dict[str, object]:
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise TokenRefused("bad_payload")
    try:
        return decode_object(payload)
    except (ValueError, RecursionError):
        raise TokenRefused("bad_payload") from None


def _check_signature(key: VerificationKey, signing_input: bytes, signature: bytes) -> None:
    """RSASSA-PKCS1-v1_5 with SHA-256 (RFC 7518 section 3.3)."""
    try:
        key.public_key.verify(signature, signing_input, _PADDING, _HASH)
    except InvalidSignature:
        raise TokenRefused("bad_signature") from None


def _read_claims(document: dict[str, object], key: VerificationKey, audience: str | None) -> AccessToken:
    try:
        claims = msgspec.convert(document, _Claims)
        details = claims.authorization_details
        budgets = () if details is msgspec.UNSET else parse_details(details)
    except (msgspec.ValidationError, BudgetError):  # a limit that is not understood must not be left out
        raise TokenRefused("bad_claims") from None
    if "cnf" in document:  # bound to a key that nobody proves here: taking it as a bearer token would unbind it
        raise TokenRefused("sender_constrained")
    audiences = _only(claims.aud) if isinstance(claims.aud, str) else tuple(claims.aud)
    if audience is not None and audience not in audiences:
        raise TokenRefused("wrong_audience")
    return AccessToken(
        key=key,
        subject=sys.intern(claims.sub),
        client_id=sys.intern(claims.client_id),
        token_id=claims.jti,
        audiences=audiences,
        scopes=_scopes(claims.scope),
        issued_at=claims.iat,
        not_before=claims.nbf,
        expires_at=claims.exp,
        calls_per_hour=None if claims.calls_per_hour is msgspec.UNSET else claims.calls_per_hour,
        budgets=budgets,
    )


# Tokens are held by the thousand and most say the same: what they share is made once (half of their memory). Only
# signed claims get this far, so nobody else can fill these.
@functools.lru_cache(maxsize=64)
def _only(audience: str) -> tuple[str, ...]:
    return (audience,)


@functools.lru_cache(maxsize=256)
def _scopes(scope: str) -> frozenset[str]:
    return frozenset(filter(None, scope.split(" ")))
