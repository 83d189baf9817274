"""A published key set is read strictly; one sign of a careless publisher refuses all of it."""

import pytest

from shared import base64url
from shared.key_sets import KeySetRefused, parse_key_set
from tests.tokens import ISSUER, Issuer, compact


@pytest.fixture(scope="session")
def first(rsa_key):
    return Issuer(rsa_key, "one").jwk


@pytest.fixture(scope="session")
def second(other_rsa_key):
    return Issuer(other_rsa_key, "two").jwk


def read(*jwks, **rest):
    return parse_key_set(compact({"keys": list(jwks), **rest}), ISSUER)


def reason_of(body: bytes) -> str:
    with pytest.raises(KeySetRefused) as refusal:
        parse_key_set(body, ISSUER)
    return refusal.value.reason


def test_usable_keys_are_read_by_kid_and_bound_to_the_issuer(first, second, rsa_key):
    """Both keys come out with their numbers, and with the issuer they were fetched for."""
    keys = read(first, second)
    assert list(keys) == ["one", "two"]
    assert keys["one"] == Issuer(rsa_key, "one").key
    assert keys["one"].issuer == ISSUER


def test_the_key_material_is_not_printed(first):
    """A key's repr names it and nothing more."""
    key = read(first)["one"]
    assert str(key.modulus) not in repr(key)
    assert "one" in repr(key)


@pytest.mark.parametrize(
    "other",
    [
        {"kty": "EC", "use": "sig", "alg": "ES256", "crv": "P-256", "x": "AA", "y": "AA", "kid": "ec"},
        {"kty": "RSA", "use": "enc", "alg": "RSA-OAEP", "n": "AA", "e": "AQAB", "kid": "enc"},
        {"kty": "RSA", "use": "sig", "alg": "PS256", "n": "AA", "e": "AQAB", "kid": "ps"},
        {"kty": "RSA", "use": "sig", "n": "AA", "e": "AQAB", "kid": "any-algorithm"},
        {"kty": "RSA", "alg": "RS256", "n": "AA", "e": "AQAB", "kid": "any-use"},
        {"kty": "RSA", "use": "sig", "alg": "RS256", "key_ops": ["encrypt"], "n": "AA", "e": "AQAB", "kid": "ops"},
        {"kty": "RSA", "use": "sig", "alg": "RS256", "key_ops": "verify", "n": "AA", "e": "AQAB", "kid": "ops"},
        {},
    ],
)
def test_keys_for_other_purposes_are_left_out(first, other):
    """Only kty RSA, use sig, alg RS256 is used; anything else is passed over, and alone is no set at all."""
    assert list(read(first, other)) == ["one"]
    assert reason_of(compact({"keys": [other]})) == "no_usable_key"


@pytest.mark.parametrize("member", ["d", "p", "q", "dp", "dq", "qi", "oth", "k"])
def test_one_secret_member_refuses_the_whole_set(first, second, member):
    """A private or symmetric member anywhere means that the publisher leaks: nothing of it is used."""
    assert reason_of(compact({"keys": [first, second | {member: "AA"}]})) == "private_member"
    assert reason_of(compact({"keys": [first, {"kty": "oct", member: ""}]})) == "private_member"


def test_a_repeated_kid_refuses_the_set(first, second):
    """Two keys of one id can't be told apart."""
    assert reason_of(compact({"keys": [first, second | {"kid": "one"}]})) == "duplicate_kid"


@pytest.mark.parametrize("kid", [None, "", 7, "k" * 257, ["one"]])
def test_a_key_without_a_proper_kid_refuses_the_set(first, kid):
    """Every key that could verify needs an id of 1 to 256 characters; 256 are fine."""
    assert reason_of(compact({"keys": [first | {"kid": kid}]})) == "bad_kid"
    assert list(read(first | {"kid": "k" * 256})) == ["k" * 256]


def number(value: int) -> str:
    return base64url.encode(value.to_bytes((value.bit_length() + 7) // 8 or 1, "big")).decode()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"n": number(2**1023 + 1)}, "unfit_modulus"),
        ({"n": number(2**8192 + 1)}, "unfit_modulus"),
        ({"n": number(2**2047)}, "unfit_modulus"),
        ({"n": number(0)}, "unfit_modulus"),
        ({"e": number(1)}, "unfit_exponent"),
        ({"e": number(3)}, "unfit_exponent"),
        ({"e": number(65538)}, "unfit_exponent"),
        ({"e": number(2**32 + 1)}, "unfit_exponent"),
        ({"e": "AQAB="}, "malformed"),
        ({"e": "AQ AB"}, "malformed"),
        ({"e": 65537}, "malformed"),
        ({"e": ""}, "malformed"),
        ({"n": None}, "malformed"),
        ({"n": "é"}, "malformed"),
    ],
)
def test_weak_or_misspelt_keys_refuse_the_set(first, second, changes, reason):
    """Short, huge or even moduli, small or even exponents and wrong spelling: beside a good key, too."""
    assert reason_of(compact({"keys": [second, first | changes]})) == reason


def test_the_number_of_keys_is_bounded(first):
    """Sixteen pass, seventeen do not."""
    keys = [first | {"kid": f"k{n}"} for n in range(17)]
    assert len(read(*keys[:16])) == 16
    assert reason_of(compact({"keys": keys})) == "too_many_keys"


def test_the_size_is_bounded(first):
    """64 KiB pass, one byte more does not."""
    body = compact({"keys": [first]})
    assert parse_key_set(body.ljust(64 * 1024), ISSUER)
    assert reason_of(body.ljust(64 * 1024 + 1)) == "too_large"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"keys":{}}',
        b'{"keys":[1]}',
        b'{"keys":null}',
        b'{"keys":[],"keys":[]}',
        b"[" * 60_000,
        '{"keys":[]}'.encode("utf-16"),
    ],
)
def test_what_is_no_key_set_is_refused(body):
    """Garbage, other JSON, repeated names, other encodings, deep nesting."""
    assert reason_of(body) == "malformed"


def test_an_empty_set_is_refused():
    """An issuer without keys is an issuer that is broken."""
    assert reason_of(b'{"keys":[]}') == "no_usable_key"
