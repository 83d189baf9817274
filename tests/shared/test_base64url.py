"""Base64url has one spelling a value here."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import base64url


@given(st.binary(max_size=100))
def test_what_was_encoded_is_decoded(value):
    """The two directions undo each other, and agree with the standard library."""
    text = base64url.encode(value)
    assert text == base64.urlsafe_b64encode(value).rstrip(b"=")
    assert base64url.decode(text) == value


@given(st.binary(max_size=12))
def test_only_the_canonical_spelling_is_read(text):
    """Whatever decodes is exactly what encoding would have written."""
    try:
        value = base64url.decode(text)
    except ValueError:
        return
    assert base64url.encode(value) == text


@pytest.mark.parametrize(
    "text", [b"QQ==", b"QQ=", b"Q", b"QR", b"QUF", b"Q Q", b"QQ\n", b"+/8", b"Q\x00", b"QUFB=", b"====", "Qé".encode()]
)
def test_other_spellings_are_refused(text):
    """Padding, foreign characters, white space, spare bits and impossible lengths are errors."""
    with pytest.raises(ValueError):
        base64url.decode(text)
