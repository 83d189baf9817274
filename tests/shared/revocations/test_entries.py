"""Entries, heads, marks: what is signed can't be changed, and what is compared is compared in milliseconds."""

import hmac
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.access_token import AccessToken, VerificationKey
from shared.revocations import entries
from shared.revocations.entries import Kind, NotAuthentic, Revocation, decode_entry, encode_entry, epoch_authenticator
from shared.revocations.feed_key import Authenticator, FeedKey
from shared.revocations.head import Head, decode_head
from shared.token_ids import token_id

KEY = FeedKey(bytes(range(32)))
AUTHENTICATOR = epoch_authenticator(KEY, b"epoch one.......")
revocations = st.builds(
    Revocation, st.sampled_from(Kind), st.binary(min_size=1, max_size=512), st.integers(0, 2**63 - 1)
)


def access_token(issued_at: float, jti: str = "0" * 32) -> AccessToken:
    key = VerificationKey("https://a", "kid-1", 1, 1, None)
    return AccessToken(key, "ann", "client-1", jti, ("a",), frozenset(), issued_at, 0, issued_at + 60)


@given(revocations, st.integers(1, 2**64 - 1), st.binary(min_size=8, max_size=8), st.integers(0, 2**63))
def test_an_entry_comes_back_as_it_went(revocation: Revocation, number: int, previous: bytes, at_ms: int) -> None:
    """Every field survives, and the link is the start of the code."""
    raw, link = encode_entry(AUTHENTICATOR, revocation, number, previous, at_ms)
    entry = decode_entry(AUTHENTICATOR, raw)
    assert (entry.kind, entry.key, entry.time_ms) == (revocation.kind, revocation.key, revocation.time_ms)
    assert (entry.sequence, entry.previous, entry.at_ms, entry.link) == (number, previous, at_ms, link)
    assert raw[-16:-8] == link


@given(revocations, st.data())
def test_a_changed_entry_is_refused(revocation: Revocation, data: st.DataObject) -> None:
    """One bit anywhere, a cut, or another epoch."""
    raw, _ = encode_entry(AUTHENTICATOR, revocation, 7, bytes(8), 1)
    place, bit = data.draw(st.integers(0, len(raw) - 1)), data.draw(st.integers(0, 7))
    changed = raw[:place] + bytes([raw[place] ^ 1 << bit]) + raw[place + 1 :]
    for wrong in (changed, raw[:-1], raw + b"\0", raw[:place]):
        with pytest.raises(NotAuthentic):
            decode_entry(AUTHENTICATOR, wrong)
    with pytest.raises(NotAuthentic):
        decode_entry(epoch_authenticator(KEY, b"epoch two......."), raw)


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=300))
def test_the_fast_code_is_hmac_sha_256(key: bytes, message: bytes) -> None:
    """The same bytes as the standard library's."""
    assert Authenticator(key).mac(message) == hmac.digest(key, message, "sha256")


def test_a_head_is_authentic_or_refused() -> None:
    """Also one of another key, and an entry in its place."""
    head = Head(os.urandom(16), 3, 9, b"link....", 1_800_000_000_000)
    raw = head.encode(KEY)
    assert decode_head(KEY, raw) == head
    wrong = [raw[:-1] + bytes([raw[-1] ^ 1]), b"\2" + raw[1:], raw[:-1], b"", head.encode(FeedKey(bytes(32)))]
    for changed in [*wrong, encode_entry(AUTHENTICATOR, Revocation(Kind.TOKEN, b"k", 1), 1, bytes(8), 1)[0]]:
        with pytest.raises(NotAuthentic):
            decode_head(KEY, changed)


@pytest.mark.parametrize(("key", "time_ms"), [(b"", 1), (b"x" * 513, 1), (b"k", -1), (b"k", 2**63)])
def test_a_revocation_of_nothing_or_of_no_age_is_refused(key: bytes, time_ms: int) -> None:
    """Bounds of what can be written."""
    with pytest.raises(ValueError, match="needs a key"):
        Revocation(Kind.CLIENT, key, time_ms)


def test_a_jti_is_kept_in_16_bytes() -> None:
    """Ours as they are; anything else by digest, and what only looks like ours does not collide with it."""
    jti = "00112233445566778899aabbccddeeff"
    assert entries.token_key(jti) == bytes.fromhex(jti)
    keys = {entries.token_key(other) for other in (jti, jti.upper(), " " + jti[:-2] + " ", "a", "é" * 40, "")}
    assert len(keys) == 6
    assert {len(key) for key in keys} == {16}


def test_marks_count_milliseconds() -> None:
    """Our ids say the millisecond; a token with any other reads as issued at the start of its second."""
    jti = token_id(1_800_000_000_123, bytes(10))
    assert entries.marks(access_token(1_800_000_000, jti)).issued_ms == 1_800_000_000_123
    assert entries.marks(access_token(1_800_000_000)).issued_ms == 1_800_000_000_000
    marks = entries.marks(access_token(1.0), grant_id="g", api_key_id="a")
    assert (marks.client, marks.subject, marks.grant, marks.api_key) == (b"client-1", b"ann", b"g", b"a")
    assert marks.signing_key == b"kid-1"


@pytest.mark.parametrize(
    "jti",
    [
        token_id(1_800_000_001_000, bytes(10)),
        token_id(1_799_999_999_999, bytes(10)),
        token_id(1_800_000_000_123, bytes(10)).upper(),
        token_id(1_800_000_000_123, bytes(10))[:12] + "4" + token_id(1_800_000_000_123, bytes(10))[13:],
        token_id(1_800_000_000_123, bytes(10))[:16] + "c" + token_id(1_800_000_000_123, bytes(10))[17:],
        token_id(1_800_000_000_123, bytes(10)) + "0",
    ],
)
def test_an_id_that_can_not_be_ours_or_contradicts_iat_says_nothing(jti: str) -> None:
    """Another second than iat's, upper case, another version or variant, another length: the safe side."""
    assert entries.marks(access_token(1_800_000_000, jti)).issued_ms == 1_800_000_000_000


@given(st.integers(0, 4_102_444_800_000))
def test_every_millisecond_of_the_century_survives_a_float(ms: int) -> None:
    """Times in seconds as a float are exact enough."""
    assert entries.milliseconds(ms / 1000) == ms
