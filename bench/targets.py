"""What has to be reached, and how a run compares. A target that was missed or not measured is named, never left out."""

from collections.abc import Callable
from dataclasses import dataclass

from bench.plan import Results
from bench.spread import Spread, paired_ratio, spread

Reached = Callable[[Results], Spread | None]


@dataclass(frozen=True, slots=True)
class Target:
    """One bound on one figure; ``at_least``: the figure must not be below it, else not above it.

    ``by_cpu``: the same ratio from the servers' CPU time, for the reader; verdicts are on what was asked for.
    """

    title: str
    bound: float
    at_least: bool
    unit: str
    reached: Reached
    by_cpu: Reached | None = None

    @property
    def wanted(self) -> str:
        """The bound in words."""
        return f"{'≥' if self.at_least else '≤'} {self.bound:g}{self.unit}"

    def verdict(self, figure: Spread | None) -> str:
        """Compare the median with the bound."""
        if figure is None:
            return "not measured"
        if figure.median >= self.bound if self.at_least else figure.median <= self.bound:
            return "reached"
        return f"**missed** by {abs(figure.median - self.bound) / self.bound:.0%}"


def ratio(above: str, below: str) -> Reached:
    """Rate of one case in units of another's, round by round."""
    return lambda results: paired_ratio(results.rates(above), results.rates(below))


def cpu_ratio(above: str, below: str) -> Reached:
    """CPU time for one answer of ``below`` in units of ``above``'s: what the ratio of rates is on an idle machine."""

    def times(results: Results, case: str) -> list[float]:
        return [sample.cpu_us or 0.0 for sample in results.samples.get(case, [])]

    return lambda results: paired_ratio(times(results, below), times(results, above))


def figure(*names: str) -> Reached:
    """Figure that was noted under a name; of several, the one with the largest median."""

    def worst(results: Results) -> Spread | None:
        found = [one for one in (spread(results.figures.get(name, ())) for name in names) if one is not None]
        return max(found, key=lambda one: one.median, default=None)

    return worst


def against(title: str, bound: float, above: str, below: str) -> Target:
    """Make a target on the rate of one case in units of another's."""
    return Target(title, bound, True, "", ratio(above, below), cpu_ratio(above, below))


TARGETS = (
    against("token endpoint ÷ raw RSA-2048 signing of one core", 0.72, "token-32", "sign"),
    against("predict, warm tokens ÷ bare-ASGI floor", 0.75, "predict-32", "floor-32"),
    against("predict, warm tokens ÷ naive stack", 6, "predict-32", "naive-32"),
    Target("memo hit, in process", 3, False, " µs", figure("micro: memo hit")),
    Target("cold verification, in process", 60, False, " µs", figure("micro: cold verification")),
    Target(
        "model server, memory of one worker (RSS after load, all models)", 70, False, " MiB",
        figure("model server: RSS after load, MiB"),
    ),
    Target("model server, exec to ready", 0.6, False, " s", figure("model server: exec to ready, s")),
    Target(
        "cheap endpoints while tokens are issued at full speed, p99", 10, False, " ms",
        figure("cheap: JWKS p99, ms", "cheap: health p99, ms"),
    ),
    Target(
        "revocation sent to first refusal, p50", 5, False, " ms",
        figure("control: revocation sent to first refusal p50, ms"),
    ),
    Target(
        "revocation sent to first refusal, p99", 100, False, " ms",
        figure("control: revocation sent to first refusal p99, ms"),
    ),
    Target("revocation check of a verified token, a million held", 1, False, " µs", figure("micro: revocation check")),
    Target(
        "a million live revocations, memory", 160, False, " MiB",
        figure("control: 1,000,000 live revocations, MiB a process"),
    ),
    Target(
        "a million live revocations, replayed at a start", 5, False, " s",
        figure("control: 1,000,000 revocations replayed, s"),
    ),
    Target(
        "admitted calls for one question to the store, steady load", 50, True, "",
        figure("control: admitted calls for one question to the store"),
    ),
)  # fmt: skip
