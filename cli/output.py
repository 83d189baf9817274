"""How every command answers: JSON for programs, and for a refusal one clear line and exit code 1."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

import msgspec
import typer

from shared.errors import AppError
from shared.settings import SettingsError

DEBUG_VARIABLE = "FLEX_DEBUG"
_OUR_PACKAGES = frozenset({"auth_server", "cli", "flex_client", "model_server", "shared"})


def print_json(answer: Any) -> None:
    """Write an answer (dataclasses, structs, dictionaries, lists) as indented JSON on standard output."""
    typer.echo(msgspec.json.format(msgspec.json.encode(answer), indent=2).decode())


def fail(sentence: str) -> NoReturn:
    """Write one line on standard error and end the command with exit code 1."""
    typer.echo(f"flex: {one_line(sentence)}", err=True)
    raise typer.Exit(1)


def one_line(sentence: str) -> str:
    """Put a sentence on one line; control characters, which a server could use to paint a terminal, go."""
    return "".join(char if char.isprintable() else " " for char in sentence).strip()


def sentence_of(error: Exception) -> str:
    """Say what went wrong, for a person. Known refusals speak for themselves; others name their type."""
    if isinstance(error, SettingsError):
        return " ".join(error.problems)
    if isinstance(error, AppError):
        fields = "".join(f" {problem.pointer}: {problem.message}" for problem in error.errors)
        return error.detail + fields
    # Our own exceptions are written for whoever reads them; by name, as importing them all would be slow.
    if type(error).__module__.partition(".")[0] in _OUR_PACKAGES:
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}{f': {error.filename}' if error.filename else ''}"
    return f"unexpected {type(error).__name__}: {error} ({DEBUG_VARIABLE}=1 shows where)"


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn any exception into one line and exit code 1; with FLEX_DEBUG=1 the traceback comes first."""
    try:
        yield
    except Exception as error:
        if type(error).__module__.startswith("typer"):  # exits and usage errors: typer's own business
            raise
        if os.environ.get(DEBUG_VARIABLE) == "1":
            import traceback  # noqa: PLC0415 - for this rare case only

            traceback.print_exc(file=sys.stderr)
        fail(sentence_of(error))
