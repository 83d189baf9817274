"""The nouns of training: a feature, an attribute's definition, and the rows to learn it from."""

from dataclasses import dataclass

from training.folds import Folds
from training.tables import Floats, Words


@dataclass(frozen=True, slots=True)
class Feature:
    """One input of a model, as its record schema and its explanations will show it.

    `low` and `high` are the hard range in `unit`; `source` is the column in the data it came from.
    `reason_more` and `reason_less` end the sentence "higher (lower) because ..." for a value above (below) the median.
    """

    name: str
    label: str
    unit: str
    low: float
    high: float
    integer: bool
    example: float
    reason_more: str
    reason_less: str
    source: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the trees are grown. `masks` are the shares hidden in the extra copies of the training rows."""

    n_trees: int
    n_leaves: int
    min_rows_per_leaf: int
    masks: tuple[float, ...] = (0.25, 0.5)


@dataclass(frozen=True, slots=True)
class Attribute:
    """What one model claims: its name, what was measured, on whom, under which terms, and what it is not."""

    id: str
    title: str
    pack: str
    target: str
    scale: str
    unit: str
    score_range: tuple[float, float]
    sample: str
    exclusions: str
    data_licence: str
    files: tuple[str, ...]
    meaning: str
    is_not: tuple[str, ...]
    inputs: str
    recipe: Recipe


@dataclass(frozen=True, slots=True)
class Problem:
    """One attribute ready to be fitted.

    `X` has shape (n, len(features)) with NaN where a value is missing; `y` has shape (n,) in the attribute's unit.
    `directions` holds +1, -1 or 0 for each feature: the sign the model is held to.
    `groups` maps a grouping ("sex") to a label per row ("" = unknown). They are for the audit and never inputs.
    """

    attribute: Attribute
    features: tuple[Feature, ...]
    X: Floats
    y: Floats
    folds: Folds
    directions: tuple[int, ...]
    groups: dict[str, Words]
    reliability: float | None
    choice: str
