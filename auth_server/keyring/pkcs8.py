"""Encrypted PKCS#8 (RFC 5958) with PBES2 (RFC 8018): PBKDF2-HMAC-SHA-256 and AES-256-CBC.

``cryptography`` writes this form too, but with 2,048 rounds and no way to ask for more; it reads any number. So the
few bytes of DER are written here, and read back by the library.
"""

import base64
import hashlib
import secrets

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

KDF_ROUNDS = 600_000
_SALT_BYTES = 16
_BLOCK_BYTES = 16
_LINE = 64

_PBES2 = bytes.fromhex("06092a864886f70d01050d")
_PBKDF2 = bytes.fromhex("06092a864886f70d01050c")
_HMAC_SHA256 = bytes.fromhex("06082a864886f70d0209")
_AES_256_CBC = bytes.fromhex("060960864801650304012a")
_NULL = b"\x05\x00"
_INTEGER, _OCTETS, _SEQUENCE = 0x02, 0x04, 0x30


def encrypted_pem(pkcs8_der: bytes, passphrase: bytes, *, n_rounds: int = KDF_ROUNDS) -> bytes:
    """Encrypt a PKCS#8 key (DER) as ``ENCRYPTED PRIVATE KEY`` PEM; about 0.2 s for the default rounds.

    Raises ValueError below 600,000 rounds or without a passphrase.
    """
    if n_rounds < KDF_ROUNDS:
        raise ValueError(f"at least {KDF_ROUNDS} rounds")
    if not passphrase:
        raise ValueError("the passphrase is empty")
    salt, iv = secrets.token_bytes(_SALT_BYTES), secrets.token_bytes(_BLOCK_BYTES)
    key = hashlib.pbkdf2_hmac("sha256", passphrase, salt, n_rounds, dklen=32)
    encryptor = Cipher(algorithms.AES256(key), modes.CBC(iv)).encryptor()
    sealed = encryptor.update(_padded(pkcs8_der)) + encryptor.finalize()
    kdf = _sequence(_PBKDF2, _sequence(_octets(salt), _integer(n_rounds), _sequence(_HMAC_SHA256, _NULL)))
    scheme = _sequence(_PBES2, _sequence(kdf, _sequence(_AES_256_CBC, _octets(iv))))
    return _pem(_sequence(scheme, _octets(sealed)))


def _padded(plain: bytes) -> bytes:
    n = _BLOCK_BYTES - len(plain) % _BLOCK_BYTES
    return plain + bytes([n]) * n


def _tagged(tag: int, content: bytes) -> bytes:
    n = len(content)
    if n < 0x80:
        return bytes([tag, n]) + content
    length = n.to_bytes((n.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def _sequence(*parts: bytes) -> bytes:
    return _tagged(_SEQUENCE, b"".join(parts))


def _octets(content: bytes) -> bytes:
    return _tagged(_OCTETS, content)


def _integer(number: int) -> bytes:
    return _tagged(_INTEGER, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def _pem(der: bytes) -> bytes:
    text = base64.b64encode(der)
    lines = [text[at : at + _LINE] for at in range(0, len(text), _LINE)]
    return b"\n".join((b"-----BEGIN ENCRYPTED PRIVATE KEY-----", *lines, b"-----END ENCRYPTED PRIVATE KEY-----", b""))
