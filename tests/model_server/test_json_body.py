"""Bodies from strangers: what is not plain, shallow, finite JSON is refused by name."""

import pytest

from model_server.json_body import cut_name, parse_json
from shared.errors import AppError


def refusal(raw: bytes) -> AppError:
    with pytest.raises(AppError) as caught:
        parse_json(raw, "/records/3")
    return caught.value


def test_plain_json_is_parsed():
    """Nothing is changed on the way."""
    assert parse_json(b'{"a": [1, 2.5, null, "x"]}') == {"a": [1, 2.5, None, "x"]}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"{'a': 1}",
        b'{"a": 1,}',
        b'{"a": 01}',
        b'{"a": 1} x',
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": "\xff"}',
        b'{"a": "\xed\xa0\x80"}',
        b'{"a": "\\ud800"}',
        b"\xef\xbb\xbf{}",
        b"\xff\xfe{\x00}\x00",
        b"[" * 100_000,
        b'{"a":' * 9 + b"1" + b"}" * 9,
        b"[" * 9 + b"]" * 9,
    ],
)
def test_what_is_not_acceptable_json_is_400(raw):
    """Grammar, encoding and depth have one code, and the detail never repeats the body."""
    error = refusal(raw)
    assert (error.code, error.status) == ("malformed_json", 400)


def test_eight_levels_are_enough():
    """The bound itself is accepted."""
    assert parse_json(b"[" * 8 + b"1" + b"]" * 8)


def test_nan_is_answered_with_what_to_send_instead():
    """The commonest fault of number-crunching clients gets its own sentence."""
    assert "null" in refusal(b'{"a": NaN}').detail


@pytest.mark.parametrize("number", [b"1e400", b"-1e999", b"9" * 5000])
def test_number_beyond_float64_gets_a_pointer(number):
    """JSON knows no bound, float64 does: 422 with the place."""
    error = refusal(b'{"features": {"a/b": [' + number + b'], "c": ' + number + b"}}")
    assert (error.code, error.status) == ("invalid_record", 422)
    assert [(e.pointer, e.code, e.feature) for e in error.errors] == [
        ("/records/3/features/a~1b/0", "not_finite", None),
        ("/records/3/features/c", "not_finite", "c"),
    ]


def test_names_of_clients_are_cut_and_always_encodable():
    """Lone surrogates would otherwise break the answer that repeats them."""
    assert len(cut_name("x" * 1000)) == 64
    assert cut_name("\ud800a").encode()
