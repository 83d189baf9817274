"""A bundle is whole, says the truth about itself, and is put in place at once."""

import hashlib
import json
import tomllib
from pathlib import Path

import lightgbm as lgb
import numpy as np
import pytest

from training.bundle import Bundle, assemble, differences, publish
from training.fit import deaf_splits, fit
from training.index import current
from training.problem import Problem
from training.recipes import ATTRIBUTES, NOT_FOR
from training.report import measure
from training.tables import FOLDER

MODELS = FOLDER.parent.parent / "models"
IDS = [attribute.id for attribute in ATTRIBUTES]


def _metadata(attribute_id: str) -> dict:
    return tomllib.loads((MODELS / attribute_id / "1" / "attribute.toml").read_text("utf-8"))


@pytest.mark.parametrize("attribute_id", IDS)
def test_every_digest_in_the_metadata_is_that_of_its_file(attribute_id: str) -> None:
    """A file that was edited by hand no longer fits its bundle."""
    folder, metadata = MODELS / attribute_id / "1", _metadata(attribute_id)
    stated = {"model.txt": metadata["model"]["sha256"], **metadata["files"]}
    actual = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in stated}
    assert actual == stated
    assert {path.name for path in folder.iterdir()} == {*stated, "attribute.toml"}


@pytest.mark.parametrize("attribute_id", IDS)
def test_features_of_metadata_and_model_are_the_same_in_the_same_order(attribute_id: str) -> None:
    """A record is turned into a row by this order; a swap would give a wrong score without an error."""
    booster = lgb.Booster(model_file=str(MODELS / attribute_id / "1" / "model.txt"))
    features = _metadata(attribute_id)["features"]
    assert list(features) == booster.feature_name()
    assert sum(feature["gain"] for feature in features.values()) == pytest.approx(1.0, abs=1e-9)
    assert booster.num_trees() == _metadata(attribute_id)["model"]["n_trees"]


@pytest.mark.parametrize("attribute_id", IDS)
def test_golden_records_give_their_stated_raw_score_to_the_last_bit(attribute_id: str) -> None:
    """At least ten, one with nothing known, some with gaps."""
    folder = MODELS / attribute_id / "1"
    booster = lgb.Booster(model_file=str(folder / "model.txt"))
    records = [json.loads(line) for line in (folder / "golden.jsonl").read_text("utf-8").splitlines()]
    inputs = np.array(
        [[np.nan if r["features"][n] is None else r["features"][n] for n in booster.feature_name()] for r in records]
    )
    assert booster.predict(inputs, num_threads=1).tolist() == [record["raw"] for record in records]
    n_known = (~np.isnan(inputs)).sum(axis=1)
    assert len(records) >= 10
    assert n_known.min() == 0
    assert ((n_known > 0) & (n_known < inputs.shape[1])).sum() >= 3


@pytest.mark.parametrize("attribute_id", IDS)
def test_every_shipped_split_has_learned_missing_values(attribute_id: str) -> None:
    """So no shipped feature is required."""
    assert deaf_splits((MODELS / attribute_id / "1" / "model.txt").read_text("ascii")) == 0


@pytest.mark.parametrize("attribute_id", IDS)
def test_percentiles_and_bands_are_in_order(attribute_id: str) -> None:
    """99 rising numbers, the bands at the 25th and 75th."""
    metadata = _metadata(attribute_id)
    percentiles = metadata["reference"]["percentiles"]
    assert len(percentiles) == 99
    assert percentiles == sorted(percentiles)
    assert metadata["bands"]["low_below"] == pytest.approx(percentiles[24], abs=0.01)
    assert metadata["bands"]["high_from"] == pytest.approx(percentiles[74], abs=0.01)
    assert 0 < metadata["interval"]["half_width_full"] <= metadata["interval"]["half_width_partial"]


