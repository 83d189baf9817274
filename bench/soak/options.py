"""What a run shall do."""

from dataclasses import dataclass
from pathlib import Path

PARTS = ("soak", "disconnects", "floods")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The command line, read. ``seconds`` is the least length of the soak; it goes on until the rotations are done."""

    seconds: float
    rotations: int
    emergencies: int
    rate: float
    disconnects: int
    flood: int
    quick: bool
    parts: frozenset[str]
    out: Path | None
    raw: Path | None
    faketime: str
    seed: int

    @property
    def longest_s(self) -> float:
        """When the soak ends whatever is done."""
        return 1.5 * self.seconds + (30 if self.quick else 120)
