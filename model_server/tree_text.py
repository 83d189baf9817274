"""The trees of a LightGBM model text: the grammar of their lines and the soundness of their shapes.

The check works on whole columns (all `leaf_value` lines of all trees at once) and walks each distinct tree shape
only once, because a server holds ten such models and must be ready within 0.6 s of its start: 4 to 6 ms for 250 KB
here, where going tree by tree took 25 ms.
"""

import re
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, TypeVar

import msgspec

MAX_LEAVES = 1_024
MAX_DEPTH = 64  # the library walks paths recursively for explanations
MAX_LEAF_VALUE = 1e9  # 1e308 is finite too, but no attribute needs it and sums of it are not finite

_TREE_LINES = (
    b"Tree=", b"num_leaves=", b"num_cat=", b"split_feature=", b"split_gain=", b"threshold=", b"decision_type=",
    b"left_child=", b"right_child=", b"leaf_value=", b"leaf_weight=", b"leaf_count=", b"internal_value=",
    b"internal_weight=", b"internal_count=", b"is_linear=", b"shrinkage=", b"", b"",
)  # fmt: skip
# No comma, bracket, quote or tab: what `_as_json` puts between numbers can't already be there.
_TREE_BYTES = b"abcdefghijklmnopqrstuvwxyzT0123456789_=.+- \n"
_INFINITE = re.compile(rb"(?<![^ ])-?inf(?![^ ])")  # as a threshold: the split "present or missing"
_INTEGERS = msgspec.json.Decoder(list[list[Annotated[int, msgspec.Meta(ge=-(2**31), lt=2**31)]]])
_FLOATS = msgspec.json.Decoder(list[list[float]])
_N = TypeVar("_N")
_STRIDE = len(_TREE_LINES)


class ModelTextError(ValueError):
    """The text is not one that may reach the native library; the message says what is wrong, without its bytes."""


@dataclass(frozen=True, slots=True)
class Splits:
    """All splits of all trees, one entry a split: the feature's index, its decision type, its gain."""

    features: list[int]
    decisions: list[int]
    gains: list[float]
    max_depth: int


def read_trees(body: bytes, n_trees: int, n_features: int) -> Splits:
    """Check the trees line by line and return their splits; `ModelTextError` where anything is out of order."""
    if body.translate(None, _TREE_BYTES):
        raise ModelTextError("a tree holds characters that LightGBM does not write")
    lines = body.split(b"\n")
    if len(lines) != n_trees * _STRIDE + 1 or lines[-1]:
        raise ModelTextError("a tree does not have the lines LightGBM writes (categorical, linear or altered trees)")
    rows = {name: _column(lines, index) for index, name in enumerate(_TREE_LINES)}
    if set(rows[b"num_cat="]) != {b"0"} or set(rows[b"is_linear="]) != {b"0"}:
        raise ModelTextError("categorical splits and linear trees are not supported")
    n_leaves = _check_lengths(integers(rows[b"num_leaves="], "num_leaves"), [1] * n_trees, "num_leaves")
    if min(n_leaves) < 2 or max(n_leaves) > MAX_LEAVES:
        raise ModelTextError(f"trees must have 2 to {MAX_LEAVES} leaves")
    n_splits = [n - 1 for n in n_leaves]
    floats(rows[b"shrinkage="], [1] * n_trees, "shrinkage")
    for name in (b"leaf_weight=", b"leaf_value="):
        leaves = floats(rows[name], n_leaves, name.decode()[:-1])
    if max(leaves) > MAX_LEAF_VALUE or min(leaves) < -MAX_LEAF_VALUE:
        raise ModelTextError(f"a leaf_value is beyond {MAX_LEAF_VALUE:g}")
    for name in (b"internal_value=", b"internal_weight="):
        floats(rows[name], n_splits, name.decode()[:-1])
    thresholds = [_INFINITE.sub(b"0", row) if b"inf" in row else row for row in rows[b"threshold="]]
    floats(thresholds, n_splits, "threshold")
    max_depth = _check_shapes(rows, n_leaves)
    gains = floats(rows[b"split_gain="], n_splits, "split_gain")
    features, decisions = (
        _check_lengths(integers(rows[name], name.decode()[:-1]), n_splits, name.decode()[:-1])
        for name in (b"split_feature=", b"decision_type=")
    )
    if min(features) < 0 or max(features) >= n_features:
        raise ModelTextError("split_feature is out of range")
    if not set(decisions) <= {0, 2, 4, 6, 8, 10}:
        raise ModelTextError("decision_type is not that of a numeric split")
    return Splits(features, decisions, gains, max_depth)


