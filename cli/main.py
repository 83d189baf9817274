"""The root of ``flex``: the list of its nouns, each loaded only when it is used."""

import importlib
import importlib.metadata
import re
import sys
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group

from cli.output import one_line_errors


@dataclass(frozen=True, slots=True)
class Noun:
    """One entry of ``flex --help``: where its typer app is, and its line. A group has commands of its own."""

    module: str
    line: str
    app: str = "app"
    is_group: bool = True


NOUNS = {
    "serve": Noun("cli.serve", "Start the store, the auth server, the model server, or all of them."),
    "client": Noun("cli.clients", "OAuth clients: create, list, show, rotate-secret, disable, enable, delete."),
    "keys": Noun("cli.keys", "Signing keys: status, prepare, activate, retire, revoke, rotate."),
    "token": Noun("cli.tokens", "Access tokens: issue, inspect, revoke."),
    "usage": Noun("cli.usage", "Who used what: calls, rows, refusals, times; scopes nobody needed.", is_group=False),
    "predict": Noun("cli.predict", "Score one record with a running model server.", "predict_app", is_group=False),
    "explain": Noun("cli.predict", "Explain one record's score in plain words.", "explain_app", is_group=False),
    "demo": Noun("cli.demo", "Tell the whole story on a throw-away instance.", is_group=False),
}


def _unwrap(command: Any) -> None:
    """Let the terminal wrap the paragraphs of a help text, not the source: it is narrower or wider than that."""
    command.help = re.sub(r"(?<!\n)\n(?!\n)", " ", command.help or "")
    for each in getattr(command, "commands", {}).values():
        _unwrap(each)


class NounGroup(TyperGroup):
    """A group that imports a noun's module when the noun is used, so that each command starts quickly."""

    _listing = False

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        """Name the nouns in the order of the list."""
        return list(NOUNS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        """Load a noun; for the list of ``--help`` only its line is needed."""
        noun = NOUNS.get(cmd_name)
        if noun is None:
            return None
        if self._listing:
            return TyperCommand(name=cmd_name, help=noun.line)
        app = getattr(importlib.import_module(noun.module), noun.app)
        command = get_group(app) if noun.is_group else get_command(app)
        command.name = cmd_name
        _unwrap(command)
        return command

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help without loading every noun."""
        self._listing = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self._listing = False


app = typer.Typer(
    name="flex",
    cls=NounGroup,
    help="Attribute models behind their own OAuth 2.0 server.",
    epilog="Every command has --help and --json. Exit codes: 0 done, 1 refused or failed, 2 wrong usage.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if not wanted:
        return
    try:
        number = importlib.metadata.version("flex-model-api")
    except importlib.metadata.PackageNotFoundError:
        number = "(run from its source folder, not installed)"
    typer.echo(f"flex {number}")
    raise typer.Exit


@app.callback()
def root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Attribute models behind their own OAuth 2.0 server."""


def main() -> None:
    """Run ``flex``; never returns. Whatever goes wrong is one line, FLEX_DEBUG=1 shows the traceback too."""
    try:
        with one_line_errors():
            get_command(app)(prog_name="flex")
    except typer.Exit as end:
        sys.exit(end.exit_code)


if __name__ == "__main__":
    main()
