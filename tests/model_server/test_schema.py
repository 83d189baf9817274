"""The schema of a record follows from the model; metadata explains and may only tighten it."""

import pytest
import tomli_w

from model_server.attribute import open_attribute
from model_server.bundles import load_bundle
from model_server.fields import Feature
from model_server.metadata import read_metadata
from model_server.model_text import check_model_text
from model_server.schema import example, json_schema, record_features
from tests.model_server.bundle_files import SHIPPED, metadata, train, write_bundle

MODEL = train()


def opened(tmp_path, model=MODEL, **changes):
    return open_attribute(load_bundle(write_bundle(tmp_path, model, **changes)))


def changed(model=MODEL, **change):
    features = metadata(model)["features"]
    features["answer_0"] = {**features["answer_0"], **change}
    return {"features": features}


def test_feature_is_required_where_the_model_never_learned_missing(tmp_path):
    """Trained without gaps from 10 to 20: a gap would be read as 0, so it is not accepted."""
    model = train(missing=0.0, low=10, high=20)
    wide = {name: {"min": 0.0, "max": 100.0} for name in model.names}
    attribute = opened(tmp_path, model, features=wide, score_range=[0.0, 1000.0])
    assert all(feature.required for feature in attribute.features)
    features = attribute.json_schema()["properties"]["features"]
    assert features["required"] == list(model.names)
    assert features["properties"]["answer_0"]["type"] == "number"
    assert features["properties"]["answer_0"]["trainingRange"][0] >= 10


def test_metadata_may_tighten_but_never_loosen(tmp_path):
    """`required = true` is obeyed; `required = false` changes nothing where the model can't do without."""
    tight = opened(tmp_path / "a", **changed(required=True))
    assert [feature.required for feature in tight.features] == [True, False, False, False]
    model = train(missing=0.0)
    loose = opened(tmp_path / "b", model, **changed(model, required=False))
    assert loose.features[0].required


def test_schema_tells_title_unit_limits_and_null(tmp_path):
    """What the metadata knows is in the schema, under standard words where there are any."""
    schema = opened(tmp_path, **changed(unit="1-5 agreement", integer=True, min=0.0)).json_schema()
    assert schema["$schema"].endswith("2020-12/schema")
    assert schema["required"] == ["features"]
    first = schema["properties"]["features"]["properties"]["answer_0"]
    assert first["title"] == "Answer 0."
    assert first["type"] == ["integer", "null"]
    assert (first["minimum"], first["maximum"], first["unit"]) == (0.0, 2.0, "1-5 agreement")
    assert "whole number from 0 to 2" in first["description"]


def test_columns_keep_the_order_of_the_model(tmp_path):
    """The order of the TOML does not matter: values are placed by name."""
    features = dict(reversed(metadata(MODEL)["features"].items()))
    attribute = opened(tmp_path, features=features)
    assert tuple(feature.name for feature in attribute.features) == MODEL.names


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.parts[-3])
def test_example_of_every_shipped_attribute_is_accepted_without_a_warning(path):
    """Ready to send means: complete, in range, scored in full."""
    attribute = open_attribute(load_bundle(path.parent))
    record = attribute.decoder.check(attribute.example())
    assert record.missing == record.warnings == ()


def test_example_without_metadata_lies_in_the_training_range():
    """A bundle that brings no examples still gets one."""
    facts = check_model_text(MODEL.text)
    table = metadata(MODEL, features={name: {} for name in MODEL.names})
    found = read_metadata(tomli_w.dumps(table).encode())
    features = record_features(found, facts)
    assert all(feature == Feature(feature.name, seen=feature.seen) for feature in features)
    for feature, value in zip(features, example(found, features)["features"].values(), strict=True):
        assert feature.seen[0] <= value <= feature.seen[1]
    assert "minimum" not in json_schema(found, features)["properties"]["features"]["properties"]["answer_0"]
