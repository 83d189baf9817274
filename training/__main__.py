"""`python -m training [ids] [--check]`: train the shipped models, or prove that they can be repeated."""

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from training import index
from training.bundle import Bundle, differences, publish
from training.pipeline import STEPS, train
from training.recipes import ATTRIBUTES
from training.report import Report

_MODELS = Path(__file__).resolve().parent.parent / "models"
_IDENTICAL = "identical"


def main(words: list[str] | None = None) -> int:
    """Exit code 0 done or identical, 1 something differs, 2 wrong usage."""
    known = [attribute.id for attribute in ATTRIBUTES]
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("ids", nargs="*", metavar="id", help=f"attributes to train (all: {' '.join(known)})")
    parser.add_argument("--check", action="store_true", help="train again, write nothing, compare byte by byte")
    parser.add_argument("--out", type=Path, default=_MODELS, help="folder of the bundles (models/)")
    arguments = parser.parse_args(words)
    unknown = sorted(set(arguments.ids) - set(known))
    if unknown:
        parser.error(f"unknown attribute: {', '.join(unknown)}")
    wanted = [id_ for id_ in known if not arguments.ids or id_ in arguments.ids]
    console = Console(stderr=True)
    trained = _train(wanted, console)
    verdicts = {
        bundle.id: _compare(bundle, arguments.out) if arguments.check else _publish(bundle, arguments.out)
        for bundle, _ in trained
    }
    if not arguments.check:
        index.publish(arguments.out)
    console.print(_summary(trained, verdicts))
    if not index.current(arguments.out):
        console.print("README.md does not fit the bundles beside it: train without --check")
        return 1
    return int(arguments.check and any(verdict != _IDENTICAL for verdict in verdicts.values()))


def _train(wanted: list[str], console: Console) -> list[tuple[Bundle, Report]]:
    columns = (TextColumn("{task.description:<36}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("training", total=len(wanted) * len(STEPS))
        trained = []
        for done, id_ in zip(range(0, len(wanted) * len(STEPS), len(STEPS)), wanted, strict=True):

            def tell(step: str, id_: str = id_, done: int = done) -> None:
                progress.update(task, description=f"{id_}: {step}", completed=done + STEPS.index(step))

            trained.append(train(id_, tell))
        progress.update(task, description="trained", completed=len(wanted) * len(STEPS))
    return trained


def _compare(bundle: Bundle, models: Path) -> str:
    found = differences(bundle, models)
    return f"differs: {', '.join(found)}" if found else _IDENTICAL


def _publish(bundle: Bundle, models: Path) -> str:
    return "written" if publish(bundle, models) else "unchanged"


def _summary(trained: list[tuple[Bundle, Report]], verdicts: dict[str, str]) -> Table:
    table = Table("attribute", box=None, pad_edge=False)
    for name in ("R²", "ridge", "25 % missing", "80 % half-width", "covered", "KB"):
        table.add_column(name, justify="right")
    table.add_column("bundle")
    for bundle, report in trained:
        s = report.scores
        figures = (s.r2, s.r2_ridge, s.r2_missing25, report.half_width_full, s.coverage80)
        size = f"{len(bundle.files['model.txt']) / 1024:.0f}"
        table.add_row(bundle.id, *(f"{value:.2f}" for value in figures), size, verdicts[bundle.id])
    return table


if __name__ == "__main__":
    sys.exit(main())
