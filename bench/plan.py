"""What is measured, in which groups and in which order. Pure: nothing here starts anything."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

GROUPS = {
    "sign": "raw RSA-2048 signing of one core",
    "floor": "bare ASGI under the same uvicorn: body, memo, engine",
    "token": "our token endpoint",
    "predict": "our predict endpoint, warm tokens and 1 % cold ones",
    "cold": "our predict endpoint, every token new to it",
    "naive": "FastAPI, PyJWKClient and Booster.predict in their own environment",
    "batch": "1,000 records in one call",
    "explain": "contributions and reasons of one record",
    "profile": "one record, every attribute",
    "cheap": "cheap endpoints while tokens are being issued",
    "memory": "memory of one worker",
    "start": "exec to the first 200 of /health/ready",
    "micro": "parts of a request, in process",
    "control": "revocations from the call to the refusal, a million of them, and leased limits",
}
"""What ``--only`` may name, and what each word means."""


@dataclass(frozen=True, slots=True)
class Options:
    """One run: ``rounds`` of ``seconds`` for each loaded case."""

    rounds: int
    seconds: int
    only: frozenset[str] = frozenset(GROUPS)
    quick: bool = False
    out: Path | None = None
    raw: Path | None = None
    attribute: str = ""
    install_naive: bool = True


FASTEST, FASTEST_COLD = 60_000, 20_000
"""More predictions a second than one worker makes, with warm and with cold tokens; sizes the stock of unused tokens."""


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that gets load: ``server`` is who answers, ``traffic`` what it is asked.

    ``cold_every``: each so-manieth request carries a token that the server has never seen (0: none does).
    ``n_items`` is how many records one request holds. ``max_seconds`` and ``max_rounds`` bound a case that is dear.
    """

    name: str
    group: str
    title: str
    server: str
    traffic: str
    connections: int
    cold_every: int = 0
    n_items: int = 1
    max_seconds: int = 3600
    max_rounds: int = 3600

    def seconds_of(self, seconds: int) -> int:
        """How long a round of this case lasts when a run's rounds last ``seconds``."""
        return min(seconds, self.max_seconds)

    def n_cold(self, seconds: int) -> int:
        """How many never-used tokens one round needs; the load fails rather than use one twice."""
        if not self.cold_every:
            return 0
        fastest = FASTEST if self.cold_every > 1 else FASTEST_COLD
        return int(self.seconds_of(seconds) * fastest * 1.1) // self.cold_every + 1

    def n_cold_in_all(self, seconds: int, rounds: int) -> int:
        """How many never-used tokens all rounds need; the warm-up uses none."""
        return self.n_cold(seconds) * min(rounds, self.max_rounds)


@dataclass(slots=True)
class Sample:
    """One round of one case. Times in microseconds; ``cpu_us`` is the server's CPU time for each request."""

    rate: float
    n_requests: int
    p50_us: float | None = None
    p99_us: float | None = None
    cpu_us: float | None = None


@dataclass(slots=True)
class Results:
    """Everything that one run measured; ``samples`` by case name, ``figures`` by name, one value a repetition."""

    samples: dict[str, list[Sample]] = field(default_factory=dict)
    figures: dict[str, list[float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, case: str, sample: Sample) -> None:
        """Note one round of a case."""
        self.samples.setdefault(case, []).append(sample)

    def note_figure(self, name: str, value: float) -> None:
        """Note one repetition of a figure that has no rate."""
        self.figures.setdefault(name, []).append(value)

    def rates(self, case: str) -> list[float]:
        """Requests a second of a case, one value a round."""
        return [sample.rate for sample in self.samples.get(case, [])]


SIGNING = Case("sign", "sign", "raw RSA-2048 signatures, one core", "signing", "", 1)
# Partners of a ratio stand side by side: little changes on the machine between them.
CASES = (
    SIGNING,
    Case("token-32", "token", "token endpoint, client_credentials", "auth", "token", 32),
    Case("token-1", "token", "token endpoint, client_credentials", "auth", "token", 1),
    Case("floor-1", "floor", "floor: bare ASGI, memo, engine", "floor", "predict", 1),
    Case("predict-1", "predict", "predict, warm tokens", "model", "predict", 1),
    Case("naive-1", "naive", "naive stack, the same tokens and rows", "naive", "predict", 1),
    Case("naive-32", "naive", "naive stack, the same tokens and rows", "naive", "predict", 32),
    Case("predict-32", "predict", "predict, warm tokens", "model", "predict", 32),
    Case("floor-32", "floor", "floor: bare ASGI, memo, engine", "floor", "predict", 32),
    Case("predict-1pc-32", "predict", "predict, 1 % cold tokens", "model", "predict", 32, cold_every=100),
    Case("predict-1pc-1", "predict", "predict, 1 % cold tokens", "model", "predict", 1, cold_every=100),
    Case(
        "predict-cold-32",
        "cold",
        "predict, every token cold",
        "model",
        "predict",
        32,
        cold_every=1,
        max_seconds=1,
        max_rounds=3,
    ),
    Case("batch-1", "batch", "batch of 1,000 records", "model", "batch", 1, n_items=1000),
    Case("batch-4", "batch", "batch of 1,000 records", "model", "batch", 4, n_items=1000),
    Case("explain-1", "explain", "explain one record", "model", "explain", 1),
    Case("explain-4", "explain", "explain one record", "model", "explain", 4),
    Case("profile-1", "profile", "profile: one record, all attributes", "model", "profile", 1),
    Case("profile-32", "profile", "profile: one record, all attributes", "model", "profile", 32),
)
NEEDS = {"predict": ("floor", "naive"), "token": ("sign",)}
"""Groups that a ratio of a group needs beside it; ``--only`` takes them along where they can be had."""


def chosen(only: frozenset[str], *, quick: bool) -> list[Case]:
    """Cases of the groups that were asked for; a quick run leaves out one-connection twins of what it keeps."""
    cases = [case for case in CASES if case.group in only]
    if quick:
        dear = {
            "predict-cold-32",
            "floor-1",
            "token-1",
            "predict-1pc-1",
            "naive-1",
            "batch-4",
            "explain-4",
            "profile-1",
        }
        cases = [case for case in cases if case.name not in dear]
    return cases


def with_needs(only: frozenset[str]) -> frozenset[str]:
    """Add to the groups asked for those that their ratios are taken against."""
    return only.union(*(NEEDS.get(group, ()) for group in only)) if only else only


def in_order(cases: Sequence[Case], round_number: int) -> list[Case]:
    """Order of one round: there and back (A B C, C B A), so that a slow drift of the machine hits all alike."""
    return list(cases) if round_number % 2 == 0 else list(reversed(cases))
