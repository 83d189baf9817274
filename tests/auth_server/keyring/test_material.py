"""Keys themselves: names, encryption at rest, and files that are not what they should be."""

import base64
import dataclasses
import re

import pytest
from cryptography.hazmat.primitives import serialization

from auth_server.keyring import material, pkcs8
from auth_server.keyring.ring import KeyState, SigningKey
from shared.errors import AppError
from shared.secret import Secret


def entry(made: material.MadeKey) -> SigningKey:
    fresh = {name: getattr(made.fresh, name) for name in ("kid", "n", "e", "n_bits", "pem_sha256", "encrypted")}
    return SigningKey(state=KeyState.STANDBY, created_at=0, published_at=0, **fresh)


@pytest.fixture(scope="module")
def plain() -> material.MadeKey:
    return material.make_key()


@pytest.fixture(scope="module")
def sealed() -> material.MadeKey:
    return material.make_key(2048, Secret("correct horse"))


def test_kid_is_the_thumbprint_of_rfc_7638():
    """The example of RFC 7638 section 3.1."""
    n = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjB"
        "ZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8"
        "KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_"
        "xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
    )
    assert material.thumbprint(n, "AQAB") == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


def test_plain_key_comes_back_and_is_the_named_one(plain):
    """Write, read, and the public members agree."""
    private = material.from_pem(plain.pem, entry(plain), None)
    assert material.public_members(private.public_key()) == (plain.fresh.n, plain.fresh.e)
    assert private.key_size == 2048


def test_kid_never_begins_with_a_dash(plain):
    """A kid is a file name and a command-line argument."""
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]{42}", plain.fresh.kid)


def test_encrypted_key_opens_with_its_passphrase_only(sealed):
    """Another passphrase, or none, is refused with a sentence that says which."""
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in sealed.pem
    material.from_pem(sealed.pem, entry(sealed), Secret("correct horse"))
    with pytest.raises(AppError) as wrong:
        material.from_pem(sealed.pem, entry(sealed), Secret("wrong horse"))
    assert "another passphrase" in wrong.value.reason
    with pytest.raises(AppError) as missing:
        material.from_pem(sealed.pem, entry(sealed), None)
    assert "FLEX_KEYS_PASSPHRASE_FILE" in missing.value.reason


def test_encryption_costs_an_attacker_600000_rounds(sealed):
    """The number is in the file: PBES2 with PBKDF2, INTEGER 600000 (0x0927c0), HMAC-SHA-256 and AES-256-CBC."""
    label, der = sealed.pem.split(b"-----")[1:3]
    assert label == b"BEGIN ENCRYPTED PRIVATE KEY"
    content = base64.b64decode(der)
    for part in ("2a864886f70d01050d", "2a864886f70d01050c", "02030927c0", "2a864886f70d0209", "60864801650304012a"):
        assert bytes.fromhex(part) in content[:128]


def test_weak_encryption_is_refused():
    """Fewer rounds or an empty passphrase never get written."""
    with pytest.raises(ValueError, match="600000"):
        pkcs8.encrypted_pem(b"key", b"secret", n_rounds=2048)
    with pytest.raises(ValueError, match="empty"):
        pkcs8.encrypted_pem(b"key", b"")


def test_plain_key_is_still_read_after_a_passphrase_was_configured(plain):
    """Switching encryption on takes effect with the next rotation; today's keys go on."""
    material.from_pem(plain.pem, entry(plain), Secret("new"))


def test_changed_pem_is_refused_by_its_digest(plain):
    """One changed byte is found before the key is parsed."""
    with pytest.raises(AppError) as refused:
        material.from_pem(plain.pem.replace(b"M", b"N", 1), entry(plain), None)
    assert "digest" in refused.value.reason


def test_damaged_pem_is_refused_without_quoting_it():
    """The sentence names the file, never its content."""
    pem = b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0LXN0dWZm\n-----END PRIVATE KEY-----\n"
    key = dataclasses.replace(entry(material.make_key()), pem_sha256=material.digest(pem))
    with pytest.raises(AppError) as refused:
        material.from_pem(pem, key, None)
    assert "damaged" in refused.value.reason
    assert "c2VjcmV0" not in str(refused.value) + refused.value.reason


def test_another_key_under_this_name_is_refused(plain, rsa_key):
    """Digest right, key wrong: the manifest was edited."""
    pem = material.to_pem(rsa_key, None)
    key = dataclasses.replace(entry(plain), pem_sha256=material.digest(pem))
    with pytest.raises(AppError) as refused:
        material.from_pem(pem, key, None)
    assert "another key" in refused.value.reason


def test_private_bytes_show_in_no_repr(plain):
    """What shows is what the JWKS shows."""
    assert "PRIVATE" not in repr(plain)
    assert plain.fresh.kid in repr(plain)


def test_only_three_sizes_are_made():
    """1024 bits are refused; so is anything odd."""
    for n_bits in (1024, 2047):
        with pytest.raises(ValueError, match="2048, 3072, 4096"):
            material.make_key(n_bits)


def test_plain_form_is_pkcs8(plain):
    """Other tools read the same file."""
    assert plain.pem.startswith(b"-----BEGIN PRIVATE KEY-----")
    serialization.load_pem_private_key(plain.pem, None)
