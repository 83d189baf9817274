"""Splits and masks repeat, are disjoint, and have the promised sizes."""

import numpy as np

from training.folds import masked, split, uniforms


def test_a_split_is_60_20_20_and_uses_every_row_once() -> None:
    """No row may both teach and test."""
    folds = split(1000, "some sample")
    assert [len(folds.train), len(folds.calibrate), len(folds.test)] == [600, 200, 200]
    everything = np.concatenate([folds.train, folds.calibrate, folds.test])
    assert sorted(everything.tolist()) == list(range(1000))


def test_the_same_stream_gives_the_same_numbers_and_another_gives_others() -> None:
    """The first draw is written down, so a change of generator can't go unnoticed."""
    assert uniforms("x", 3).tolist() == uniforms("x", 5)[:3].tolist()
    assert uniforms("x", 3).tolist() != uniforms("y", 3).tolist()
    assert ((uniforms("x", 1000) >= 0) & (uniforms("x", 1000) < 1)).all()


def test_a_mask_hides_about_its_share_and_changes_nothing_else() -> None:
    """Masked copies differ from their rows only in gaps."""
    inputs = np.arange(40_000, dtype=np.float64).reshape(2000, 20)
    hidden = masked(inputs, 0.25, "mask")
    assert abs(np.isnan(hidden).mean() - 0.25) < 0.02
    assert (hidden[~np.isnan(hidden)] == inputs[~np.isnan(hidden)]).all()
    assert not np.isnan(inputs).any()