@pytest.mark.parametrize("attribute_id", IDS)
def test_every_card_says_what_the_model_is_not(attribute_id: str) -> None:
    """The minimum fields of a card, in words that a reader can find."""
    folder = MODELS / attribute_id / "1"
    card = (folder / "card.md").read_text("utf-8")
    wanted = (
        "What was measured",
        "What it is not",
        "Not for hiring, admission, pay, discipline, credit or matchmaking bans",
        "ridge regression",
        "always the mean",
        "right order",
        "80 % half-width",
        "mean residual",
        "missing at random",
        "monotone",
        "seed",
        "sha256",
        "**Left out:**",
        "**Terms:**",
        "**Contact:**",
        "**Expires:**",
    )
    assert [phrase for phrase in wanted if phrase not in card] == []
    assert (folder / "card.png").stat().st_size <= 60 * 1024
    assert _metadata(attribute_id)["not_for"] == list(NOT_FOR)


@pytest.mark.parametrize("attribute_id", IDS)
def test_every_shipped_model_beats_the_mean_clearly(attribute_id: str) -> None:
    """Below R² 0.05 a model is an experiment; a ridge lead over 0.05 would be too."""
    metrics = _metadata(attribute_id)["metrics"]
    assert metrics["r2"] > 0.2
    assert metrics["r2_ridge"] - metrics["r2"] < 0.05
    assert 0.75 <= metrics["coverage80"] <= 0.85


def test_the_index_page_says_what_the_bundles_say() -> None:
    """A figure in models/README.md is never older than the bundle beside it."""
    assert current(MODELS)


def test_publishing_puts_a_whole_folder_in_place_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    """First time, unchanged, changed: the folder always holds exactly the bundle."""
    first = Bundle("calm", "1", {"model.txt": b"one", "card.md": b"a card"})
    second = Bundle("calm", "1", {"model.txt": b"two"})
    assert publish(first, tmp_path)
    assert not publish(first, tmp_path)
    assert publish(second, tmp_path)
    assert {path.name for path in (tmp_path / "calm").iterdir()} == {"1"}
    assert {path.name: path.read_bytes() for path in (tmp_path / "calm" / "1").iterdir()} == second.files


def test_a_leftover_of_a_killed_run_does_no_harm(tmp_path: Path) -> None:
    """A half-written folder has a leading dot, is never the bundle, and is swept by the next run."""
    (tmp_path / "calm" / ".1.new").mkdir(parents=True)
    (tmp_path / "calm" / ".1.new" / "model.txt").write_bytes(b"hal")
    bundle = Bundle("calm", "1", {"model.txt": b"whole"})
    assert publish(bundle, tmp_path)
    assert [path.name for path in (tmp_path / "calm").iterdir()] == ["1"]


def test_a_changed_missing_or_extra_file_is_named(tmp_path: Path) -> None:
    """The check tells which file is not what training gives."""
    bundle = Bundle("calm", "1", {"model.txt": b"one", "card.md": b"a card"})
    assert differences(bundle, tmp_path) == ["card.md", "model.txt"]
    publish(bundle, tmp_path)
    (tmp_path / "calm" / "1" / "card.md").write_bytes(b"a better card")
    (tmp_path / "calm" / "1" / "notes.txt").write_bytes(b"")
    assert differences(bundle, tmp_path) == ["card.md", "notes.txt"]


def test_a_small_problem_becomes_a_complete_bundle(small_problem: Problem) -> None:
    """From made-up rows to five files, whose metadata parses and names its own digests."""
    text = fit(small_problem)
    bundle = assemble(small_problem, text, measure(small_problem, text))
    assert set(bundle.files) == {"model.txt", "attribute.toml", "golden.jsonl", "card.md", "card.png"}
    metadata = tomllib.loads(bundle.files["attribute.toml"].decode())
    assert metadata["model"]["sha256"] == hashlib.sha256(bundle.files["model.txt"]).hexdigest()
    assert bundle.files["card.png"].startswith(b"\x89PNG")
    assert b"Software" not in bundle.files["card.png"]
