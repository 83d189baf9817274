"""Trees that know missing values, keep their directions, and repeat."""

from dataclasses import replace

import numpy as np
import pytest

from training.fit import deaf_splits, fit, gain_shares, predict
from training.problem import Problem


def test_masked_training_gives_every_split_the_missing_type_nan(small_problem: Problem) -> None:
    """Such a model knows what to do with a gap; none of its features is required."""
    assert deaf_splits(fit(small_problem)) == 0


def test_training_without_masks_is_refused(small_problem: Problem) -> None:
    """Without gaps in training, LightGBM reads a gap as 0 and gives a confidently low score."""
    unmasked = replace(small_problem.attribute.recipe, masks=())
    with pytest.raises(ValueError, match="never learned a missing value"):
        fit(replace(small_problem, attribute=replace(small_problem.attribute, recipe=unmasked)))


def test_the_score_never_falls_when_a_rising_answer_rises(small_problem: Problem) -> None:
    """An explanation must never say: you answered better and the score fell."""
    text = fit(small_problem)
    steps = np.linspace(1.0, 5.0, 41)
    for others in (1.0, 3.0, 5.0, np.nan):
        inputs = np.full((41, 4), others)
        inputs[:, 0] = steps
        assert (np.diff(predict(text, inputs)) >= 0.0).all()
        inputs[:, 0], inputs[:, 1] = others, steps
        assert (np.diff(predict(text, inputs)) <= 0.0).all()


def test_nothing_known_gives_an_ordinary_score(small_problem: Problem) -> None:
    """All missing lands near the mean, not near 0."""
    score = predict(fit(small_problem), np.full((1, 4), np.nan))[0]
    assert abs(score - small_problem.y.mean()) < 5.0


def test_gain_shares_sum_to_1_and_name_the_right_features(small_problem: Problem) -> None:
    """Coverage is a sum of these shares, so a full record must reach exactly 1."""
    shares = gain_shares(fit(small_problem))
    assert shares.sum() == pytest.approx(1.0, abs=1e-9)
    assert shares[0] > shares[1] > shares[2:].max()


def test_the_same_rows_give_the_same_text(small_problem: Problem) -> None:
    """One thread, fixed seeds: two runs agree in every character."""
    assert fit(small_problem) == fit(small_problem)
