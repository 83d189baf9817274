"""One run from start to end: set the stage, warm up, go through the rounds, look at the rest, take all away."""

import datetime as dt
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench import generator, machine
from bench.extras import measure_cheap, measure_control, measure_parts, measure_starts, note_memory
from bench.generator import Load
from bench.plan import GROUPS, Case, Options, Results, Sample, chosen, in_order
from bench.report import Circumstances
from bench.stage import Stage, set_up
from bench.traffic import N_ROWS

WARM_UP_S = 1
STARTS, QUICK_STARTS = 7, 3
N_LIVE, QUICK_N_LIVE = 1_000_000, 20_000
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Run:
    """What came out of one run."""

    results: Results
    about: Circumstances


def run(options: Options, say: Say) -> Run:
    """Measure everything that ``options`` name; ``say`` gets one line a step.

    Raises LoadFailedError, ScoresDifferError or NotReadyError: a run is whole or there is none. The calling thread
    stays on the load generator's core afterwards.
    """
    before = machine.cpu_ticks()
    time.sleep(1.0)
    busy = machine.busy_share((before, machine.cpu_ticks()))
    server_core, load_core = machine.cores()
    os.sched_setaffinity(0, {load_core})
    cases = chosen(options.only, quick=options.quick)
    results = Results()
    if server_core == load_core:
        results.notes.append("Only one core was available: servers and load shared it, so all rates are too low.")
    if not generator.has_wrk():
        results.notes.append(generator.MISSING_WRK)
    with tempfile.TemporaryDirectory(prefix="flex-bench-") as folder:
        say("starting a throw-away instance, and spelling the requests")
        with set_up(options, cases, server_core, load_core, Path(folder)) as stage:
            results.notes += stage.notes
            _measure(options, stage, [case for case in cases if _is_there(case, stage)], results, say)
            about = _about(options, stage, busy)
    return Run(results, about)


def _is_there(case: Case, stage: Stage) -> bool:
    return case.server == "signing" or case.server in stage.servers


def _measure(options: Options, stage: Stage, cases: Sequence[Case], results: Results, say: Say) -> None:
    extras = _extras(options)
    if "memory" in extras:
        note_memory(stage, results, "idle")
    _measure_rounds(options, stage, cases, results, say)
    for name, measure_extra in extras.items():
        say(GROUPS[name])
        measure_extra(stage, results)


def _measure_rounds(options: Options, stage: Stage, cases: Sequence[Case], results: Results, say: Say) -> None:
    for case in cases:
        if case.server != "signing":
            say(f"warming up: {case.title}, {case.connections} connections")
            generator.run(_load(stage, case, WARM_UP_S), stage.load_core)
    for number in range(options.rounds):
        for case in in_order(cases, number):
            if number < case.max_rounds:
                sample = measure(stage, case, case.seconds_of(options.seconds))
                results.add(case.name, sample)
                say(f"round {number + 1}: {case.title}, {case.connections} connections: {sample.rate:,.0f}/s")


def _extras(options: Options) -> dict[str, Callable[[Stage, Results], None]]:
    """What is looked at after the rounds, by group, as far as it was asked for."""
    extras: dict[str, Callable[[Stage, Results], None]] = {
        "cheap": partial(measure_cheap, seconds=options.seconds, repeats=options.rounds),
        "memory": partial(note_memory, when="after load"),
        "start": partial(measure_starts, repeats=QUICK_STARTS if options.quick else STARTS),
        "micro": measure_parts,
        "control": partial(
            measure_control,
            n_live=QUICK_N_LIVE if options.quick else N_LIVE,
            repeats=1 if options.quick else min(options.rounds, 5),
        ),
    }
    return {name: extra for name, extra in extras.items() if name in options.only}


def _load(stage: Stage, case: Case, seconds: int) -> Load:
    return Load(stage.ports[case.server], case.connections, seconds, stage.files[case.traffic])


def measure(stage: Stage, case: Case, seconds: int) -> Sample:
    """Measure one round of one case. Raises LoadFailedError if an answer was not a success."""
    if case.server == "signing":
        return _signing(stage, seconds)
    load = _load(stage, case, seconds)
    if case.cold_every:
        cold = stage.cold_file(case.n_cold(seconds))
        load = Load(load.port, load.connections, seconds, load.warm, cold, case.cold_every)
    process = stage.servers[case.server]
    before = machine.cpu_seconds(process.pid)
    outcome = generator.run(load, stage.load_core)
    cpu_us = (machine.cpu_seconds(process.pid) - before) / outcome.n * 1e6
    # What was logged would fill the disk in the long run; the files are opened for appending.
    os.truncate(process.log, 0)
    return Sample(outcome.rate, outcome.n, outcome.p50_us, outcome.p99_us, cpu_us)


def _signing(stage: Stage, seconds: int) -> Sample:
    command = [sys.executable, "-m", "bench.signing", str(seconds)]
    rate = float(stage.output_of(command))
    return Sample(rate, round(rate * seconds), cpu_us=1e6 / rate)


def _about(options: Options, stage: Stage, busy: float) -> Circumstances:
    text = (stage.attribute.folder / "model.txt").read_text()
    n_trees, n_columns = text.count("\nTree="), len(stage.attribute.columns)
    return Circumstances(
        date=dt.datetime.now(dt.UTC).date().isoformat(),
        machine=machine.description(),
        generator=generator.name(),
        versions=machine.versions(),
        rounds=options.rounds,
        seconds=options.seconds,
        attribute=stage.attribute.id,
        shape=f"{n_trees} trees, {n_columns} features",
        n_rows=N_ROWS,
        n_tokens=len(stage.tokens),
        n_same=stage.n_same,
        busy=busy,
    )
