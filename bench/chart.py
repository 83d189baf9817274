"""The picture beside the report: rates at many connections, and latency of one connection."""

from pathlib import Path

from matplotlib.axes import Axes

from bench.plan import Results, Sample
from bench.spread import spread

RATES = (
    ("sign", "raw RSA-2048 signing"),
    ("token-32", "token endpoint"),
    ("floor-32", "floor (bare ASGI)"),
    ("predict-32", "predict, warm tokens"),
    ("predict-1pc-32", "predict, 1 % cold"),
    ("predict-cold-32", "predict, all cold"),
    ("naive-32", "naive stack"),
)
LATENCIES = (
    ("token-1", "token endpoint"),
    ("floor-1", "floor (bare ASGI)"),
    ("predict-1", "predict, warm tokens"),
    ("predict-1pc-1", "predict, 1 % cold"),
    ("naive-1", "naive stack"),
    ("explain-1", "explain"),
    ("profile-1", "profile"),
)
OURS, OTHERS, TAIL = "#2f6f8f", "#b9c3c9", "#8fb8cc"


def _median(samples: list[Sample], field: str) -> float:
    found = spread([value for sample in samples if (value := getattr(sample, field)) is not None])
    return found.median if found else 0.0


def _colour(case: str) -> str:
    return OTHERS if case.startswith(("sign", "floor", "naive")) else OURS


def draw(results: Results, path: Path, *, caption: str) -> bool:
    """Draw what was measured into a PNG; False (and no file) where there is nothing to draw."""
    import matplotlib as mpl  # noqa: PLC0415 - slow to import, needed at the very end only

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    rates = [(name, label) for name, label in RATES if name in results.samples]
    latencies = [(name, label) for name, label in LATENCIES if name in results.samples]
    if not rates or not latencies:
        return False
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.9), layout="constrained")
    _draw_rates(left, results, rates)
    _draw_latencies(right, results, latencies)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
    figure.supxlabel(caption, fontsize=8, color="#555555")
    figure.savefig(path, dpi=130, metadata={"Software": None})
    plt.close(figure)
    return True


def _draw_rates(axes: Axes, results: Results, cases: list[tuple[str, str]]) -> None:
    values = [_median(results.samples[name], "rate") for name, _ in cases]
    bars = axes.barh([label for _, label in cases], values, color=[_colour(name) for name, _ in cases])
    axes.bar_label(bars, [f"{value:,.0f}" for value in values], padding=3, fontsize=9)
    axes.set_xlim(0, max(values) * 1.15)
    axes.set_title("Answers per second, one worker, 32 connections", fontsize=10, loc="left")
    axes.set_xlabel("requests/s (signing: signatures/s)", fontsize=9)


def _draw_latencies(axes: Axes, results: Results, cases: list[tuple[str, str]]) -> None:
    labels = [label for _, label in cases]
    tails = [_median(results.samples[name], "p99_us") / 1000 for name, _ in cases]
    middles = [_median(results.samples[name], "p50_us") / 1000 for name, _ in cases]
    colours = [_colour(name) for name, _ in cases]
    axes.barh(labels, tails, color=TAIL, height=0.35, label="p99")
    bars = axes.barh(labels, middles, color=colours, height=0.75, label="p50")
    words = [f"{middle:.2f} (p99 {tail:.2f})" for middle, tail in zip(middles, tails, strict=True)]
    reach = [max(pair) for pair in zip(middles, tails, strict=True)]
    for bar, word, right in zip(bars, words, reach, strict=True):
        axes.text(right, bar.get_y() + bar.get_height() / 2, " " + word, va="center", fontsize=9)
    axes.set_xlim(0, max(reach) * 1.3)
    axes.set_title("Latency with one connection: p50 (broad), p99 (narrow)", fontsize=10, loc="left")
    axes.set_xlabel("milliseconds", fontsize=9)
