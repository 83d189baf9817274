"""Damaged trees are refused before the library could follow a bad index."""

import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from model_server.model_text import check_model_text
from model_server.tree_text import MAX_DEPTH, ModelTextError
from tests.model_server.bundle_files import repair_sizes, train

TEXT = train(n_trees=4).text


def edit(name: str, change, tree: int = 1) -> bytes:
    """Change the values of one line of one tree; `change` gets and returns a list of words."""
    start = TEXT.index(b"Tree=%d\n" % tree)
    match = re.compile(rb"^" + name.encode() + rb"=(.*)$", re.MULTILINE).search(TEXT, start)
    words = change(match[1].decode().split(" "))
    return TEXT[: match.start(1)] + " ".join(words).encode() + TEXT[match.end(1) :]


def put(index: int, word: str):
    """Return a change that puts one word in place."""
    return lambda words: [*words[:index], word, *words[index + 1 :]]


MUTATIONS = {
    "split feature out of range": edit("split_feature", put(0, "4")),
    "split feature negative": edit("split_feature", put(0, "-1")),
    "split feature beyond 32 bits": edit("split_feature", put(0, "4294967296")),
    "split features too few": edit("split_feature", lambda words: words[1:]),
    "child beyond the nodes": edit("left_child", put(0, "99")),
    "child beyond the leaves": edit("right_child", put(0, "-99")),
    "node that points at itself": edit("left_child", put(1, "1")),
    "node that points at the root": edit("left_child", put(2, "0")),
    "leaf reached twice": edit("left_child", put(3, "-1")),
    "children too few": edit("right_child", lambda words: words[:-1]),
    "children too many": edit("right_child", lambda words: [*words, "-1"]),
    "leaf value NaN": edit("leaf_value", put(0, "nan")),
    "leaf value infinite": edit("leaf_value", put(0, "inf")),
    "leaf value huge": edit("leaf_value", put(0, "1e308")),
    "leaf value beyond float64": edit("leaf_value", put(0, "1e999")),
    "leaf value is a word": edit("leaf_value", put(0, "abc")),
    "leaf value in Python's spelling": edit("leaf_value", put(0, "1_0")),
    "leaf value empty": edit("leaf_value", put(0, "")),
    "leaf values joined by a comma": edit("leaf_value", lambda words: [",".join(words[:2]), *words[2:]]),
    "leaf values close the array": edit("leaf_value", put(0, "1],[1")),
    "leaf values too few": edit("leaf_value", lambda words: words[1:]),
    "leaves more than there are": edit("num_leaves", put(0, "6")),
    "leaves fewer than there are": edit("num_leaves", put(0, "4")),
    "leaves negative": edit("num_leaves", put(0, "-5")),
    "leaves beyond memory": edit("num_leaves", put(0, "2000000000")),
    "a single leaf": edit("num_leaves", put(0, "1")),
    "threshold NaN": edit("threshold", put(0, "nan")),
    "threshold nearly infinite": edit("threshold", put(0, "1inf")),
    "thresholds too few": edit("threshold", lambda words: words[1:]),
    "decision of a category": edit("decision_type", put(0, "9")),
    "decision unknown": edit("decision_type", put(0, "12")),
    "decision negative": edit("decision_type", put(0, "-2")),
    "categories announced": edit("num_cat", put(0, "1")),
    "linear announced": edit("is_linear", put(0, "1")),
    "leaf count zero": edit("leaf_count", put(0, "0")),
    "leaf counts stripped": edit("leaf_count", lambda _: [""]),
    "inner counts stripped": edit("internal_count", lambda _: [""]),
    "inner count is not the sum": edit("internal_count", put(0, "7")),
    "shrinkage missing": edit("shrinkage", lambda _: [""]),
    "line without its name": TEXT.replace(b"split_gain=", b"split_gain", 1),
    "line left out": re.sub(rb"\nthreshold=.*", b"", TEXT, count=1),
    "line twice": re.sub(rb"(\nleaf_value=.*)", rb"\1\1", TEXT, count=1),
    "two lines exchanged": re.sub(rb"\n(left_child=.*)\n(right_child=.*)", rb"\n\2\n\1", TEXT, count=1),
    "tree number wrong": TEXT.replace(b"\nTree=2\n", b"\nTree=3\n"),
    "tree left out": re.sub(rb"Tree=2\n.*?\n\n\n", b"", TEXT, count=1, flags=re.DOTALL),
}


@pytest.mark.parametrize("name", MUTATIONS)
@pytest.mark.parametrize("repaired", [False, True], ids=["raw", "sizes repaired"])
def test_damaged_tree_is_refused(name, repaired):
    """Each kind of damage is found by itself, also where `tree_sizes` was made to fit."""
    text = MUTATIONS[name]
    assert text != TEXT
    with pytest.raises(ModelTextError):
        check_model_text(repair_sizes(text) if repaired else text)


