"""The one picture of a card: predicted against observed on held-out rows, with calibration and the 80 % band."""

import io
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from training.problem import Problem
from training.report import Report

_INK, _QUIET, _DOT, _BAND, _LINE = "#1f2933", "#7b8794", "#3b7dd8", "#dbe7f7", "#d9480f"
_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _QUIET,
    "xtick.color": _QUIET,
    "ytick.color": _QUIET,
}
_GROUPS = 10
_MOST_DOTS = 800
_COLOURS = 64
UNITS = {"pomp_0_100": "points", "days": "days", "percent": "percent"}


def draw(problem: Problem, report: Report) -> bytes:
    """The PNG's bytes, without software name or date, so the same model gives the same picture."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 4.8), dpi=100, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        _paint(axes, problem, report)
        figure.legend(loc="outside lower center", ncols=2, frameon=False)
        target = io.BytesIO()
        figure.canvas.draw()
        pixels = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")  # type: ignore[attr-defined]
        pixels.quantize(_COLOURS, dither=Image.Dither.NONE).save(target, format="png", optimize=True)
    return target.getvalue()


def _paint(axes: mpl.axes.Axes, problem: Problem, report: Report) -> None:
    """Band, people, diagonal and the means of ten equal groups, in that order."""
    low, high = problem.attribute.score_range
    line, half = np.array([low, high]), report.half_width_full
    axes.fill_between(line, line - half, line + half, color=_BAND, lw=0, label=f"80 % interval, ± {half:.1f}")
    x, y = report.predicted[:_MOST_DOTS], report.observed[:_MOST_DOTS]
    axes.plot(x, y, "o", ms=2.6, mew=0, color=_DOT, alpha=0.45, label=f"one person ({len(x)} shown)")
    axes.plot(line, line, color=_QUIET, lw=1, ls=(0, (4, 3)), label="predicted = observed")
    order = np.array_split(np.argsort(report.predicted, kind="stable"), _GROUPS)
    means = [(report.predicted[rows].mean(), report.observed[rows].mean()) for rows in order]
    label = f"mean of each tenth (n = {len(report.predicted)})"
    axes.plot(*zip(*means, strict=True), "o-", ms=5, lw=1.4, color=_LINE, mec="white", mew=0.8, label=label)
    margin = 0.02 * (high - low)
    axes.set(xlim=(low - margin, high + margin), ylim=(low - margin, high + margin))
    unit = UNITS[problem.attribute.unit]
    axes.set_xlabel(f"predicted, {unit}")
    axes.set_ylabel(f"observed, {unit}")
    axes.set_title(
        f"{problem.attribute.title}: R² {report.scores.r2:.2f} on people it never saw", loc="left", weight="bold"
    )
    axes.spines[["top", "right"]].set_visible(False)
