"""Records become answers: bit-equal, honest about what is missing, in order."""

import math

import msgspec
import numpy as np
import pytest

from model_server.answers import Answer, Insufficient
from model_server.attribute import open_attribute
from model_server.bundles import load_bundle
from model_server.records import decode_profile
from model_server.scoring import score, score_batch, score_profile
from shared.errors import AppError
from tests.model_server.bundle_files import metadata, train, write_bundle

MODEL = train()


@pytest.fixture(scope="module")
def attribute(tmp_path_factory):
    """One small attribute, opened from a real bundle."""
    return open_attribute(load_bundle(write_bundle(tmp_path_factory.mktemp("models"), MODEL)))


def record(attribute, **features):
    return attribute.decoder.check({"id": "p", "features": {**dict.fromkeys(MODEL.names, 0.5), **features}})


def test_raw_is_bit_equal_to_the_package(attribute):
    """The promise of the product, on a record with a gap."""
    found = score(attribute, record(attribute, answer_2=None, answer_1=0.875))
    row = [[0.5, 0.875, math.nan, 0.5]]
    assert isinstance(found, Answer)
    assert found.raw == MODEL.booster.predict(np.array(row))[0]


def test_coverage_is_the_gain_of_what_is_there(attribute):
    """All present is exactly 1; nothing present is exactly 0."""
    shares = attribute.gain_shares
    assert score(attribute, record(attribute)).coverage == 1.0
    found = score(attribute, record(attribute, answer_3=None))
    assert found.coverage == pytest.approx(1 - shares["answer_3"], abs=0.00005)
    assert found.missing == ("answer_3",)
    assert attribute.coverage(MODEL.names) == 0.0


def test_too_little_is_no_score(attribute):
    """Below half of the gain there is no number anywhere in the answer, and the rest of it is there."""
    sparse = attribute.decoder.check({"id": "p", "features": {"answer_3": 0.5, "surprise": 1}})
    found = score(attribute, sparse)
    assert isinstance(found, Insufficient)
    wire = msgspec.json.decode(msgspec.json.encode(found))
    assert list(wire) == [
        "id", "attribute", "status", "coverage", "missing", "warnings", "model", "not_for",
    ]  # fmt: skip
    assert wire["status"] == "insufficient_data"
    assert wire["coverage"] < 0.5
    assert wire["missing"] == ["answer_0", "answer_1", "answer_2"]
    assert wire["warnings"] == ["unknown_feature:surprise"]


def test_batch_gives_the_same_as_one_by_one(attribute):
    """Good, sparse and refused records in any order; one call of the engine for the good ones."""
    bodies = [{"features": {**dict.fromkeys(MODEL.names, index / 20)}} for index in range(20)]
    bodies[3] = {"features": {"answer_3": 0.1}}
    bodies[7] = {"features": {"answer_0": "x"}}
    records = attribute.decoder.decode_batch(msgspec.json.encode({"records": bodies}))
    found = score_batch(attribute, records)
    assert isinstance(found[7], AppError)
    assert isinstance(found[3], Insufficient)
    assert found == [r if isinstance(r, AppError) else score(attribute, r) for r in records]
    assert score_batch(attribute, []) == []
    assert score_batch(attribute, records[7:8]) == records[7:8]


def test_profile_scores_by_every_attribute_in_order(tmp_path, attribute):
    """One that can't read the record answers with its own error; the others are not disturbed."""
    strict = train(missing=0.0)
    features = {name: {"min": -1.0, "max": 2.0} for name in strict.names}
    needy = open_attribute(load_bundle(write_bundle(tmp_path, strict, attribute_id="needy", features=features)))
    profile = decode_profile(msgspec.json.encode({"id": "p", "features": {**dict.fromkeys(MODEL.names, 0.5)}}))
    both = score_profile([needy, attribute], profile)
    assert [found.attribute for found in both] == ["needy", "focus"]
    gap = decode_profile(msgspec.json.encode({"features": {"answer_0": 0.5, "answer_1": 0.5, "answer_2": 0.5}}))
    refused, scored = score_profile([needy, attribute], gap)
    assert [error.code for error in refused.errors] == ["required"]
    assert scored.missing == ("answer_3",)


def test_model_without_learned_gaps_never_reads_one_as_zero(tmp_path):
    """Range 10 to 20, no gaps in training: the library would answer a gap as if it were 0; we refuse to ask it."""
    model = train(missing=0.0, low=10.0, high=20.0)
    features = {name: {} for name in model.names}
    opened = open_attribute(load_bundle(write_bundle(tmp_path, model, features=features, score_range=[0.0, 1000.0])))
    silent = opened.model.predict_one((math.nan, 15.0, 15.0, 15.0))
    assert silent == opened.model.predict_one((0.0, 15.0, 15.0, 15.0))
    with pytest.raises(AppError) as caught:
        opened.decoder.check({"features": {**dict.fromkeys(model.names, 15.0), "answer_0": None}})
    assert [error.code for error in caught.value.errors] == ["required"]


def test_probability_is_scored_as_the_package_does(tmp_path):
    """With a link `raw` is the probability."""
    model = train(objective="binary")
    table = metadata(model)
    changes = {
        "score_range": [0.0, 1.0],
        "bands": {"low_below": 0.25, "high_from": 0.75},
        "reference": {"percentiles": [index / 100 for index in range(1, 100)]},
        "unit": "probability",
    }
    opened = open_attribute(load_bundle(write_bundle(tmp_path, model, **{**table, **changes})))
    found = score(opened, opened.decoder.check({"features": dict.fromkeys(model.names, 0.9)}))
    assert found.raw == model.booster.predict(np.full((1, 4), 0.9))[0]
    assert 0 <= found.interval80[0] <= found.score <= found.interval80[1] <= 1
