"""``python -m bench.soak``: run the installation under faults, print the page and write it (``docs/soak.md``).

Exit codes: 0 everything held, 1 something did not (the page says what) or the run failed, 2 wrong usage.
"""

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench.children import NotReadyError
from bench.floods import runner as floods
from bench.instance import ROOT
from bench.machine import description
from bench.soak import disconnects, picture, report, results, runner
from bench.soak.lines import NotCovered
from bench.soak.options import PARTS, Options
from bench.soak.results import About, Results
from bench.soak.screen import shown
from bench.soak.site import CLOCKS, find_faketime


@dataclass(frozen=True, slots=True)
class Usual:
    """What is done where the command line says nothing."""

    seconds: float
    rotations: int
    emergencies: int
    rate: float
    disconnects: int
    flood: int


WHOLE = Usual(seconds=600, rotations=100, emergencies=10, rate=150, disconnects=1000, flood=50_000)
QUICK = Usual(seconds=15, rotations=3, emergencies=1, rate=40, disconnects=60, flood=2_000)


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    found = argparse.ArgumentParser(
        prog="python -m bench.soak",
        description="Run the installation under faults and floods, on the loopback only; exit 0 only if all held.",
    )
    found.add_argument("--seconds", type=float, metavar="S", help="least length of the soak (default 600; quick 15)")
    found.add_argument("--rotations", type=int, metavar="N", help="planned rotations (default 100; quick 3)")
    found.add_argument("--emergencies", type=int, metavar="N", help="emergency rotations (default 10; quick 1)")
    found.add_argument(
        "--rate", type=float, metavar="N", help="good calls a second to each host (default 150; quick 40)"
    )
    found.add_argument("--disconnects", type=int, metavar="N", help="connections to break (default 1000; quick 60)")
    found.add_argument("--flood", type=int, metavar="N", help="distinct unknown kids (default 50000; quick 2000)")
    found.add_argument("--only", metavar="PARTS", help=f"comma-separated: {', '.join(PARTS)}")
    found.add_argument("--quick", action="store_true", help="the short form, about a minute; writes nothing")
    found.add_argument("--seed", type=int, default=1, help="decides the order of the faults")
    found.add_argument(
        "--faketime", default="", metavar="FILE", help="libfaketime.so.1, where it is not found by itself"
    )
    found.add_argument("--out", type=Path, metavar="DIR", help="where soak.md and soak.png go")
    found.add_argument("--raw", type=Path, metavar="FILE", help="also write everything as JSON")
    return found


def options_from(arguments: list[str]) -> Options:
    """Read the command line; a whole run writes into ``docs``, a partial or quick one only where ``--out`` says."""
    asked = parser().parse_args(arguments)
    parts = frozenset(asked.only.split(",")) if asked.only else frozenset(PARTS)
    if unknown := sorted(parts - set(PARTS)):
        parser().error(f"unknown part {unknown[0]!r}; known are {', '.join(PARTS)}")
    usual = QUICK if asked.quick else WHOLE

    def number(name: str, low: float, high: float) -> float:
        given = getattr(asked, name)
        value: float = getattr(usual, name) if given is None else given
        if not low <= value <= high:
            parser().error(f"{name} must be {low:g} to {high:g}")
        return value

    return Options(
        seconds=number("seconds", 5, 86_400),
        rotations=int(number("rotations", 0, 10_000)),
        emergencies=int(number("emergencies", 0, 1_000)),
        rate=number("rate", 1, 2_000),
        disconnects=int(number("disconnects", 1, 100_000)),
        flood=int(number("flood", 100, 1_000_000)),
        quick=asked.quick,
        parts=parts,
        out=asked.out or (ROOT / "docs" if not asked.quick and not asked.only else None),
        raw=asked.raw,
        faketime=asked.faketime,
        seed=asked.seed,
    )


async def run(options: Options) -> Results:
    """Run the parts that were asked for, one after the other."""
    about = About(
        date=time.strftime("%Y-%m-%d", time.gmtime()),
        machine=description(),
        seconds=options.seconds,
        rate=options.rate,
        clients=runner.N_CLIENTS,
        clocks=CLOCKS if find_faketime(options.faketime) else dict.fromkeys(CLOCKS, 0),
        quick=options.quick,
        seed=options.seed,
    )
    found = Results(about)
    if "soak" in options.parts:
        with shown("soak") as tell:
            found = msgspec.structs.replace(found, soak=await runner.soak(options, tell))
    if "disconnects" in options.parts:
        with shown("disconnects") as tell, tempfile.TemporaryDirectory(prefix="flex-soak-") as folder:
            proof = await disconnects.prove(Path(folder), options.disconnects, seed=options.seed, tell=tell)
            found = msgspec.structs.replace(found, disconnects=proof)
    if "floods" in options.parts:
        with shown("floods") as tell:
            found = msgspec.structs.replace(found, floods=await floods.run(options.flood, tell))
    return found


def write(done: Results, options: Options) -> str:
    """Write page and picture where the options say; gives the page."""
    drawn = options.out is not None and done.soak is not None
    page = report.page(done, picture=drawn)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        if done.soak is not None:
            picture.draw(done.soak, options.out / "soak.png", caption=f"{done.about.machine}, {done.about.date}")
        (options.out / "soak.md").write_text(page)
    if options.raw is not None:
        options.raw.write_bytes(msgspec.json.encode(done) + b"\n")
    return page


def main(arguments: list[str]) -> int:
    """Run the command line; gives the exit code."""
    options = options_from(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends everything that was started, as Ctrl-C does
    try:
        done = asyncio.run(run(options))
    except (NotReadyError, NotCovered, TimeoutError, OSError) as failed:
        print(f"The run failed, and nothing was written: {type(failed).__name__}: {failed}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 1
    print(write(done, options))
    return 0 if all(check.held for check in results.checks(done)) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