@pytest.mark.parametrize("size", [b"0", b"1", b"99999", b"2147483647", b"4294967296", b"-5", b"x", b""])
def test_wrong_tree_size_is_refused(size):
    """The library jumps to these offsets without looking."""
    sizes = re.search(rb"tree_sizes=(.*)", TEXT)[1].split(b" ")
    wrong = TEXT.replace(b" ".join(sizes), b" ".join([sizes[0], size, *sizes[2:]]), 1)
    with pytest.raises(ModelTextError):
        check_model_text(wrong)


def test_repairing_sizes_alone_changes_nothing():
    """The helper of these tests leaves a sound model as it is, so refusals above are for the damage."""
    assert repair_sizes(TEXT) == TEXT
    check_model_text(TEXT)


def test_tree_deeper_than_the_bound_is_refused():
    """A chain of nodes is a valid tree, but explanations recurse along it."""
    n = MAX_DEPTH + 2

    def chain(lines: dict[str, str]) -> str:
        return "".join(f"{name}={value}\n" for name, value in lines.items())

    counts = [str(n - index) for index in range(n - 1)]
    tree = "Tree=0\n" + chain(
        {
            "num_leaves": str(n),
            "num_cat": "0",
            "split_feature": " ".join(["0"] * (n - 1)),
            "split_gain": " ".join(["1"] * (n - 1)),
            "threshold": " ".join(["0.5"] * (n - 1)),
            "decision_type": " ".join(["10"] * (n - 1)),
            "left_child": " ".join(str(-1 - index) for index in range(n - 1)),
            "right_child": " ".join([*(str(index) for index in range(1, n - 1)), str(-n)]),
            "leaf_value": " ".join(["1"] * n),
            "leaf_weight": " ".join(["1"] * n),
            "leaf_count": " ".join(["1"] * n),
            "internal_value": " ".join(["1"] * (n - 1)),
            "internal_weight": " ".join(["1"] * (n - 1)),
            "internal_count": " ".join(counts),
            "is_linear": "0",
            "shrinkage": "1",
        }
    )
    one_tree = train(n_trees=1).text
    body = one_tree.index(b"Tree=0"), one_tree.index(b"end of trees")
    text = repair_sizes(one_tree[: body[0]] + tree.encode() + b"\n\n" + one_tree[body[1] :])
    with pytest.raises(ModelTextError, match="deeper"):
        check_model_text(text)


CHILD = """
import math, sys
from model_server.engine import EngineError, Model
for line in sys.stdin.buffer:
    n_features, length = map(int, line.split())
    text = sys.stdin.buffer.read(length)
    try:
        model = Model(text, n_features)
    except EngineError:
        continue
    for row in ((0.5,) * n_features, (math.nan,) * n_features, (-1e300,) * n_features):
        model.predict_one(row), model.predict_many([row]), model.contributions(row)
print("alive")
"""
WORDS = ["-1", "0", "1", "-5", "4", "99999999", "-2147483648", "4294967296", "nan", "inf", "1e308", "1e-320", "", "1_0"]


def damaged(rng: random.Random) -> bytes:
    """One to three random edits: a number, a byte, two lines exchanged, a line twice."""
    text = TEXT
    for _ in range(rng.choice([1, 1, 2, 3])):
        kind = rng.random()
        if kind < 0.6:
            number = rng.choice(list(re.finditer(rb"(?<=[= ])-?[0-9.e+-]+(?=[ \n])", text)))
            text = text[: number.start()] + rng.choice(WORDS).encode() + text[number.end() :]
        elif kind < 0.8:
            place = rng.randrange(len(text))
            text = text[:place] + bytes([rng.choice(b"0123456789-. \n=eT[],")]) + text[place + 1 :]
        else:
            lines = text.split(b"\n")
            one, other = rng.randrange(len(lines)), rng.randrange(len(lines))
            lines[one], lines[other] = lines[other], lines[one] if kind < 0.9 else lines[other]
            text = b"\n".join(lines)
    return repair_sizes(text) if text.count(b"end of trees") and text.count(b"\n\n") and rng.random() < 0.7 else text


def test_nothing_that_passes_kills_the_library():
    """Random damage: what the check lets through is loaded, scored and explained in a child that must survive."""
    rng, passed = random.Random(2026), []
    for _ in range(1_500):
        text = damaged(rng)
        try:
            passed.append((check_model_text(text), text))
        except ModelTextError:
            continue
    assert len(passed) > 50
    feed = b"".join(b"%d %d\n%s" % (len(facts.feature_names), len(text), text) for facts, text in passed)
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", CHILD], input=feed, cwd=root, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"alive\n")
