"""``flex demo``: the whole story on a throw-away instance, told step by step; exit code 0 only if all of it held."""

import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from cli.output import one_line, one_line_errors, print_json

if TYPE_CHECKING:
    from rich.console import Console

    from cli.demo_stage import Stage, Step

app = typer.Typer(add_completion=False)


@dataclass(frozen=True, slots=True)
class Told:
    """How one step went; ``lines`` is what was seen, or the one sentence that says why it failed."""

    title: str
    ok: bool
    seconds: float
    lines: tuple[str, ...]


@app.command()
def demo(*, as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False) -> None:
    """Tell the whole story on a throw-away instance: about half a minute, free ports, nothing is left behind."""
    from rich.console import Console  # noqa: PLC0415 - loaded only if it is used

    with one_line_errors():
        console = Console(stderr=as_json, highlight=False)
        started = time.monotonic()
        told = list(_tell_all(console))
        seconds = time.monotonic() - started
        ok = all(step.ok for step in told)
        if as_json:
            print_json({"ok": ok, "seconds": round(seconds, 2), "steps": told})
        verdict = "[bold green]All of it held[/]" if ok else f"[bold red]Failed[/] at: {told[-1].title}"
        console.print(f"\n{verdict} ({seconds:.1f} s).")
    raise typer.Exit(0 if ok else 1)


def _tell_all(console: "Console") -> Iterator[Told]:
    from cli.demo_instance import Instance  # noqa: PLC0415 - --help needs no httpx
    from cli.demo_stage import Stage  # noqa: PLC0415
    from cli.demo_story import STEPS  # noqa: PLC0415
    from shared.settings import Settings  # noqa: PLC0415

    with _interrupted_by_sigterm(), Instance(Settings.read().models_dir) as instance, closing(Stage(instance)) as stage:
        for number, step in enumerate(STEPS, 1):
            told = _tell(console, step, stage, f"{number:>2}/{len(STEPS)}")
            yield told
            if not told.ok:
                return


def _tell(console: "Console", step: "Step", stage: "Stage", number: str) -> Told:
    from rich.markup import escape  # noqa: PLC0415

    from cli.demo_ports import DemoError  # noqa: PLC0415
    from flex_client import FlexError  # noqa: PLC0415

    started = time.monotonic()
    lines: list[str] = []
    ok = True
    with console.status(f"{number} {step.title} …"):  # a spinner on a terminal, nothing elsewhere
        try:
            lines.extend(step.run(stage))
        except (DemoError, FlexError) as error:
            ok = False
            lines.append(one_line(str(error)))
    seconds = time.monotonic() - started
    mark = "[green]✓[/]" if ok else "[red]✗[/]"
    console.print(f"{mark} {number} [bold]{step.title}[/] [dim]{seconds:.2f} s[/]")
    for line in lines:
        console.print(f"        {escape(line)}", style="dim" if ok else "red", soft_wrap=True)
    return Told(step.title, ok, round(seconds, 3), tuple(lines))


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the demo as Ctrl-C does, so that its folder and processes go in this case too."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
