"""``python -m bench``: measure, print the page, and write it (``docs/benchmarks.md`` and its picture).

Exit codes: 0 measured (whether or not the targets were reached), 1 the run failed and wrote nothing, 2 wrong usage.
"""

import argparse
import signal
import sys
from pathlib import Path
from subprocess import SubprocessError

import msgspec

from bench import chart, report
from bench.children import NotReadyError
from bench.generator import LoadFailedError
from bench.instance import ROOT
from bench.plan import GROUPS, Options, with_needs
from bench.runner import Run, run
from bench.stage import ScoresDifferError
from shared.embedded_store import EmbeddedStoreError

ROUNDS, SECONDS = 7, 2
QUICK_ROUNDS, QUICK_SECONDS = 2, 1


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    found = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure the servers beside the floor of this machine. Load stays on the loopback.",
        epilog="Groups: " + "; ".join(f"{name} ({what})" for name, what in GROUPS.items()) + ".",
    )
    found.add_argument("--rounds", type=int, metavar="N", help="rounds of each case (default 7; quick 2)")
    found.add_argument("--seconds", type=int, metavar="S", help="length of one round of one case (default 2; quick 1)")
    found.add_argument("--only", metavar="GROUPS", help="comma-separated groups, with what their ratios need")
    found.add_argument("--quick", action="store_true", help="a smoke run of a minute; installs and writes nothing")
    found.add_argument("--attribute", default="grit", help="model to ask (default grit)")
    found.add_argument("--out", type=Path, metavar="DIR", help="where benchmarks.md and benchmarks.png go")
    found.add_argument("--raw", type=Path, metavar="FILE", help="also write every single figure as JSON")
    return found


def options_from(arguments: list[str]) -> Options:
    """Read the command line; a whole run writes into ``docs``, a partial or quick one only where ``--out`` says."""
    asked = parser().parse_args(arguments)
    only = frozenset(GROUPS)
    if asked.only:
        only = frozenset(asked.only.split(","))
        if unknown := sorted(only - set(GROUPS)):
            parser().error(f"unknown group {unknown[0]!r}; known are {', '.join(GROUPS)}")
    usual = (QUICK_ROUNDS, QUICK_SECONDS) if asked.quick else (ROUNDS, SECONDS)
    rounds = usual[0] if asked.rounds is None else asked.rounds
    seconds = usual[1] if asked.seconds is None else asked.seconds
    if not (1 <= rounds <= 100 and 1 <= seconds <= 60):
        parser().error("rounds must be 1 to 100 and seconds 1 to 60")
    whole = not asked.only and not asked.quick
    return Options(
        rounds=rounds,
        seconds=seconds,
        only=with_needs(only),
        quick=asked.quick,
        out=asked.out or (ROOT / "docs" if whole else None),
        raw=asked.raw,
        attribute=asked.attribute,
        install_naive=not asked.quick,
    )


def write(done: Run, options: Options) -> str:
    """Write page and picture where the options say; gives the page."""
    about = done.about
    picture = False
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        caption = (
            f"{about.machine}. Medians of {about.rounds} rounds of {about.seconds} s, {about.date}, {about.generator}."
        )
        picture = chart.draw(done.results, options.out / "benchmarks.png", caption=caption)
    page = report.page(done.results, about, picture=picture)
    if options.out is not None:
        (options.out / "benchmarks.md").write_text(page)
    if options.raw is not None:
        options.raw.write_bytes(msgspec.json.format(msgspec.json.encode(done), indent=1) + b"\n")
    return page


def main(arguments: list[str]) -> int:
    """Run the command line; gives the exit code."""
    options = options_from(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that every block that started something ends it
    try:
        done = run(options, lambda step: print(step, file=sys.stderr, flush=True))
    except (LoadFailedError, ScoresDifferError, NotReadyError, EmbeddedStoreError, SubprocessError) as failed:
        print(f"The run failed, and nothing was written: {failed}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 1
    print(write(done, options))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
