"""Writes `card.md`: what a model is, what it is not, and how wrong it is. Plain words, no selling."""

import hashlib

from training import card_measures
from training.fit import LIGHTGBM_VERSION
from training.folds import SEED
from training.markdown import bullets, percent, section, table
from training.picture import UNITS
from training.problem import Problem
from training.recipes import NOT_FOR, REVIEW_BY
from training.report import Report
from training.tables import FOLDER

_LAW = (
    "It is not a ground for a decision about anybody: a score about a person is profiling (GDPR Art. 4(4) and 22), "
    "children need their parents' consent, and recruitment and education are high-risk uses in the EU AI Act. "
    "Ask a lawyer, not this card."
)
_CONTACT = "whoever runs this server; for the model itself, an issue in the project's repository"


def write(problem: Problem, report: Report, model_sha256: str) -> str:
    """The card's Markdown. `model_sha256` is the hex digest of `model.txt`."""
    parts = (
        _head(problem, report),
        _what_it_is_not(problem),
        card_measures.how_good(problem, report),
        card_measures.how_sure(problem, report),
        card_measures.by_group(problem, report),
        card_measures.missing(report),
        _inputs(problem, report),
        _origin(problem, model_sha256),
    )
    return "\n\n".join(parts) + "\n"


def _head(problem: Problem, report: Report) -> str:
    attribute = problem.attribute
    low, high = attribute.score_range
    unit, half = UNITS[attribute.unit], report.half_width_full
    return "\n\n".join(
        (
            f"# {attribute.title} (`{attribute.id}`)",
            f"**What was measured:** {attribute.scale}.",
            f"**What the number says:** {attribute.meaning}",
            (
                f"**Range:** {low:.0f} to {high:.0f} {unit}. Read the band (low, typical, high) rather than the "
                f"decimal: in one case of five the real figure is more than {half:.0f} {unit} away."
            ),
            "![Predicted against observed on held-out people](card.png)",
        )
    )


def _what_it_is_not(problem: Problem) -> str:
    *uses, last = (use.replace("_", " ") for use in NOT_FOR)
    forbidden = f"**Not for {', '.join(uses)} or {last}.**"
    return section("What it is not", bullets(forbidden, *problem.attribute.is_not, _LAW))


def _inputs(problem: Problem, report: Report) -> str:
    arrows = {1: "up", -1: "down", 0: "free"}
    rows: list[tuple[str, ...]] = [("feature", "what it is", "source", "gain", "direction")]
    for place in sorted(range(len(problem.features)), key=lambda place: -report.gains[place]):
        feature, arrow = problem.features[place], arrows[problem.directions[place]]
        rows.append((f"`{feature.name}`", feature.label, feature.source, percent(report.gains[place], 1), arrow))
    n_held = sum(sign != 0 for sign in problem.directions)
    return section(
        "Inputs",
        f"{problem.attribute.inputs}; {problem.choice}. {n_held} of {len(problem.features)} are monotone: when the "
        "value rises, the score can only move in the direction shown, or stay. Sex, age, origin, religion, health, "
        "platform and device are never inputs.",
        table(rows),
    )


def _origin(problem: Problem, model_sha256: str) -> str:
    attribute, recipe, folds = problem.attribute, problem.attribute.recipe, problem.folds
    masks = " and ".join(percent(share) for share in recipe.masks)
    people = (
        f"{attribute.sample}. They chose to take part; they are no sample of anybody else, and whether the model holds "
        "for your people is untested."
    )
    training = (
        f"LightGBM {LIGHTGBM_VERSION}, {recipe.n_trees} trees of {recipe.n_leaves} leaves, masked copies with {masks} "
        f"hidden, seed {SEED}, one thread; `python -m training {attribute.id}` repeats it byte for byte."
    )
    return section(
        "Where it comes from",
        bullets(
            f"**People:** {people}",
            f"**Left out:** {attribute.exclusions}.",
            f"**Rows:** {len(folds.train)} to train, {len(folds.calibrate)} to calibrate, {len(folds.test)} to test.",
            f"**Terms:** {attribute.data_licence}",
            f"**Training:** {training}",
            f"**Model:** `model.txt` sha256 `{model_sha256}`",
            *(f"**Data:** `{name}` sha256 `{_digest(name)}`" for name in attribute.files),
            f"**Contact:** {_CONTACT}.",
            f"**Expires:** {REVIEW_BY}. After that day, review the sample and train again before relying on it.",
        ),
    )


def _digest(file_name: str) -> str:
    return hashlib.sha256((FOLDER / file_name).read_bytes()).hexdigest()
