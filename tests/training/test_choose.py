"""Feature choice looks at the training fold and nowhere else."""

import numpy as np

from training.choose import directions, greedy
from training.folds import Folds, split, uniforms


def _sample() -> tuple[np.ndarray, np.ndarray, Folds]:
    inputs = uniforms("choose/X", 3000).reshape(300, 10)
    y = 3.0 * inputs[:, 2] - 2.0 * inputs[:, 7] + 0.1 * uniforms("choose/noise", 300)
    return inputs, y[:, None], split(300, "choose")


def test_the_columns_that_matter_are_chosen_first() -> None:
    """The strongest column comes first, then what it leaves unexplained."""
    inputs, targets, folds = _sample()
    assert greedy(inputs, targets, folds.train, 2) == [2, 7]


def test_held_out_rows_cannot_change_the_choice() -> None:
    """Even absurd values outside the training fold leave choice and directions as they are."""
    inputs, targets, folds = _sample()
    spoiled, wrong = inputs.copy(), targets.copy()
    spoiled[folds.held_out], wrong[folds.held_out] = 1e6, -1e6
    assert greedy(spoiled, wrong, folds.train, 4) == greedy(inputs, targets, folds.train, 4)
    assert directions(spoiled, wrong[:, 0], folds.train) == directions(inputs, targets[:, 0], folds.train)


def test_columns_given_at_the_start_are_kept() -> None:
    """A given statement is asked even where it explains nothing."""
    inputs, targets, folds = _sample()
    assert greedy(inputs, targets, folds.train, 3, start=[5]) == [5, 2, 7]


def test_directions_follow_the_sign_and_weak_columns_are_free() -> None:
    """A constraint is only put where the training rows show a side."""
    inputs, targets, folds = _sample()
    inputs[:, 4] = 1.0 - inputs[:, 4]
    signs = directions(inputs, targets[:, 0], folds.train, free_below=0.3)
    assert signs == (0, 0, 1, 0, 0, 0, 0, -1, 0, 0)
