"""``flex serve``: run the store, the auth server and the model server, together or alone."""

import asyncio
import json
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from auth_server.settings import AuthSettings
from cli.first_calls import first_calls, summary
from cli.supervisor import Part, SuperviseError, supervise
from model_server.settings import ModelSettings
from shared import events
from shared.settings import Settings, SettingsError

app = typer.Typer(help="Run the servers.", no_args_is_help=True)
_SETTINGS: dict[Part, type[Settings]] = {"store": Settings, "auth": AuthSettings, "model": ModelSettings}
AsJson = Annotated[bool, typer.Option("--json", help="Say where things are as one JSON line.")]


@app.command("all")
def serve_all(as_json: AsJson = False) -> None:
    """Run store, auth server and model server until Ctrl-C or SIGTERM; a crashed one is started again."""
    _run(("store", "auth", "model"), as_json=as_json)


@app.command("auth")
def serve_auth(as_json: AsJson = False) -> None:
    """Run the auth server; the embedded store is attached to, or started if nobody has."""
    _run(("store", "auth"), as_json=as_json)


@app.command("model")
def serve_model(as_json: AsJson = False) -> None:
    """Run the model server; without the issuer or the store it goes on from what it last knew."""
    _run(("model",), as_json=as_json)


@app.command("store")
def serve_store(as_json: AsJson = False) -> None:
    """Run the embedded store alone."""
    _run(("store",), as_json=as_json)


def _run(parts: Sequence[Part], *, as_json: bool) -> None:
    settings = _checked_settings(parts)
    events.configure(server="supervisor")

    async def announce() -> None:
        await asyncio.to_thread(_announce, settings, parts, as_json=as_json)

    try:
        asyncio.run(supervise(settings, parts, on_ready=announce))
    except SuperviseError as problem:
        print(problem, file=sys.stderr)
        raise typer.Exit(1) from None
    finally:
        events.flush()


def _checked_settings(parts: Sequence[Part]) -> Settings:
    """Read the settings, and tell every problem that any of the parts would have with them."""
    problems: list[str] = []
    for part in parts:
        try:
            _SETTINGS[part].read()
        except SettingsError as error:
            problems += error.problems
    for problem in dict.fromkeys(problems):
        print(problem, file=sys.stderr)
    if problems:
        raise typer.Exit(1)
    return Settings.read()


def _announce(settings: Settings, parts: Sequence[Part], *, as_json: bool) -> None:
    where = summary(settings)
    shown = {"auth_server": "auth", "model_server": "model", "store": "store", "demo_client": "auth"}
    where = {name: place for name, place in where.items() if shown.get(name, name) in {*parts, "keys", "models"}}
    if as_json:
        print(json.dumps(where), flush=True)
        return
    lines = ["", "Flex is ready. Ctrl-C stops everything cleanly.", ""]
    lines += [f"  {name.replace('_', ' '):<13} {place}" for name, place in where.items()]
    if len(parts) == 3:
        for title, command in first_calls(settings):
            lines += ["", f"# {title}", command]
    print("\n".join([*lines, ""]), flush=True)
