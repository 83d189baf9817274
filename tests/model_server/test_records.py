"""Bodies become records: one truth whichever way it was decoded, every fault named, nothing guessed."""

import json
import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_server.fields import Feature
from model_server.json_body import parse_json
from model_server.records import MAX_BATCH, Record, RecordDecoder, decode_profile, unknown_warnings
from shared.errors import AppError

FEATURES = (
    Feature("mood", low=1.0, high=5.0, seen=(1.0, 5.0)),
    Feature("hours", low=0.0, high=672.0, seen=(0.5, 300.0)),
    Feature("days", low=0.0, high=28.0, seen=(1.0, 28.0), integer=True),
    Feature("age_of_account", seen=(10.0, 20.0), required=True),
)
DECODER = RecordDecoder(FEATURES)
CLEAN = {"mood": 4, "hours": 12.5, "days": 3, "age_of_account": 15}


def body(features=None, **more) -> bytes:
    return json.dumps({"features": CLEAN if features is None else features, **more}).encode()


def errors_of(raw: bytes) -> list[tuple[str, str]]:
    with pytest.raises(AppError) as caught:
        DECODER.decode(raw)
    assert caught.value.code == "invalid_record"
    assert all(error.message for error in caught.value.errors)
    return [(error.pointer, error.code) for error in caught.value.errors]


def test_clean_record_keeps_order_and_id():
    """Values come in column order whatever the order of the body; the id is untouched."""
    shuffled = dict(reversed(CLEAN.items()))
    assert DECODER.decode(body(shuffled, id="p-17 é")) == Record("p-17 é", (4.0, 12.5, 3.0, 15.0))
    assert DECODER.decode(body()).id is None
    assert DECODER.decode(body(id=None)).id is None


@pytest.mark.parametrize("gap", [{"mood": None}, {}], ids=["null", "absent"])
def test_null_and_absence_both_mean_missing(gap):
    """The missing feature is NaN in its column and named."""
    record = DECODER.decode(body({"hours": 12.5, "days": 3, "age_of_account": 15, **gap}))
    assert math.isnan(record.values[0])
    assert record.values[1:] == (12.5, 3.0, 15.0)
    assert record.missing == ("mood",)
    assert record.warnings == ()


def test_required_feature_is_never_missing():
    """Where the model never learned a gap, null and absence are 422, never a silent 0."""
    for features in ({**CLEAN, "age_of_account": None}, {"mood": 4}):
        assert errors_of(body(features)) == [("/features/age_of_account", "required")]


def test_every_wrong_field_is_named_at_once():
    """One answer for all faults, with pointer and feature, and none of the values in it."""
    features = {"mood": "sekret", "hours": -1, "days": 2.5, "age_of_account": True}
    with pytest.raises(AppError) as caught:
        DECODER.decode(body(features, id=17))
    found = caught.value.errors
    assert [(error.pointer, error.feature, error.code) for error in found] == [
        ("/id", None, "not_a_string"),
        ("/features/mood", "mood", "not_a_number"),
        ("/features/hours", "hours", "below_minimum"),
        ("/features/days", "days", "not_an_integer"),
        ("/features/age_of_account", "age_of_account", "not_a_number"),
    ]
    assert b"sekret" not in msgspec.json.encode(found)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"[]", [("", "not_an_object")]),
        (b"null", [("", "not_an_object")]),
        (b"{}", [("/features", "required")]),
        (b'{"features": null}', [("/features", "required")]),
        (b'{"features": [1]}', [("/features", "not_an_object")]),
        (b'{"feature": {}}', [("/feature", "unknown_member"), ("/features", "required")]),
        (body(id="x" * 129), [("/id", "too_long")]),
        (body({**CLEAN, "mood": 6}), [("/features/mood", "above_maximum")]),
        (body({**CLEAN, "mood": "4"}), [("/features/mood", "not_a_number")]),
        (body({f"f{i}": 1 for i in range(257)}), [("/features", "too_many_features")]),
        (b'{"features": {"mood": 1e999}}', [("/features/mood", "not_finite")]),
        (body({**CLEAN, "mood": 10**400}), [("/features/mood", "not_finite")]),
    ],
)
def test_wrong_shapes_are_named(raw, expected):
    """Each shape of fault has its own code and pointer."""
    assert errors_of(raw) == expected


def test_id_of_128_characters_is_accepted():
    """The bound itself passes."""
    assert DECODER.decode(body(id="x" * 128)).id == "x" * 128


def test_value_outside_training_range_is_scored_with_a_warning():
    """The hard range refuses, the training range only warns."""
    record = DECODER.decode(body({**CLEAN, "hours": 600, "age_of_account": 5}))
    assert record.values == (4.0, 600.0, 3.0, 5.0)
    assert record.warnings == ("out_of_training_range:hours", "out_of_training_range:age_of_account")


def test_unknown_features_are_warnings_and_bounded():
    """At most twenty names of at most 64 characters come back, and never a value."""
    extra = {f"x{index:03}" + "y" * 100: "sekret" for index in range(50)}
    record = DECODER.decode(body({**CLEAN, **extra}))
    assert len(record.warnings) == 21
    assert record.warnings[0] == "unknown_feature:x000" + "y" * 60
    assert record.warnings[-1] == "more_unknown_features:30"
    assert "sekret" not in str(record.warnings)
    assert record.values == (4.0, 12.5, 3.0, 15.0)


