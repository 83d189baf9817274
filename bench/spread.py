"""Medians with their spread, and ratios of paired rounds."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """Median of some rounds, and the smallest and largest of them, in whatever unit they were measured."""

    median: float
    low: float
    high: float
    n_rounds: int

    def times(self, factor: float) -> "Spread":
        """Give the same figure in another unit."""
        return Spread(self.median * factor, self.low * factor, self.high * factor, self.n_rounds)


def spread(values: Sequence[float]) -> Spread | None:
    """Summarise one value a round; None when there is none."""
    if not values:
        return None
    return Spread(statistics.median(values), min(values), max(values), len(values))


def paired_ratio(above: Sequence[float], below: Sequence[float]) -> Spread | None:
    """Summarise round by round ``above / below``.

    Pairing cancels what changes from round to round (host frequency, neighbours); only rounds that both have count.
    """
    return spread([a / b for a, b in zip(above, below, strict=False) if b])


def percentile(values: Sequence[float], share: float) -> float:
    """Smallest value that at least ``share`` (0..1) of the values do not pass; values need no order, at least one."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]
