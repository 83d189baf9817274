"""The structural check passes what LightGBM wrote and nothing else."""

import math
import pickle
import re
import time

import pytest

from model_server.model_text import MAX_BYTES, check_model_text
from model_server.tree_text import ModelTextError
from tests.model_server.bundle_files import SHIPPED, repair_sizes, train

MODEL = train()


def is_refused(text: bytes) -> bool:
    try:
        check_model_text(text)
    except ModelTextError:
        return True
    return False


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.parts[-3])
def test_every_shipped_model_passes(path):
    """What `make models` writes is accepted, with shares that sum to 1 and no feature that can't be missing."""
    facts = check_model_text(path.read_bytes())
    assert math.isclose(sum(facts.gain_shares), 1.0)
    assert all(facts.learned_missing)


def test_facts_are_those_of_the_trained_model():
    """Names, importance, ranges and depth are read from the text alone."""
    facts = check_model_text(MODEL.text)
    gains = MODEL.booster.feature_importance("gain")
    assert facts.feature_names == MODEL.names
    assert facts.n_trees == MODEL.booster.num_trees()
    assert facts.objective == "regression"
    assert facts.gain_shares == pytest.approx(gains / gains.sum(), rel=1e-4)
    assert all(seen is not None and 0 <= seen[0] < seen[1] <= 1 for seen in facts.seen_ranges)
    assert 2 <= facts.max_depth <= 4


def test_feature_that_never_was_missing_is_seen_as_such():
    """Without missing values in training no split learns them, and the text shows it."""
    facts = check_model_text(train(missing=0.0, low=10, high=20).text)
    assert [learned for learned, used in zip(facts.learned_missing, facts.used, strict=True) if used] == [False] * 4


def test_unused_feature_may_be_missing_and_monotone_signs_are_read():
    """A constant feature has no range, no gain and no split that could misread it."""
    facts = check_model_text(train(extra=(("monotone_constraints", (1, 0, 0, 0)),)).text)
    assert facts.monotone == (1, 0, 0, 0)
    few = check_model_text(train(n_trees=1, n_leaves=2).text)
    assert few.used.count(True) == 1
    assert few.gain_shares.count(0.0) == 3


def test_binary_model_is_a_probability():
    """The one objective with a link is known as such."""
    assert check_model_text(train(objective="binary").text).is_probability


def test_infinite_threshold_is_accepted():
    """LightGBM writes `inf` where a split asks only whether a value is there."""
    text = re.sub(rb"threshold=\S+", b"threshold=inf", MODEL.text, count=1)
    assert check_model_text(repair_sizes(text)).feature_names == MODEL.names


def test_truncation_is_refused_at_every_point():
    """A half-copied file is refused wherever it was cut: the library would die at nearly all of these points."""
    text = MODEL.text
    ends = [index for index in range(len(text)) if text[index : index + 1] == b"\n"]
    points = {*range(0, 1_500, 7), *ends, *(end + 1 for end in ends if end + 1 < len(text)), len(text) - 1}
    assert [point for point in points if not is_refused(text[:point])] == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("pickle", pickle.dumps({"a": 1})),
        ("joblib", b"\x80\x05\x95numpy"),
        ("zip", b"PK\x03\x04"),
        ("empty", b""),
        ("XGBoost", b'{"learner":{}}'),
        ("NUL", MODEL.text.replace(b"shrinkage=0.2", b"shrinkage=0\0", 1)),
        ("not ASCII", MODEL.text.replace(b"[verbosity: -1]", b"[verbosity: \xe9]")),
        ("Windows lines", MODEL.text.replace(b"\n", b"\r\n")),
        ("too large", b"tree\n" + b" " * MAX_BYTES),
        ("something behind", MODEL.text + b"Tree=0\n"),
        ("older version", MODEL.text.replace(b"version=v4", b"version=v3")),
        ("two classes", MODEL.text.replace(b"num_class=1", b"num_class=2")),
        ("negative classes", MODEL.text.replace(b"num_class=1", b"num_class=-1")),
        ("no output", MODEL.text.replace(b"num_tree_per_iteration=1", b"num_tree_per_iteration=0")),
        ("link", MODEL.text.replace(b"objective=regression", b"objective=poisson")),
        ("square root link", MODEL.text.replace(b"objective=regression", b"objective=regression sqrt")),
        ("random forest", MODEL.text.replace(b"objective=regression", b"objective=regression\naverage_output")),
        ("duplicate names", MODEL.text.replace(b"answer_0 answer_1", b"answer_1 answer_1")),
        ("odd name", MODEL.text.replace(b"answer_0 ", b'an"swer ')),
        ("a name too few", MODEL.text.replace(b"feature_names=answer_0 ", b"feature_names=")),
        ("a range too few", MODEL.text.replace(b"feature_infos=[", b"feature_infos=none [", 1)),
        ("range upside down", MODEL.text.replace(b"feature_infos=[", b"feature_infos=[9", 1)),
        ("category codes", MODEL.text.replace(b"feature_infos=[0", b"feature_infos=1:2:3 [0", 1)),
        ("linear by parameter", MODEL.text.replace(b"[linear_tree: 0]", b"[linear_tree: 1]")),
        ("network by parameter", MODEL.text.replace(b"[machines: ]", b"[machines: 10.0.0.1:80]")),
        ("categories of pandas", MODEL.text.replace(b"pandas_categorical:null", b'pandas_categorical:[["a"]]')),
    ],
)
def test_other_content_is_refused(name, content):
    """Other formats, other kinds of models and harmful parameters do not pass."""
    with pytest.raises(ModelTextError):
        check_model_text(content)


def test_categorical_and_linear_models_are_refused_with_a_reason():
    """Both are valid for LightGBM; we say why they are not for us."""
    linear = train(missing=0.0, extra=(("linear_tree", True),)).text
    with pytest.raises(ModelTextError, match="linear"):
        check_model_text(linear)
    categorical = re.sub(rb"feature_infos=\S+", b"feature_infos=0:1:2", MODEL.text, count=1)
    with pytest.raises(ModelTextError, match="categorical"):
        check_model_text(categorical)


@pytest.mark.skipif(len(SHIPPED) < 10, reason="models not trained yet")
def test_ten_models_are_checked_fast_enough_to_start_in_time():
    """The check of ten shipped models stays far from the 0.6 s in which a server must be ready."""
    texts = [path.read_bytes() for path in SHIPPED]
    began = time.process_time()
    for text in texts:
        check_model_text(text)
    assert time.process_time() - began < 0.2
