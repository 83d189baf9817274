"""One field: which numbers pass, which fault is named, and what the caller is told to do."""

import math

import msgspec
import pytest

from model_server.fields import Feature, advice, features_type, read_number

HOURS = Feature("hours", low=0.0, high=672.0, seen=(1.0, 400.0))
DAYS = Feature("days", low=0.0, high=28.0, integer=True, required=True)
FREE = Feature("free")


@pytest.mark.parametrize(("value", "number"), [(0, 0.0), (672, 672.0), (1.5, 1.5), (-0.0, 0.0)])
def test_number_within_hard_limits_passes(value, number):
    """Limits are part of the range; whole numbers are numbers; the training range refuses nothing."""
    assert read_number(HOURS, value) == ("", number)


@pytest.mark.parametrize(
    ("feature", "value", "code"),
    [
        (HOURS, -1, "below_minimum"),
        (HOURS, 673.0, "above_maximum"),
        (HOURS, "4", "not_a_number"),
        (HOURS, True, "not_a_number"),
        (HOURS, [4], "not_a_number"),
        (HOURS, {}, "not_a_number"),
        (HOURS, math.nan, "not_finite"),
        (HOURS, math.inf, "not_finite"),
        (FREE, 10**400, "not_finite"),
        (DAYS, 1.5, "not_an_integer"),
        (DAYS, None, "required"),
    ],
)
def test_other_values_are_faults_with_a_name(feature, value, code):
    """Strings are never turned into numbers and true is not 1."""
    found, number = read_number(feature, value)
    assert found == code
    assert math.isnan(number)
    assert advice(feature, code)


def test_advice_says_what_to_send():
    """Range, kind and whether it may be missing are in the sentence."""
    assert "a number from 0 to 672" in advice(HOURS, "above_maximum")
    assert "missing" in advice(HOURS, "above_maximum")
    assert "a whole number from 0 to 28" in advice(DAYS, "required")
    assert Feature("x", low=0.0).wanted == "a number of at least 0"
    assert Feature("x", high=1.0).wanted == "a number of at most 1"
    assert FREE.wanted == "a number"


def test_type_of_features_accepts_only_what_needs_no_word():
    """The C decoder takes clean values; anything that needs an error or a warning it leaves to the careful way."""
    kind = features_type((HOURS, DAYS), closed=True)
    decode = msgspec.json.Decoder(kind).decode
    assert msgspec.structs.astuple(decode(b'{"days": 3, "hours": 2}')) == (2.0, 3.0)
    assert msgspec.structs.astuple(decode(b'{"days": 3, "hours": null}')) == (None, 3.0)
    assert math.isnan(decode(b'{"days": 3}').f0)
    for body in (
        b'{"hours": 2}',
        b'{"days": 3.5}',
        b'{"days": null}',
        b'{"days": 3, "hours": 0.5}',
        b'{"days":3,"x":1}',
    ):
        with pytest.raises(msgspec.ValidationError):
            decode(body)