def _column(lines: list[bytes], index: int) -> list[bytes]:
    """Return one line of every tree without its name; all must carry that name and no tree may lack it."""
    name = _TREE_LINES[index]
    column = lines[index:-1:_STRIDE]
    if not name:
        if any(column):
            raise ModelTextError("trees are not separated as LightGBM separates them")
        return []
    values = (b"\n" + b"\n".join(column)).split(b"\n" + name)
    if values[0] or len(values) != len(column) + 1:
        raise ModelTextError(f"a tree lacks its {name.decode()} line")
    return values[1:]


def _check_shapes(rows: dict[bytes, list[bytes]], n_leaves: list[int]) -> int:
    """Walk each distinct shape once; check in every tree that a node's count is the sum of its children's.

    TreeSHAP divides by these counts: a stripped or altered one gives contributions that do not add up.
    """
    leaf_counts = integers(rows[b"leaf_count="], "leaf_count")
    node_counts = integers(rows[b"internal_count="], "internal_count")
    lefts, rights = rows[b"left_child="], rows[b"right_child="]
    shapes: dict[tuple[int, bytes, bytes], list[tuple[int, int]]] = {}
    deepest = 0
    for n, left, right, leaves, nodes in zip(n_leaves, lefts, rights, leaf_counts, node_counts, strict=True):
        children = shapes.get((n, left, right))
        if children is None:
            lefts_rights = integers([left, right], "left_child or right_child")
            deepest = max(deepest, _walk(lefts_rights[0], lefts_rights[1], n))
            shapes[n, left, right] = children = list(zip(*lefts_rights, strict=True))
        if len(leaves) != n or len(nodes) != n - 1 or min(leaves) < 1:
            raise ModelTextError("leaf_count or internal_count is missing, too short or not positive")
        # Child c >= 0 is a node, c < 0 the leaf -c-1: leaves in reverse behind the nodes make both one index.
        counts = nodes + leaves[::-1]
        if nodes != [counts[a] + counts[b] for a, b in children]:
            raise ModelTextError("internal_count is not the sum of its children: explanations would not add up")
    return deepest


def _walk(left: list[int], right: list[int], n_leaves: int) -> int:
    """Return the depth of a tree in which every node and leaf is reached exactly once from node 0."""
    n_nodes = n_leaves - 1
    if len(left) != n_nodes or len(right) != n_nodes:
        raise ModelTextError("left_child and right_child do not have num_leaves - 1 entries")
    if sorted(left + right) != [*range(-n_leaves, 0), *range(1, n_nodes)]:
        raise ModelTextError("a child index is out of range, or a node or leaf is not reached exactly once")
    level, depth, n_reached = [0], 0, 0
    while level:
        n_reached += len(level)
        depth += 1
        level = [child for node in level for child in (left[node], right[node]) if child >= 0]
    # Each index is a child once, so a cycle can only lie apart from the root: then nodes stay unreached.
    if n_reached != n_nodes:
        raise ModelTextError("a tree holds a cycle")
    if depth > MAX_DEPTH:
        raise ModelTextError(f"a tree is deeper than {MAX_DEPTH} levels")
    return depth


def _check_lengths(numbers: list[list[_N]], expected: list[int], name: str) -> list[_N]:
    """Return the numbers of all trees in one list; each tree must have its own number of them."""
    if list(map(len, numbers)) != expected:
        raise ModelTextError(f"{name} does not have as many entries as its tree needs")
    return list(chain.from_iterable(numbers))


def _as_json(column: list[bytes]) -> bytes:
    """Return the lines as a JSON array of arrays: its parser is the fastest at hand, and its grammar the strictest.

    It knows no NaN, no infinity, no empty entry, no sign or point without digits, no number beyond float64.
    """
    return b"[[" + b"],[".join(column).replace(b" ", b",") + b"]]"


def integers(column: list[bytes], name: str) -> list[list[int]]:
    """Return the integers of each line, all within 32 bits; `ModelTextError` where there is anything else."""
    try:
        return _INTEGERS.decode(_as_json(column))
    except msgspec.DecodeError:
        raise ModelTextError(f"{name} holds something that is not an integer") from None


def floats(column: list[bytes], expected: list[int], name: str) -> list[float]:
    """Return the finite numbers of all lines in one list; each line must have its `expected` number of them."""
    try:
        return _check_lengths(_FLOATS.decode(_as_json(column)), expected, name)
    except msgspec.DecodeError:
        raise ModelTextError(f"{name} holds something that is not a finite number") from None