@given(
    st.dictionaries(
        st.sampled_from([*(feature.name for feature in FEATURES), "other"]),
        st.none() | st.integers(-3, 30) | st.floats(-5, 700) | st.sampled_from([True, "4", [], 1e300, 2.0, 10**30]),
    ),
    st.none() | st.text(max_size=140) | st.integers(),
)
@settings(max_examples=300, deadline=None)
def test_both_ways_of_decoding_say_the_same(features, record_id):
    """The strict decoder accepts nothing that the careful one would refuse or warn about."""
    raw = json.dumps({"features": features, "id": record_id}).encode()

    def outcome(decode):
        try:
            record = decode()
        except AppError as error:
            return error.code, error.errors
        return repr(record)

    assert outcome(lambda: DECODER.decode(raw)) == outcome(lambda: DECODER.check(parse_json(raw)))


def test_batch_of_clean_records_keeps_order():
    """Decoded in one go."""
    rows = [{"id": str(index), "features": {**CLEAN, "days": index % 28 + 1}} for index in range(50)]
    records = DECODER.decode_batch(json.dumps({"records": rows}).encode())
    assert [record.id for record in records] == [str(index) for index in range(50)]
    assert [record.values[2] for record in records] == [index % 28 + 1 for index in range(50)]


def test_bad_record_gives_one_error_in_its_place():
    """The others are not touched, and pointers count from the body's root."""
    rows = [{"features": CLEAN}, {"features": {**CLEAN, "mood": 9}}, 7, {"features": {**CLEAN, "mood": None}}]
    good, high, number, gap = DECODER.decode_batch(json.dumps({"records": rows}).encode())
    assert good.values == (4.0, 12.5, 3.0, 15.0)
    assert [error.pointer for error in high.errors] == ["/records/1/features/mood"]
    assert [error.pointer for error in number.errors] == ["/records/2"]
    assert gap.missing == ("mood",)


def test_record_too_deep_or_too_large_for_float64_is_an_error_in_its_place():
    """What only the careful way sees stays with its record."""
    deep = b'{"features":{"mood":' + b"[" * 9 + b"]" * 9 + b"}}"
    huge = b'{"features":{"mood":1e999}}'
    results = DECODER.decode_batch(b'{"records":[' + deep + b"," + huge + b"," + body() + b"]}")
    assert [getattr(result, "code", "good") for result in results] == ["malformed_json", "invalid_record", "good"]
    assert results[1].errors[0].pointer == "/records/1/features/mood"


@pytest.mark.parametrize(
    ("raw", "code", "field"),
    [
        (b'{"records": []}', "invalid_record", "too_few_records"),
        (b'{"records": [' + b",".join([b"{}"] * (MAX_BATCH + 1)) + b"]}", "invalid_record", "too_many_records"),
        (b'{"records": {}}', "invalid_record", "not_an_array"),
        (b'{"rows": []}', "invalid_record", "not_an_array"),
        (b"[]", "invalid_record", "not_an_array"),
        (b'{"records": [{}], "x": 1}', "invalid_record", "not_an_array"),
        (b'{"records": [{]}', "malformed_json", None),
        (b'{"records": [NaN]}', "malformed_json", None),
        (b'{"records": ' + b"[" * 100_000, "malformed_json", None),
        (b"", "malformed_json", None),
    ],
)
def test_batch_that_is_none_is_refused_as_a_whole(raw, code, field):
    """Only the envelope can fail a batch."""
    with pytest.raises(AppError) as caught:
        DECODER.decode_batch(raw)
    assert caught.value.code == code
    assert [error.code for error in caught.value.errors] == ([field] if field else [])


def test_attribute_takes_its_part_of_a_profile():
    """Other attributes' features are not warned about; ranges and gaps count as ever."""
    profile = decode_profile(body({**CLEAN, "other": 3, "hours": 600, "mood": None}, id="p"))
    record = DECODER.take(profile)
    assert record.id == "p"
    assert record.missing == ("mood",)
    assert record.warnings == ("out_of_training_range:hours",)
    clean = DECODER.take(decode_profile(body({**CLEAN, "other": None})))
    assert (clean.values, clean.warnings) == ((4.0, 12.5, 3.0, 15.0), ())
    assert unknown_warnings(profile.features, DECODER.known) == ["unknown_feature:other"]


def test_wrong_feature_in_a_profile_is_the_error_of_those_who_use_it():
    """An attribute that does not use the feature is not disturbed."""
    profile = decode_profile(body({"mood": "4", "age_of_account": 15}))
    refused = DECODER.take(profile)
    assert isinstance(refused, AppError)
    assert [(error.pointer, error.code) for error in refused.errors] == [("/features/mood", "not_a_number")]
    other = RecordDecoder((Feature("age_of_account"),)).take(profile)
    assert other.values == (15.0,)


@pytest.mark.parametrize("raw", [b"{}", b'{"features": 1}', b'{"features": {}, "id": 4}', b'{"features": {}, "x": 4}'])
def test_profile_without_a_record_is_refused(raw):
    """The envelope is that of a single record."""
    with pytest.raises(AppError) as caught:
        decode_profile(raw)
    assert caught.value.code == "invalid_record"
