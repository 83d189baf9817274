"""Explanations add up, never contradict their own sign, and say honestly what one more answer would do."""

import math
import random

import msgspec
import numpy as np
import pytest

from model_server import explanations
from model_server.attribute import Attribute, open_attribute
from model_server.bundles import load_bundle
from model_server.explanations import Contribution, Explanation, Unexplained, explain, reasons
from shared.errors import AppError
from tests.model_server.bundle_files import SHIPPED, metadata, train, write_bundle

MODEL = train()


@pytest.fixture(scope="module")
def attribute(tmp_path_factory) -> Attribute:
    """One small attribute, opened from a real bundle."""
    return open_attribute(load_bundle(write_bundle(tmp_path_factory.mktemp("models"), MODEL)))


def explained(attribute, **features) -> Explanation:
    found = explain(attribute, attribute.decoder.check({"features": {**dict.fromkeys(MODEL.names, 0.5), **features}}))
    assert isinstance(found, Explanation)
    return found


def test_contributions_are_those_of_the_package_and_add_up(attribute):
    """Bit-equal one by one, sorted by size, and with the base value equal to `raw`."""
    found = explained(attribute, answer_0=0.9, answer_1=None)
    expected = MODEL.booster.predict(np.array([[0.9, math.nan, 0.5, 0.5]]), pred_contrib=True)[0].tolist()
    assert {c.feature: c.points for c in found.contributions} == dict(zip(MODEL.names, expected, strict=False))
    assert found.base_value == expected[-1]
    assert math.fsum(c.points for c in found.contributions) + found.base_value == pytest.approx(found.raw, abs=1e-9)
    sizes = [abs(c.points) for c in found.contributions]
    assert sizes == sorted(sizes, reverse=True)
    assert found.points_of == "raw"
    assert next(c for c in found.contributions if c.feature == "answer_1").value is None


def random_record(attribute, rng):
    features = {}
    for feature in attribute.features:
        low, high = feature.seen
        value = rng.randint(int(low), int(high)) if feature.integer else rng.uniform(low, high)
        features[feature.name] = None if rng.random() < 0.15 else value
    return attribute.decoder.check({"features": features})


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.parts[-3])
def test_reasons_never_contradict_their_contribution(path):
    """Shipped models, random records: the word, the number and the sign agree, and fixed directions are respected."""
    attribute = open_attribute(load_bundle(path.parent))
    rng = random.Random(path.parts[-3])
    for _ in range(25):
        found = explain(attribute, random_record(attribute, rng))
        if isinstance(found, Unexplained):
            continue
        assert math.fsum(c.points for c in found.contributions) + found.base_value == pytest.approx(found.raw, abs=1e-9)
        for contribution, reason in zip(found.contributions, found.reasons, strict=False):
            assert ("higher" in reason.split(" because ")[0]) == (contribution.points > 0)
            assert ("(+" in reason) == (contribution.points > 0)
            note = attribute.metadata.features[contribution.feature]
            if contribution.value is None:
                assert "no answer" in reason
            elif note.reason_more in reason:
                assert contribution.value > note.median
                assert note.direction * contribution.points >= 0
            elif note.reason_less in reason:
                assert contribution.value < note.median
                assert note.direction * contribution.points <= 0
            else:
                assert f"{contribution.value:g}" in reason


def test_wording_against_the_direction_is_replaced(attribute):
    """A value above the median that lowered the score is told by its value, not as 'more'."""
    usual, odd, gap, none = (
        Contribution("answer_0", "Answer 0.", 0.9, 0.5),
        Contribution("answer_0", "Answer 0.", 0.9, -0.05),
        Contribution("answer_0", "Answer 0.", None, -0.2),
        Contribution("answer_0", "Answer 0.", 0.9, 0.0),
    )
    assert reasons(attribute, [usual]) == ["Much higher (+0.5 points) because answer 0 is more."]
    assert reasons(attribute, [odd]) == ["Slightly lower (-0.1 points) because of the value 0.9 for “Answer 0”."]
    assert reasons(attribute, [gap]) == ["Clearly lower (-0.2 points) because there is no answer for “Answer 0”."]
    assert reasons(attribute, [none]) == []
    assert len(reasons(attribute, [usual] * 9)) == 3


def test_missing_answer_that_matters_most_is_named(attribute):
    """The one with the largest share of gain, and whether it reaches the narrow interval."""
    shares = attribute.gain_shares
    assert explained(attribute).would_narrow_most is None
    found = explained(attribute, answer_1=None, answer_3=None)
    best = found.would_narrow_most
    assert best.feature == "answer_1"
    assert best.coverage_then == pytest.approx(1 - shares["answer_3"], abs=0.0001)
    assert found.coverage < 0.9 <= best.coverage_then
    assert best.reaches_full_coverage
    assert (best.half_width80, best.half_width80_then, best.narrows_by) == (1.5, 1.0, 0.5)
    assert "from ± 1.5 to ± 1.0 points" in best.message


def test_answer_that_changes_no_width_is_said_to_change_none(attribute):
    """Honest where the interval stays: only coverage rises."""
    best = explained(attribute, answer_3=None).would_narrow_most
    assert (best.narrows_by, best.reaches_full_coverage) == (0.0, False)
    assert "stay as wide" in best.message


def test_too_little_is_explained_by_what_is_needed(attribute):
    """No score, no contributions, but the way to one."""
    found = explain(attribute, attribute.decoder.check({"features": {"answer_3": 0.5}}))
    assert isinstance(found, Unexplained)
    wire = msgspec.json.decode(msgspec.json.encode(found))
    assert wire["status"] == "insufficient_data"
    assert not {"score", "raw", "contributions", "reasons"} & set(wire)
    assert wire["would_narrow_most"]["feature"] == "answer_0"
    assert wire["would_narrow_most"]["half_width80"] is None
    nothing = explain(attribute, attribute.decoder.check({"features": {}}))
    assert nothing.coverage == 0.0


def test_probability_is_explained_in_log_odds(tmp_path):
    """Points add up to the log-odds, and the answer says so."""
    model = train(objective="binary")
    changes = {"score_range": [0.0, 1.0], "bands": {"low_below": 0.25, "high_from": 0.75}, "unit": "probability"}
    opened = open_attribute(load_bundle(write_bundle(tmp_path, model, **{**metadata(model), **changes})))
    found = explain(opened, opened.decoder.check({"features": dict.fromkeys(model.names, 0.9)}))
    total = math.fsum(c.points for c in found.contributions) + found.base_value
    assert found.points_of == "log_odds"
    assert 1 / (1 + math.exp(-total)) == pytest.approx(found.raw, abs=1e-12)
    assert all("points" not in reason for reason in found.reasons)


def test_contributions_that_do_not_add_up_are_not_shown(attribute, monkeypatch):
    """Should the library ever disagree with itself, no reason is better than a wrong one."""
    monkeypatch.setattr(explanations.math, "fsum", lambda points: sum(points) + 1e-6)
    with pytest.raises(AppError) as caught:
        explained(attribute)
    assert caught.value.code == "internal_error"
