"""An attribute opens only if the engine scores its golden rows as the trainer did."""

import json

import pytest

from model_server.attribute import open_all, open_attribute
from model_server.bundles import BundleError, load_bundle
from tests.model_server.bundle_files import SHIPPED, golden, train, write_bundle

MODEL = train()


@pytest.mark.skipif(len(SHIPPED) < 10, reason="models not trained yet")
def test_all_shipped_attributes_open():
    """Ten attributes, none refused, each with its own identity."""
    loaded = open_all(SHIPPED[0].parents[2])
    assert loaded.refused == ()
    assert len(loaded.opened) >= 10
    for name, attribute in loaded.opened.items():
        assert attribute.id == name
        assert attribute.model_ref.sha256 == attribute.metadata.model.sha256
        assert sum(attribute.gain_shares.values()) == pytest.approx(1.0)


def test_opened_attribute_is_complete(tmp_path):
    """Everything an endpoint shows is there."""
    attribute = open_attribute(load_bundle(write_bundle(tmp_path, MODEL)))
    assert (attribute.id, attribute.title, attribute.version) == ("focus", "Focus", "1")
    assert attribute.card == "# A card\n"
    assert attribute.decoder.known == set(MODEL.names)
    assert not attribute.is_probability


def test_golden_row_that_scores_otherwise_is_refused(tmp_path):
    """A model that says something else than it did for the trainer does not serve."""
    lines = golden(MODEL).splitlines()
    row = json.loads(lines[4])
    row["raw"] += 1e-6
    lines[4] = json.dumps(row).encode()
    folder = write_bundle(tmp_path, MODEL, contents={"golden.jsonl": b"\n".join(lines)})
    with pytest.raises(BundleError, match=r"golden.jsonl: row 5"):
        open_attribute(load_bundle(folder))


def test_refused_attribute_leaves_its_older_version(tmp_path):
    """The fall-back covers what only the engine can find."""
    write_bundle(tmp_path, MODEL, version="1")
    wrong = golden(MODEL).replace(b'"raw": ', b'"raw": 9')
    write_bundle(tmp_path, MODEL, version="2", contents={"golden.jsonl": wrong})
    loaded = open_all(tmp_path)
    assert loaded.opened["focus"].version == "1"
    assert [refusal.version for refusal in loaded.refused] == ["2"]


def test_bundle_without_golden_rows_opens(tmp_path):
    """They are optional for models people bring."""
    assert open_attribute(load_bundle(write_bundle(tmp_path, MODEL, files=None))).model.n_features == 4
