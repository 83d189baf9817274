"""A bundle serves only if every byte is what its metadata says; a bad one never keeps the others from loading."""

import json

import pytest

from model_server.bundles import BundleError, Refusal, load_all, load_bundle, versions
from tests.model_server.bundle_files import SHIPPED, golden, metadata, train, write_bundle

MODEL = train()


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.parts[-3])
def test_every_shipped_bundle_loads(path):
    """Hashes, metadata and model of each shipped version agree."""
    bundle = load_bundle(path.parent)
    assert bundle.metadata.id == path.parts[-3]
    assert len(bundle.golden) >= 10
    assert bundle.card
    assert sum(bundle.gain_shares) == pytest.approx(1.0)


def test_bundle_holds_the_very_bytes_that_were_hashed(tmp_path):
    """What is checked is what the engine gets: no second read of the file."""
    folder = write_bundle(tmp_path, MODEL)
    bundle = load_bundle(folder)
    (folder / "model.txt").write_bytes(b"changed later")
    assert bundle.model_text == MODEL.text


@pytest.mark.parametrize("name", ["model.txt", "golden.jsonl", "card.md"])
def test_one_flipped_byte_is_refused(tmp_path, name):
    """Each hashed file counts, the model before anything looks into it."""
    folder = write_bundle(tmp_path, MODEL)
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"{name}: SHA-256"):
        load_bundle(folder)


@pytest.mark.parametrize("name", ["model.txt", "attribute.toml", "golden.jsonl", "card.md"])
def test_missing_file_is_refused(tmp_path, name):
    """The reason names the file."""
    folder = write_bundle(tmp_path, MODEL)
    (folder / name).unlink()
    with pytest.raises(BundleError, match=name):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"title": 5}, "title"),
        ({"title": None}, "title"),
        ({"interval": {"half_width_full": 1.0}}, "half_width_partial"),
        ({"features": {"answer_0": {"min": "low"}}}, "features.answer_0.min"),
        ({"features": {"answer_0": {}}}, "lacks"),
        ({"features": {**metadata(MODEL)["features"], "other": {}}}, "other"),
        ({"features": {**metadata(MODEL)["features"], "answer_0": {"gain": 0.01}}}, r"features.answer_0.gain"),
        ({"model": {"sha256": metadata(MODEL)["model"]["sha256"], "n_trees": 99}}, "n_trees"),
        ({"model": {"sha256": metadata(MODEL)["model"]["sha256"], "objective": "binary"}}, "objective"),
        ({"model": {"sha256": "abc"}}, "sha256"),
        ({"model": {"sha256": "0" * 64}}, "model.txt: SHA-256"),
        ({"files": {"../../etc/passwd": "0" * 64}}, "files"),
    ],
)
def test_metadata_that_does_not_fit_is_refused_by_name(tmp_path, changes, reason):
    """The message names the file and the field."""
    with pytest.raises(BundleError, match=reason):
        load_bundle(write_bundle(tmp_path, MODEL, **changes))


def test_folder_and_metadata_must_agree(tmp_path):
    """A copied folder can't pass for another attribute or version."""
    folder = write_bundle(tmp_path, MODEL)
    folder.rename(tmp_path / "focus" / "2")
    with pytest.raises(BundleError, match="folders"):
        load_bundle(tmp_path / "focus" / "2")


def test_direction_against_the_model_is_refused(tmp_path):
    """A reason in words must not say the contrary of what the model is held to."""
    held = train(extra=(("monotone_constraints", (1, 0, 0, 0)),))
    features = metadata(held)["features"]
    load_bundle(write_bundle(tmp_path / "a", held))
    features["answer_0"]["direction"] = -1
    with pytest.raises(BundleError, match="reverse"):
        load_bundle(write_bundle(tmp_path / "b", held, features=features))


@pytest.mark.parametrize("content", [b"", b"{}\n" * 10, b"not json\n" * 10, b'{"features":{"x":1},"raw":1}\n' * 10])
def test_golden_rows_must_be_there_and_fit(tmp_path, content):
    """Ten rows of this model's features; what they score is checked when the attribute is opened."""
    folder = write_bundle(tmp_path, MODEL, contents={"golden.jsonl": content})
    with pytest.raises(BundleError, match=r"golden.jsonl"):
        load_bundle(folder)


def test_newest_valid_version_serves_and_bad_ones_are_named(tmp_path):
    """10 is newer than 9; a broken 11 leaves 10 serving; a broken attribute leaves the others."""
    for version in ("9", "10", "11"):
        write_bundle(tmp_path, MODEL, version=version)
    (tmp_path / "focus" / "11" / "model.txt").write_bytes(MODEL.text[:-100])
    write_bundle(tmp_path, MODEL, attribute_id="calm", text=b"\x80\x04pickle")
    write_bundle(tmp_path, MODEL, attribute_id="trust")
    loaded = load_all(tmp_path, lambda bundle: bundle.metadata.version)
    assert loaded.opened == {"focus": "10", "trust": "1"}
    assert [(refusal.id, refusal.version) for refusal in loaded.refused] == [("calm", "1"), ("focus", "11")]
    assert all("SHA-256" in refusal.reason for refusal in loaded.refused)


def test_opening_may_refuse_too(tmp_path):
    """What the engine refuses falls back to the older version as well."""
    for version in ("1", "1.2"):
        write_bundle(tmp_path, MODEL, version=version)

    def picky(bundle):
        if bundle.metadata.version == "1.2":
            raise BundleError("model.txt: no")
        return "opened"

    loaded = load_all(tmp_path, picky)
    assert loaded.opened == {"focus": "opened"}
    assert loaded.refused == (Refusal("focus", "1.2", "model.txt: no"),)


def test_other_names_in_the_folder_are_passed_over(tmp_path):
    """Half-written folders, notes and hidden files are nobody's attribute."""
    write_bundle(tmp_path, MODEL)
    for name in (".gitkeep", "README.md"):
        (tmp_path / name).write_text("x")
    for name in (".focus.tmp", "Upper", "focus/1.tmp", "focus/latest", "empty"):
        (tmp_path / name).mkdir()
    assert [path.name for path in versions(tmp_path)["focus"]] == ["1"]
    assert list(versions(tmp_path)) == ["focus"]
    assert load_all(tmp_path / "nowhere", lambda bundle: bundle).opened == {}


def test_gain_shares_come_from_the_model_where_metadata_has_none(tmp_path):
    """Declared shares are used where all are there, else those of the model text."""
    bundle = load_bundle(write_bundle(tmp_path / "a", MODEL))
    assert bundle.gain_shares == bundle.facts.gain_shares
    features = metadata(MODEL)["features"]
    for name, share in zip(MODEL.names, bundle.facts.gain_shares, strict=True):
        features[name]["gain"] = round(share, 3)
    declared = load_bundle(write_bundle(tmp_path / "b", MODEL, features=features)).gain_shares
    assert declared == pytest.approx(bundle.facts.gain_shares, abs=1e-3)
    assert sum(declared) == pytest.approx(1.0, abs=1e-12)


def test_golden_rows_are_read_as_written(tmp_path):
    """Null stays a missing value and `raw` keeps every bit."""
    bundle = load_bundle(write_bundle(tmp_path, MODEL))
    lines = [json.loads(line) for line in golden(MODEL).splitlines()]
    assert [row.raw for row in bundle.golden] == [line["raw"] for line in lines]
    assert set(bundle.golden[-1].features.values()) == {None}
