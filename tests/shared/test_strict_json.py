"""Strict JSON agrees with a slow, obvious reader about every document."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.strict_json import MAX_DEPTH, decode_object


class Members(list):
    """An object as a list of pairs, so that a name may stand in it twice."""


NAMES = st.sampled_from(["a", "b", "iss", "é", 'q"', "back\\slash", ":", "{", "", "\t"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", ":", '":', "{[", 'a":"b', "\\", '\\"', "é"]),
    lambda inner: st.lists(inner, max_size=3) | st.lists(st.tuples(NAMES, inner), max_size=4).map(Members),
    max_leaves=12,
)


def write(value, *, space: str, ascii_only: bool) -> str:
    """Spell a document by hand, repeated names and all."""
    if isinstance(value, Members):
        pairs = [
            f"{json.dumps(name, ensure_ascii=ascii_only)}{space}:{space}"
            f"{write(inner, space=space, ascii_only=ascii_only)}"
            for name, inner in value
        ]
        return "{" + f"{space},".join(pairs) + space + "}"
    if isinstance(value, list):
        return "[" + ",".join(write(inner, space=space, ascii_only=ascii_only) for inner in value) + "]"
    return json.dumps(value, ensure_ascii=ascii_only)


def slow_reader(text: str) -> dict:
    """Say what the standard library makes of it, with the rules checked one by one."""

    def no_repeats(pairs):
        if len(dict(pairs)) != len(pairs):
            raise ValueError("repeated")
        return dict(pairs)

    def depth(value) -> int:
        children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
        return 0 if children is None else 1 + max(map(depth, children), default=0)

    document = json.loads(text, object_pairs_hook=no_repeats)
    if not isinstance(document, dict) or depth(document) > MAX_DEPTH:
        raise ValueError("not allowed")
    return document


def outcome(reader, argument):
    try:
        return reader(argument)
    except ValueError:
        return "refused"


@given(VALUES, st.sampled_from(["", " ", "\n\t "]), st.booleans())
@example(Members([("a", 1), ("a", 1)]), "", True)
@example(Members([("a", Members([("b", 1), ("b", 2)]))]), " ", False)
@example(Members([("a", ":"), ("b", '":')]), "", True)
def test_it_agrees_with_the_slow_reader(value, space, ascii_only):
    """The same documents pass with the same content; repeated names at any level and deep nesting do not."""
    text = write(value, space=space, ascii_only=ascii_only)
    assert outcome(decode_object, text.encode()) == outcome(slow_reader, text)


@given(st.text(alphabet='{}[]":,\\au01 ', max_size=24))
def test_fragments_are_never_read_more_kindly_than_the_standard_library_does(text):
    """Scraps of JSON either fail, or mean what the slow reader says."""
    result = outcome(decode_object, text.encode())
    assert result in ("refused", outcome(slow_reader, text))


@pytest.mark.parametrize(("levels", "allowed"), [(MAX_DEPTH, True), (MAX_DEPTH + 1, False), (2000, False)])
def test_depth_is_bounded(levels, allowed):
    """Eight levels pass and nine do not, whether they are lists or objects."""
    lists = b'{"a":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"
    objects = b'{"a":' * levels + b"1" + b"}" * levels
    assert (outcome(decode_object, lists) != "refused") is allowed
    assert (outcome(decode_object, objects) != "refused") is allowed


def test_width_is_not_depth():
    """Many shallow members pass."""
    assert len(decode_object(b'{"a":[' + b",".join([b"{}"] * 50) + b"]}")["a"]) == 50


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b'"a"',
        b"null",
        b'\xef\xbb\xbf{"a":1}',
        '{"a":1}'.encode("utf-16"),
        '{"a":1}'.encode("utf-16-le"),
        '{"a":1}'.encode("utf-32"),
        b'{"a":"\xff"}',
        b'{"\xff":1}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":"\\ud800"}',
        b'{"a":"\\udc00\\ud800"}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":1e400}',
        b'{"a":01}',
        b"{'a':1}",
        b'{"a":1,}',
        b'{"a":1}{"a":1}',
        b'{"a":1} x',
        b'{"a":"\x01"}',
        b'{"a":1,"\\u0061":2}',
        b'{"a"\n:1,"a" :1}',
        b'{"a":[{"b":1},{"b":1,"b":1}]}',
    ],
)
def test_what_is_not_one_plain_utf8_object_is_refused(raw):
    """Other encodings, byte order marks, half surrogates, NaN, repeated and hidden names: refused."""
    with pytest.raises(ValueError):
        decode_object(raw)
