"""How ``flex keys`` speaks: tables and sentences for people, JSON for programs."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from auth_server.keyring.changes import Change
from auth_server.keyring.ring import KeyPolicy, KeyRing, KeyState, activation_safe_at, when
from auth_server.keyring.status import KeyStatus, RingStatus
from cli.output import print_json

SHORT_KID = 16
_LINE_EVERY_S = 15.0
_STYLES = {"active": "bold green", "standby": "cyan", "retired": "yellow", "removed": "dim"}


class ChangeReport(msgspec.Struct, frozen=True):
    """What a command did, as kids. ``overtaken``: another process had done it already."""

    generation: int
    active: str
    overtaken: bool
    prepared: tuple[str, ...]
    activated: tuple[str, ...]
    retired: tuple[str, ...]
    removed: tuple[str, ...]
    revoked: tuple[str, ...]


@contextlib.contextmanager
def countdown() -> Iterator[Callable[[str], None]]:
    """Gives a function that shows how long is left: one changing line on a terminal, else a line now and then."""
    console = Console(stderr=True)
    if console.is_terminal:
        with console.status("Looking at the key ring") as status:
            yield status.update
        return
    told_at = float("-inf")

    def tell(sentence: str) -> None:
        nonlocal told_at
        if time.monotonic() - told_at >= _LINE_EVERY_S:
            told_at = time.monotonic()
            typer.echo(sentence, err=True)

    yield tell


def print_status(status: RingStatus, now: float, *, as_json: bool) -> None:
    """Print the ring: a table and one sentence, or everything as JSON."""
    if as_json:
        print_json(status)
        return
    table = Table(title=f"Key ring, generation {status.generation}", title_justify="left")
    for column in ("kid", "state", "age", "last expiry, at most", "next step", "safe"):
        table.add_column(column, no_wrap=column in {"kid", "state", "age"})
    for key in status.keys:
        table.add_row(*_row(key, now), style=_STYLES[key.state])
    console = Console()
    console.print(table)
    console.print(status.advice)
    if not all(key.encrypted for key in status.keys if key.state in {"active", "standby"}):
        console.print("Private keys rest unencrypted (mode 0600); FLEX_KEYS_PASSPHRASE_FILE encrypts new ones.")


def _row(key: KeyStatus, now: float) -> tuple[str, ...]:
    state = "compromised" if key.compromised else key.state
    expiry = _ahead(key.last_expiry_at, now, "over") if key.last_expiry_at else "never signed"
    return key.kid[:SHORT_KID], state, _age(key.age_s), expiry, key.next_step or "none", _ahead(key.safe_at, now, "now")


def _ahead(at: float | None, now: float, past: str) -> str:
    if at is None:
        return "-"
    return past if at <= now else f"in {_age(math.ceil(at - now))}"


def _age(seconds: int) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def print_first(ring: KeyRing, *, as_json: bool) -> None:
    """Print that the first ring was made."""
    print_change(Change(KeyRing(0, ()), ring), as_json=as_json)


def print_change(change: Change, *, as_json: bool) -> None:
    """Print what a change did."""
    gone = change.moved_to(KeyState.REMOVED)
    report = ChangeReport(
        generation=change.after.generation,
        active=change.after.active.kid,
        overtaken=change.overtaken,
        prepared=tuple(key.kid for key in change.moved_to(KeyState.STANDBY)),
        activated=tuple(key.kid for key in change.moved_to(KeyState.ACTIVE)),
        retired=tuple(key.kid for key in change.moved_to(KeyState.RETIRED)),
        removed=tuple(key.kid for key in gone if not key.compromised),
        revoked=tuple(key.kid for key in gone if key.compromised),
    )
    if as_json:
        print_json(report)
        return
    for line in _sentences(report):
        typer.echo(line)


def _sentences(report: ChangeReport) -> Iterator[str]:
    if report.overtaken:
        yield f"Done already: another rotation finished first; {report.active} signs (generation {report.generation})."
        return
    told = (
        ("Revoked", report.revoked, "compromised; no longer published"),
        ("Activated", report.activated, "signs from now on"),
        ("Retired", report.retired, "signs no more, stays published until its last token is over"),
        ("Prepared", report.prepared, "published as standby"),
        ("Removed", report.removed, "private key deleted"),
    )
    lines = [f"{verb} {kid}: {meaning}." for verb, kids, meaning in told for kid in kids]
    yield from lines or ["Nothing to do: no retired key can be removed yet; see 'flex keys status'."]


def print_consequences(change: Change, policy: KeyPolicy, now: float, *, as_json: bool) -> None:
    """Say what callers will see after a key was dropped or changed."""
    if as_json or change.overtaken:
        return
    young = [key for key in change.moved_to(KeyState.ACTIVE) if now < activation_safe_at(key, policy)]
    if any(key.compromised for key in change.moved_to(KeyState.REMOVED)):
        typer.echo(
            "Callers: tokens of the dropped key get 401 invalid_token once a verifier has fetched the new key set, "
            f"within {policy.max_age_s + policy.stale_s:g} s; getting a new token and repeating the call once cures it."
        )
    elif not young:
        typer.echo("Callers notice nothing: every verifier held the new key, and the old one stays published.")
    for key in young:
        typer.echo(
            f"The new key is young: until {when(activation_safe_at(key, policy), now)} a verifier may not hold it yet; "
            "it answers 401 to the new tokens until its next fetch."
        )
