"""RSA keys: make one, write and read its PEM, name it by its thumbprint, show its public members."""

import hashlib
from dataclasses import dataclass, field

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from auth_server.keyring.pkcs8 import encrypted_pem
from auth_server.keyring.ring import FreshKey, SigningKey
from shared import base64url
from shared.errors import AppError
from shared.secret import Secret

SIZES = (2048, 3072, 4096)
_ENCRYPTED_MARK = b"BEGIN ENCRYPTED PRIVATE KEY"


class PublicJwk(msgspec.Struct, frozen=True):
    """A public key as the JWKS shows it (RFC 7517, RFC 7518 section 6.3.1); there is no field for anything private."""

    kty: str
    n: str
    e: str
    kid: str
    use: str = "sig"
    alg: str = "RS256"


@dataclass(frozen=True, slots=True)
class MadeKey:
    """A new key on its way to disk: what the ring keeps, and the PEM (secret) that its folder keeps."""

    fresh: FreshKey
    pem: bytes = field(repr=False)


def unusable(reason: str) -> AppError:
    """The error for a ring that can't be used: ``reason`` tells the operator, the caller learns only that it is so."""
    return AppError("keys_unavailable", "The signing keys can't be used now.", reason=reason)


def make_key(n_bits: int = 2048, passphrase: Secret | None = None) -> MadeKey:
    """Make a key pair: 40 to 150 ms for 2048 bits, and 0.2 s more to encrypt it. Never call this on an event loop."""
    if n_bits not in SIZES:
        raise ValueError(f"an RSA key has {', '.join(map(str, SIZES))} bits")
    private, kid = _generate(n_bits)
    pem = to_pem(private, passphrase)
    n, e = public_members(private.public_key())
    return MadeKey(
        FreshKey(
            kid=kid,
            n=n,
            e=e,
            n_bits=n_bits,
            pem_sha256=digest(pem),
            encrypted=passphrase is not None,
        ),
        pem,
    )


def _generate(n_bits: int) -> tuple[rsa.RSAPrivateKey, str]:
    while True:
        private = rsa.generate_private_key(public_exponent=65537, key_size=n_bits)
        kid = thumbprint(*public_members(private.public_key()))
        if not kid.startswith("-"):  # it would read as an option on a command line (one key in 64)
            return private, kid


def to_pem(private: rsa.RSAPrivateKey, passphrase: Secret | None) -> bytes:
    """Write a private key as PKCS#8 PEM, encrypted if there is a passphrase."""
    plain = serialization.NoEncryption()
    if passphrase is None:
        return private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    der = private.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, plain)
    return encrypted_pem(der, passphrase.reveal().encode())


def from_pem(pem: bytes, key: SigningKey, passphrase: Secret | None) -> rsa.RSAPrivateKey:
    """Read the private key of ``key``: 45 ms, and 0.2 s more if it is encrypted.

    Raises AppError keys_unavailable if the bytes are not those that the manifest names, if the passphrase is missing
    or wrong, or if the key inside is another one.
    """
    if digest(pem) != key.pem_sha256:
        raise unusable(f"{key.kid}.pem is not the file that keyring.json names (its digest differs)")
    encrypted = _ENCRYPTED_MARK in pem
    if encrypted and passphrase is None:
        raise unusable(f"{key.kid}.pem is encrypted; set FLEX_KEYS_PASSPHRASE_FILE")
    secret = passphrase.reveal().encode() if encrypted and passphrase else None
    try:
        private = serialization.load_pem_private_key(pem, secret)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # The library's text is dropped on purpose: it may quote what it could not read.
        hint = "FLEX_KEYS_PASSPHRASE_FILE holds another passphrase" if encrypted else "it is damaged"
        raise unusable(f"{key.kid}.pem can't be read: {hint}") from None
    if not isinstance(private, rsa.RSAPrivateKey) or public_members(private.public_key()) != (key.n, key.e):
        raise unusable(f"{key.kid}.pem holds another key than keyring.json says")
    return private


def digest(pem: bytes) -> str:
    """SHA-256 of a PEM file, hexadecimal."""
    return hashlib.sha256(pem).hexdigest()


def public_members(public: rsa.RSAPublicKey) -> tuple[str, str]:
    """The JWK members ``n`` and ``e`` of a public key."""
    numbers = public.public_numbers()
    return _base64url_uint(numbers.n), _base64url_uint(numbers.e)


def public_jwk(key: SigningKey) -> PublicJwk:
    """The JWK of an entry of the ring."""
    return PublicJwk(kty="RSA", n=key.n, e=key.e, kid=key.kid)


def thumbprint(n: str, e: str) -> str:
    """The kid: SHA-256 over the required members, in lexicographic order, without spaces (RFC 7638 section 3)."""
    members = f'{{"e":"{e}","kty":"RSA","n":"{n}"}}'
    return base64url.encode(hashlib.sha256(members.encode()).digest()).decode()


def _base64url_uint(number: int) -> str:
    return base64url.encode(number.to_bytes((number.bit_length() + 7) // 8, "big")).decode()
