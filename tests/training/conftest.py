"""A made-up sample that is fitted in a moment."""

from dataclasses import replace

import numpy as np
import pytest

from training.folds import split, uniforms
from training.problem import Feature, Problem, Recipe
from training.recipes import GRIT


@pytest.fixture(scope="session")
def small_problem() -> Problem:
    """400 made-up people with four answers; the first pushes up, the second down, the others say nothing."""
    inputs = 1.0 + 4.0 * uniforms("fit/X", 1600).reshape(400, 4)
    y = 50.0 + 8.0 * (inputs[:, 0] - 3.0) - 5.0 * (inputs[:, 1] - 3.0) + 10.0 * (uniforms("fit/noise", 400) - 0.5)
    features = tuple(
        Feature(f"ipip_made_up_{n}", f"I am {n}.", "1-5 agreement", 1.0, 5.0, False, 3.0, "more", "less", f"X{n}")
        for n in range(4)
    )
    recipe = Recipe(n_trees=40, n_leaves=4, min_rows_per_leaf=10, masks=(0.25, 0.5))
    sexes = np.where(uniforms("fit/sex", 400) < 0.5, "men", "women")
    ages = np.where(uniforms("fit/age", 400) < 0.5, "18-24", "40+")
    return Problem(
        attribute=replace(GRIT, recipe=recipe),
        features=features,
        X=inputs,
        y=y,
        folds=split(400, "fit"),
        directions=(1, -1, 0, 0),
        groups={"sex": sexes, "age": ages},
        reliability=0.8,
        choice="made up",
    )
