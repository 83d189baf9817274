"""The report: one Markdown page with targets, rates, parts and method. Pure: it gets everything it says."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.plan import CASES, Results, Sample
from bench.spread import Spread, spread
from bench.targets import TARGETS

METHOD = """\
- One worker of each server on one core, load generator and store on the other, HTTP/1.1 without TLS over the loopback,
  connections kept alive, closed loop. All servers of a run are up together; only one is loaded at a time.
- A round loads every case once; every second round goes backwards (A B C, C B A). Figures are medians over the rounds,
  with the smallest and largest in brackets; ratios are taken round by round, so that a slow minute hits both sides.
- {n_rows:,} distinct rows and {n_tokens} distinct tokens in turn: a repeated row is learnt by the branch predictor
  and makes the trees three times as fast. Tokens and rows are the same for floor, product and naive stack, and so are
  the scores: before the load, {n_same} rows went to all of them and came back bit-equal.
- Every answer of the load must be a success, or the run fails. Our servers do all they do in production use: access
  lines (to a file), metrics, request ids, every check. The naive stack and the floor write no access lines.
- CPU µs is the server's own user and system time for each answer (/proc/PID/stat): the figure least sensitive to what
  else runs on the machine; "by CPU time" is the same ratio taken from it.
- Floor: bare ASGI under the same uvicorn and protocol; body by msgspec, token by SHA-256, dict and expiry check, the
  same engine for one row, a small JSON answer. Naive: FastAPI, pydantic, PyJWKClient, Booster.predict, `async def`,
  uvloop and httptools, in an environment of its own."""

CONTROL = """\
One token at a time is issued, used, revoked at the auth server (`POST /oauth2/revoke`) and called over one connection
until the model server refuses it; the clock runs from sending the revocation. The rest is measured in a process of its
own with an embedded store that syncs every write: "revoke to set" from the call to the entry in a follower's set; a
million live revocations read as at a start (resident memory before and after); one client at 500 calls a second, below
its limit."""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a reader must know about a run besides its figures."""

    date: str
    machine: str
    generator: str
    versions: dict[str, str]
    rounds: int
    seconds: int
    attribute: str
    shape: str
    n_rows: int
    n_tokens: int
    n_same: int
    busy: float


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Spell a Markdown table; columns but the first are aligned to the right."""
    rule = ["---"] + ["---:"] * (len(headers) - 1)
    return "\n".join("| " + " | ".join(line) + " |" for line in (headers, rule, *rows))


def number(value: float) -> str:
    """Spell a figure with three meaningful digits, and thousands with commas."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def with_spread(figure: Spread | None) -> str:
    """Median, and smallest to largest of the rounds."""
    if figure is None:
        return "–"
    if figure.n_rounds == 1:
        return number(figure.median)
    return f"{number(figure.median)} [{number(figure.low)}–{number(figure.high)}]"


def targets_table(results: Results) -> str:
    """Every target with what was reached and the verdict."""
    lines = []
    for target in TARGETS:
        reached = target.reached(results)
        by_cpu = with_spread(target.by_cpu(results)) if target.by_cpu else ""
        lines.append((target.title, target.wanted, with_spread(reached), target.verdict(reached), by_cpu))
    return table(("measure", "target", "reached", "verdict", "by CPU time"), lines)


def _column(samples: Sequence[Sample], field: str) -> str:
    values = [value for sample in samples if (value := getattr(sample, field)) is not None]
    return with_spread(spread(values))


def rates_table(results: Results) -> str:
    """Rate, latency and CPU time of every case that was loaded."""
    lines = []
    for case in CASES:
        samples = results.samples.get(case.name)
        if not samples:
            continue
        rate = spread([sample.rate for sample in samples])
        items = with_spread(rate.times(case.n_items)) if rate and case.n_items > 1 else ""
        name = f"{case.title} ({items} records/s)" if items else case.title
        columns = [_column(samples, field) for field in ("p50_us", "p99_us", "cpu_us")]
        connections = "–" if case.server == "signing" else str(case.connections)
        lines.append((name, connections, with_spread(rate), *columns))
    return table(("case", "connections", "per second", "p50 µs", "p99 µs", "server CPU µs"), lines)


def figures_table(results: Results, prefix: str, *, skip: int = 0) -> str:
    """Every figure whose name begins with ``prefix``."""
    found = [
        (name[skip:], with_spread(spread(values)))
        for name, values in results.figures.items()
        if name.startswith(prefix)
    ]
    return table(("figure", "median [min–max]"), found) if found else "Not measured in this run."


def missed_words(results: Results) -> str:
    """One sentence on what fell short."""
    verdicts = [(target.title, target.verdict(target.reached(results))) for target in TARGETS]
    missed = [title for title, verdict in verdicts if "missed" in verdict]
    unknown = [title for title, verdict in verdicts if verdict == "not measured"]
    words = f"{len(verdicts) - len(missed) - len(unknown)} of {len(verdicts)} targets reached."
    if missed:
        words += " Missed: " + "; ".join(missed) + "."
    return words + (" Not measured: " + "; ".join(unknown) + "." if unknown else "")


def _circumstances(about: Circumstances) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in about.versions.items())
    return (
        f"Machine: {about.machine}; {about.busy:.0%} of it was busy before the run began. Load: {about.generator}. "
        f"{versions}. Model: `{about.attribute}`, {about.shape}.\n\n"
        "Only ratios of one run mean something elsewhere; absolute rates are this machine's."
    )


def page(results: Results, about: Circumstances, *, picture: bool) -> str:
    """Write the whole page."""
    length = f"{about.rounds} rounds of {about.seconds} s for each case"
    parts = [
        "# Benchmarks",
        f"Written by `make bench` on {about.date}: {length}. {missed_words(results)}",
        _circumstances(about),
        "## Targets",
        targets_table(results),
        *(["![Rates and latency of the main cases](benchmarks.png)"] if picture else []),
        "## Rates and latency",
        rates_table(results),
        "## Cheap endpoints while 16 connections ask for tokens",
        figures_table(results, "cheap: ", skip=7),
        "## Parts of a request, in process, µs",
        figures_table(results, "micro: ", skip=7),
        "## Revocations and limits",
        CONTROL,
        figures_table(results, "control: ", skip=9),
        "## Memory and start",
        figures_table(results, "model server: "),
        figures_table(results, "auth server: "),
        "## Method",
        METHOD.format(n_rows=about.n_rows, n_tokens=about.n_tokens, n_same=about.n_same),
        *(["## Notes", "\n".join(f"- {note}" for note in results.notes)] if results.notes else []),
    ]
    return "\n\n".join(parts) + "\n"
