"""The picture of a soak: latency, staleness and reach over time, with everything that happened marked."""

from pathlib import Path

from matplotlib.axes import Axes

from bench.soak.results import Soak
from bench.soak.timeline import BOUND_S

HOST_COLOURS = {"a": "#2f6f8f", "b": "#c8742c"}
FAULT, ROTATION, EMERGENCY, LATE = "#d9d2c5", "#7a8b5a", "#b03030", "#b03030"
FLOOR_S = 0.0005


def draw(soak: Soak, path: Path, *, caption: str) -> None:
    """Draw the run into a PNG."""
    import matplotlib as mpl  # noqa: PLC0415 - slow to import, needed at the very end only

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, (events, latency, staleness, reach) = plt.subplots(
        4, 1, figsize=(14, 11), sharex=True, layout="constrained", height_ratios=(1.9, 1.3, 1, 1.1)
    )
    for axes in (latency, staleness, reach):
        _shade(axes, soak)
        axes.spines[["top", "right"]].set_visible(False)
    _events(events, soak)
    _latency(latency, soak)
    _staleness(staleness, soak)
    _reach(reach, soak)
    reach.set_xlabel("seconds since the start", fontsize=9)
    figure.supxlabel(caption, fontsize=8, color="#555555")
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def _shade(axes: Axes, soak: Soak) -> None:
    for mark in soak.marks:
        if mark.kind in {"fault", "policy"}:
            axes.axvspan(mark.at, mark.until or mark.at, color=FAULT, alpha=0.45, linewidth=0)
        elif mark.kind == "emergency":
            axes.axvline(mark.until or mark.at, color=EMERGENCY, linewidth=0.9, alpha=0.7)
        elif mark.kind == "late":
            axes.axvline(mark.at, color=LATE, linewidth=1.5, linestyle=":")


def _events(axes: Axes, soak: Soak) -> None:
    """One row for each kind of event, a bar from its beginning to its end."""
    faults = sorted({mark.what for mark in soak.marks if mark.kind == "fault"})
    cut_off = sorted({mark.what for mark in soak.marks if mark.kind == "policy"})
    rows = ["planned rotation", "emergency rotation", "refused command", *faults, *cut_off]
    kinds = {"rotation": rows[0], "emergency": rows[1], "refused": rows[2]}
    colours = {"rotation": ROTATION, "emergency": EMERGENCY, "refused": "#888888", "fault": "#8a7f6a"}
    for mark in soak.marks:
        lasting = mark.kind in {"fault", "policy"}
        row = mark.what if lasting else kinds.get(mark.kind)
        if row is None:
            continue
        ended = mark.until or mark.at
        if lasting:
            axes.barh(rows.index(row), max(ended - mark.at, 0.4), left=mark.at, color=colours["fault"], height=0.7)
        else:
            axes.plot([ended], [rows.index(row)], "|", color=colours[mark.kind], markersize=9, markeredgewidth=1.4)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_title(
        "What was done and what broke (shaded below: faults; red lines: emergency rotations)", fontsize=10, loc="left"
    )


def _latency(axes: Axes, soak: Soak) -> None:
    for host, colour in HOST_COLOURS.items():
        found = [one for one in soak.seconds if one.host == host]
        times = [one.at for one in found]
        axes.plot(times, [one.p50_ms for one in found], color=colour, linewidth=0.9, label=f"host {host}: p50")
        axes.plot(times, [one.p99_ms for one in found], color=colour, linewidth=0.7, alpha=0.5, label="p99")
    for failure in soak.failures:
        axes.plot([failure.at], [1], "x", color=LATE)
    axes.set_yscale("log")
    axes.set_ylabel("ms", fontsize=9)
    axes.set_title("Latency of good calls in each second, from when a call was due", fontsize=10, loc="left")
    axes.legend(fontsize=8, frameon=False, ncols=4, loc="upper right")


def _staleness(axes: Axes, soak: Soak) -> None:
    for host, colour in HOST_COLOURS.items():
        for worker in sorted({one.worker for one in soak.staleness if one.host == host}):
            found = [one for one in soak.staleness if (one.host, one.worker) == (host, worker)]
            ages = [float("nan") if one.staleness_s is None else one.staleness_s for one in found]
            label = f"host {host}" if worker == "1" else None
            axes.plot([one.at for one in found], ages, color=colour, linewidth=0.8, alpha=0.8, label=label)
    axes.set_ylabel("s", fontsize=9)
    axes.set_title("Age of each worker's revocations, by its own clock", fontsize=10, loc="left")
    if soak.staleness:
        axes.legend(fontsize=8, frameon=False, ncols=2, loc="upper right")


def _reach(axes: Axes, soak: Soak) -> None:
    for host, colour in HOST_COLOURS.items():
        found = [one for one in soak.reaches if one.host == host and one.kind != "ghost"]
        times, spans = [one.acked_at for one in found], [max(one.reach_s, FLOOR_S) for one in found]
        axes.plot(times, spans, ".", color=colour, markersize=3, label=f"host {host}")
    axes.axhline(BOUND_S, color="#555555", linewidth=0.7, linestyle="--")
    axes.set_yscale("log")
    axes.set_ylabel("s", fontsize=9)
    title = "From the acknowledged revocation to the last served call, at each worker (dashed: bound without an outage)"
    axes.set_title(title, fontsize=10, loc="left")
