"""Structural check of a LightGBM model text, and the facts that the text alone tells.

LightGBM's own parser trusts its input: a cut or edited file kills the process, hangs it, or answers with
memory that is not the model's. So nothing reaches the library that is not, line for line, what LightGBM 4
itself writes for a one-output numeric tree ensemble. The grammar here and in `tree_text` is deliberately narrower
than what the library reads: a file in another layout is refused, never guessed at.
"""

import math
import re
from dataclasses import dataclass

from model_server.tree_text import ModelTextError, Splits, floats, integers, read_trees

MAX_BYTES = 16 * 1024 * 1024
MAX_TREES = 5_000
MAX_FEATURES = 256

IDENTITY_OBJECTIVES = frozenset({"regression", "regression_l1", "huber", "fair", "quantile", "mape"})

_MISSING_NAN = 2  # decision_type bits 2-3: 0 never seen, 1 zero is missing, 2 NaN is missing
_HEADER = re.compile(
    rb"tree\nversion=v4\nnum_class=(\d{1,6})\nnum_tree_per_iteration=(\d{1,6})\nlabel_index=\d{1,6}\n"
    rb"max_feature_idx=(\d{1,6})\nobjective=([ -~]{1,64})\n(average_output\n)?feature_names=([ -~]+)\n"
    rb"(?:monotone_constraints=([ 01-]+)\n)?feature_infos=([ -~]+)\ntree_sizes=([ 0-9]+)\n\n",
)
_TAIL = re.compile(
    rb"end of trees\n\nfeature_importances:\n(?:[!-<>-~]{1,64}=[0-9.e+-]{1,32}\n)*"
    rb"\nparameters:\n(?:\[[a-z0-9_]{1,64}: [ -~]*\]\n)*\nend of parameters\n\npandas_categorical:(?:null|\[\])\n",
)
_PARAMETERS = {
    b"linear_tree": b"0",
    b"num_machines": b"1",
    b"machines": b"",
    b"machine_list_filename": b"",
    b"device_type": b"cpu",
    b"forcedsplits_filename": b"",
    b"parser_config_file": b"",
}
_FEATURE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,63}")
_SEEN_RANGE = re.compile(r"\[(-?[0-9][0-9.e+-]{0,31}):(-?[0-9][0-9.e+-]{0,31})\]")


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a checked model text says about itself. Tuples run in column order.

    `seen_ranges` are the values of training (None: constant or unused). `learned_missing` is False where some
    split would silently read a missing value as 0. `gain_shares` sum to 1. `monotone` is +1, -1 or 0.
    """

    n_trees: int
    max_depth: int
    objective: str
    feature_names: tuple[str, ...]
    seen_ranges: tuple[tuple[float, float] | None, ...]
    used: tuple[bool, ...]
    learned_missing: tuple[bool, ...]
    gain_shares: tuple[float, ...]
    monotone: tuple[int, ...]

    @property
    def is_probability(self) -> bool:
        """True where the answer is a probability and contributions are in log-odds."""
        return self.objective == "binary"


@dataclass(frozen=True, slots=True)
class _Header:
    objective: str
    names: tuple[str, ...]
    monotone: tuple[int, ...]
    seen_ranges: tuple[tuple[float, float] | None, ...]
    tree_sizes: list[int]
    end: int


def check_model_text(text: bytes) -> ModelFacts:
    """Return the facts of a LightGBM v4 model text, or raise `ModelTextError`; the library is not involved."""
    if len(text) > MAX_BYTES:
        raise ModelTextError(f"larger than {MAX_BYTES} bytes")
    if not text.startswith(b"tree\n"):
        raise ModelTextError("not a LightGBM model text (pickle, archive and other formats are refused)")
    if not text.isascii() or b"\0" in text or b"\r" in text:
        raise ModelTextError("holds bytes other than plain ASCII lines")
    header = _read_header(text)
    end = header.end + sum(header.tree_sizes)
    _check_offsets(text, header)
    if _TAIL.fullmatch(text, end) is None:
        raise ModelTextError("cut short or altered after the last tree")
    _check_parameters(text, end)
    n_trees = len(header.tree_sizes)
    return _facts(header, n_trees, read_trees(text[header.end : end], n_trees, len(header.names)))


def _read_header(text: bytes) -> _Header:
    match = _HEADER.match(text)
    if match is None:
        raise ModelTextError("header is not that of a LightGBM v4 model, or is cut short")
    n_class, per_iteration, last_feature, raw_objective, average, names, monotone, infos, sizes = match.groups()
    if int(n_class) != 1 or int(per_iteration) != 1:
        raise ModelTextError("more than one class or output")
    if average is not None:
        raise ModelTextError("random forest (average_output) is not supported")
    feature_names = _feature_names(names.decode("ascii").split(" "))
    if len(feature_names) != int(last_feature) + 1:
        raise ModelTextError("max_feature_idx and feature_names disagree")
    return _Header(
        _objective(raw_objective.decode("ascii")),
        feature_names,
        _monotone(monotone, len(feature_names)),
        _seen_ranges(infos.decode("ascii").split(" "), len(feature_names)),
        _tree_sizes(sizes),
        match.end(),
    )


def _feature_names(names: list[str]) -> tuple[str, ...]:
    if len(names) > MAX_FEATURES:
        raise ModelTextError(f"more than {MAX_FEATURES} features")
    if len(set(names)) != len(names):
        raise ModelTextError("feature names are not unique")
    if not all(map(_FEATURE_NAME.fullmatch, names)):
        raise ModelTextError("feature names must be 1-64 letters, digits or _.:- and start with a letter or _")
    return tuple(names)


def _objective(raw: str) -> str:
    if raw in IDENTITY_OBJECTIVES:
        return raw
    if raw == "binary sigmoid:1":  # with another slope contributions would not add up to the log-odds
        return "binary"
    raise ModelTextError("objective is neither of the regression family nor binary with sigmoid 1")


def _monotone(raw: bytes | None, n_features: int) -> tuple[int, ...]:
    if raw is None:
        return (0,) * n_features
    signs = raw.split(b" ")
    if len(signs) != n_features or not set(signs) <= {b"0", b"1", b"-1"}:
        raise ModelTextError("monotone_constraints do not fit the features")
    return tuple(map(int, signs))


def _seen_ranges(infos: list[str], n_features: int) -> tuple[tuple[float, float] | None, ...]:
    if len(infos) != n_features:
        raise ModelTextError("feature_infos and feature_names disagree")
    ranges: list[tuple[float, float] | None] = []
    for info in infos:
        match = _SEEN_RANGE.fullmatch(info)
        if match is None and info != "none":
            raise ModelTextError("categorical features are not supported: encode them as numbers before training")
        ranges.append(None if match is None else (_number(match[1]), _number(match[2])))
    if any(seen is not None and seen[0] > seen[1] for seen in ranges):
        raise ModelTextError("a feature's training range is upside down")
    return tuple(ranges)


def _tree_sizes(raw: bytes) -> list[int]:
    sizes = integers([raw], "tree_sizes")[0]
    if len(sizes) > MAX_TREES:
        raise ModelTextError(f"more than {MAX_TREES} trees")
    return sizes


def _check_offsets(text: bytes, header: _Header) -> None:
    """Every tree must start exactly where `tree_sizes` says: the library jumps there without looking."""
    offset = header.end
    for index, size in enumerate(header.tree_sizes):
        if not text.startswith(b"Tree=%d\n" % index, offset):
            raise ModelTextError("tree_sizes do not match where the trees are")
        offset += size


def _check_parameters(text: bytes, start: int) -> None:
    """The library reads the training parameters again: none may lead it to a network, a device or a file."""
    for name, harmless in _PARAMETERS.items():
        line = b"\n[" + name + b": "
        if text.count(line, start) != text.count(line + harmless + b"]\n", start):
            raise ModelTextError(f"parameter {name.decode()} is not {harmless.decode() or 'empty'}")


def _facts(header: _Header, n_trees: int, splits: Splits) -> ModelFacts:
    n_features = len(header.names)
    shares = [0.0] * n_features
    for feature, gain in zip(splits.features, splits.gains, strict=True):
        shares[feature] += max(gain, 0.0)
    total = math.fsum(shares)
    if not 0 < total < math.inf:
        raise ModelTextError("no split has any gain")
    used = set(splits.features)
    pairs = set(zip(splits.features, splits.decisions, strict=True))
    unsafe = {feature for feature, decision in pairs if decision >> 2 != _MISSING_NAN}
    return ModelFacts(
        n_trees,
        splits.max_depth,
        header.objective,
        header.names,
        header.seen_ranges,
        tuple(index in used for index in range(n_features)),
        tuple(index not in unsafe for index in range(n_features)),
        tuple(share / total for share in shares),
        header.monotone,
    )


def _number(raw: str) -> float:
    return floats([raw.encode("ascii")], [1], "the header")[0]
