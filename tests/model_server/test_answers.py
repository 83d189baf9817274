"""A model's number becomes an answer: clipped, banded, ranked, with the interval that its coverage allows."""

import math

import msgspec
import pytest
import tomli_w

from model_server.answers import ModelRef, answer_maker, to_4_decimals
from model_server.metadata import read_metadata
from model_server.records import Record
from tests.model_server.bundle_files import metadata, train

RECORD = Record("p-17", (1.0,))


def maker(**changes):
    found = read_metadata(tomli_w.dumps(metadata(train(), **changes)).encode())
    return answer_maker(found, ModelRef("1", "ab" * 32))


ANSWER = maker()


def test_answer_has_exactly_the_promised_members():
    """Names, order and types are what callers were told."""
    found = msgspec.json.decode(msgspec.json.encode(ANSWER(RECORD, 1.0, 5.123456789)))
    assert found == {
        "id": "p-17",
        "attribute": "focus",
        "score": 5.1235,
        "raw": 5.123456789,
        "unit": "pomp_0_100",
        "interval80": [4.1235, 6.1235],
        "percentile": 51,
        "band": "typical",
        "coverage": 1.0,
        "missing": [],
        "warnings": [],
        "model": {"version": "1", "sha256": "ab" * 32},
        "not_for": ["hiring", "pay"],
    }


def test_raw_keeps_every_bit_on_the_wire():
    """What is decoded from JSON is the float that the model gave."""
    raw = 5 + 1 / 3
    assert msgspec.json.decode(msgspec.json.encode(ANSWER(RECORD, 1.0, raw)))["raw"] == raw


@pytest.mark.parametrize(
    ("raw", "score", "interval"),
    [
        (0.4, 0.4, (0.0, 1.4)),
        (9.7, 9.7, (8.7, 10.0)),
        (10.6, 10.0, (9.6, 10.0)),
        (-3.0, 0.0, (0.0, 0.0)),
        (12.5, 10.0, (10.0, 10.0)),
    ],
)
def test_score_and_interval_stay_on_the_scale(raw, score, interval):
    """`raw` is told as it is; nobody is told 104 of 100."""
    answer = ANSWER(RECORD, 1.0, raw)
    assert (answer.score, answer.interval80, answer.raw) == (score, interval, raw)


@pytest.mark.parametrize(("covered", "half"), [(1.0, 1.0), (0.9, 1.0), (0.8999, 1.5), (0.5, 1.5)])
def test_less_coverage_widens_the_interval(covered, half):
    """From 0.9 on the narrow one holds."""
    answer = ANSWER(RECORD, covered, 5.0)
    assert answer.interval80 == (5 - half, 5 + half)
    assert answer.coverage == covered


@pytest.mark.parametrize(
    ("raw", "percentile"), [(-5.0, 1), (0.05, 1), (0.1, 1), (0.2, 2), (5.0, 50), (5.05, 50), (9.9, 99), (50.0, 99)]
)
def test_percentile_is_1_to_99(raw, percentile):
    """Among the model's own predictions; the ends are never 0 or 100."""
    assert ANSWER(RECORD, 1.0, raw).percentile == percentile


@pytest.mark.parametrize(("raw", "band"), [(3.99, "low"), (4.0, "typical"), (5.99, "typical"), (6.0, "high")])
def test_bands_include_their_lower_edge(raw, band):
    """Low is below `low_below`, high from `high_from`."""
    assert ANSWER(RECORD, 1.0, raw).band == band


@pytest.mark.parametrize("number", [0.0, 1.00005, 99.99995, -0.00004, -12.34567, 28.0, 1 / 3])
def test_rounding_gives_the_float_nearest_to_four_decimals(number):
    """No stray digits on the wire."""
    rounded = to_4_decimals(number)
    assert rounded == float(f"{rounded:.4f}")
    assert math.isclose(rounded, number, abs_tol=0.00005001)
