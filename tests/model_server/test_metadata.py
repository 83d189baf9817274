"""attribute.toml is read strictly, and every problem is named by its field."""

import math

import pytest
import tomli_w

from model_server.metadata import MetadataError, read_metadata
from tests.model_server.bundle_files import SHIPPED, metadata, train

TABLE = metadata(train())


def read(**changes):
    return read_metadata(tomli_w.dumps({**TABLE, **changes}).encode())


def feature(**changes):
    return {"features": {**TABLE["features"], "answer_0": {**TABLE["features"]["answer_0"], **changes}}}


def test_complete_metadata_is_read():
    """Types and optional parts come out as declared; whole numbers may stand for floats."""
    found = read(score_range=[0, 100])
    assert found.score_range == (0.0, 100.0)
    assert found.features["answer_0"].direction == 1
    assert found.features["answer_0"].required is False
    assert found.not_for == ("hiring", "pay")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.parts[-3])
def test_shipped_metadata_names_what_the_model_is_not_for(path):
    """Each shipped attribute says what was measured, from which data, and its not-for list."""
    found = read_metadata((path.parent / "attribute.toml").read_bytes())
    assert "hiring" in found.not_for
    assert found.target
    assert found.data_licence


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"id": "Focus"}, "`id`"),
        ({"id": "../up"}, "`id`"),
        ({"id": "stats"}, "`id`"),
        ({"version": "1-beta"}, "`version`"),
        ({"score_range": [1.0, 1.0]}, "`score_range`"),
        ({"score_range": [0.0, math.inf]}, "`score_range`"),
        ({"score_range": [0.0]}, "`score_range`"),
        ({"interval": {"half_width_full": 0.0, "half_width_partial": 1.0}}, "half_width_full"),
        ({"interval": {"half_width_full": 2.0, "half_width_partial": 1.0}}, "half_width_partial"),
        ({"interval": {"level": 0.9, "half_width_full": 1.0, "half_width_partial": 1.0}}, "level"),
        ({"interval": {"half_width_full": math.nan, "half_width_partial": 1.0}}, "finite"),
        ({"bands": {"low_below": 7.0, "high_from": 6.0}}, "`bands`"),
        ({"reference": {"percentiles": [1.0] * 98}}, "reference.percentiles"),
        ({"reference": {"percentiles": [*([1.0] * 98), 0.0]}}, "reference.percentiles"),
        ({"colour": "red"}, "colour"),
        ({"files": {"model.pkl": "0" * 64}}, "`files`"),
        ({"files": {"card.md": "short"}}, "files.card.md"),
        ({"metrics": {"r2": "good"}}, "metrics.r2"),
        (feature(requird=True), "requird"),
        (feature(min="1"), "features.answer_0.min"),
        (feature(min=3.0), "features.answer_0"),
        (feature(max=math.inf), "features.answer_0"),
        (feature(example=9.0), "example"),
        (feature(gain=1.5), "gain"),
        (feature(direction=2), "features.answer_0.direction"),
        (feature(label=5), "features.answer_0.label"),
    ],
)
def test_wrong_field_is_named(changes, named):
    """No problem is only 'invalid': whoever wrote the file learns where to look."""
    with pytest.raises(MetadataError) as caught:
        read(**changes)
    assert named in str(caught.value)


def test_all_problems_of_meaning_are_told_at_once():
    """Two wrong values need one round, not two."""
    with pytest.raises(MetadataError, match=r"`id`.*`bands`"):
        read(id="NO", bands={"low_below": 2.0, "high_from": 1.0})


@pytest.mark.parametrize("raw", [b"id = ", b"\xff\xfe", b"a = 1\na = 2", b"[" * 5000, b""])
def test_what_is_not_toml_is_refused(raw):
    """Broken text is a MetadataError like any other problem."""
    with pytest.raises(MetadataError):
        read_metadata(raw)
