"""How ``flex keys`` speaks: tables and sentences for people, JSON for programs."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from auth_server.keyring import confirmation
from auth_server.keyring.changes import Change
from auth_server.keyring.confirmation import Reports
from auth_server.keyring.ring import KeyPolicy, KeyRing, KeyState, activation_safe_at, when
from auth_server.keyring.status import ChangeReport, KeyStatus, RingStatus, VerifierStatus, change_report
from cli.output import one_line, print_json

SHORT_KID = 16
_LINE_EVERY_S = 15.0
_STYLES = {
    "active": "bold green",
    "confirmed": "cyan",
    "published": "blue",
    "staged": "blue",
    "retiring": "yellow",
    "removed": "dim",
}


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
    console.print(_verifiers(status))
    console.print(status.advice, highlight=False, markup=False)
    if not all(key.encrypted for key in status.keys if key.state not in {"retiring", "removed"}):
        console.print("Private keys rest unencrypted (mode 0600); FLEX_KEYS_PASSPHRASE_FILE encrypts new ones.")


def _verifiers(status: RingStatus) -> Table | str:
    if not status.verifiers_known:
        return "Verifiers: not known, as the store can't be read."
    if not status.verifiers:
        return "Verifiers: none has reported."
    table = Table(title="Verifiers", title_justify="left")
    table.add_column("verifier", overflow="fold")
    for column in ("seen", "feed", "holds, and since when"):
        table.add_column(column, no_wrap=column != "seen")
    for each in status.verifiers:
        table.add_row(
            escape(one_line(each.id)),
            f"{_age(int(each.age_s))} ago" if each.live else f"silent for {_age(int(each.age_s))}",
            escape(one_line(each.feed_state)) or "-",
            "\n".join(_holding(key, each) for key in status.keys if key.kid in each.kids) or "nothing",
            style="" if each.live else "dim",
        )
    return table


def _holding(key: KeyStatus, verifier: VerifierStatus) -> str:
    proved_at = verifier.proved_at.get(key.kid)
    now = verifier.seen_at + verifier.age_s
    if proved_at is not None:
        since = f"proved {_age(max(0, int(now - proved_at)))} ago"
    else:  # a key that signs no more signs no canary either, so a restarted verifier can only hold it
        since = "held" if key.state in {"retiring", "removed"} else "not proved"
    return f"{key.kid[:SHORT_KID]} {key.state}, {since}"


def _row(key: KeyStatus, now: float) -> tuple[str, ...]:
    state = "compromised" if key.compromised else key.state
    expiry = _ahead(key.last_expiry_at, now, "over") if key.last_expiry_at else "never signed"
    safe = _ahead(key.safe_at, now, "waits for verifiers" if key.waits_for else "now")
    return key.kid[:SHORT_KID], state, _age(key.age_s), expiry, key.next_step or "none", safe


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


def print_change(change: Change, *, as_json: bool, unpushed: str | None = None) -> None:
    """Print what a change did. ``unpushed``: why the feed does not have a dropped key (empty: it has it)."""
    report = change_report(change, pushed=None if unpushed is None else not unpushed)
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


def warn_of_force(missing: Sequence[str]) -> None:
    """Say aloud, on standard error, what a forced activation passes over."""
    typer.echo("FORCED: the key is activated without the checks that keep callers from noticing.", err=True)
    for sentence in missing or ["Nothing was missing; it would have been activated without --force as well."]:
        typer.echo(f"FORCED: {one_line(sentence)}", err=True)


def print_dropped(change: Change, policy: KeyPolicy, unpushed: str) -> None:
    """Say when the tokens of a dropped key are refused. ``unpushed``: why the feed does not have it (empty: it has)."""
    if change.overtaken:
        return
    if unpushed:
        typer.echo(
            f"The revocation could not be pushed to the verifiers ({one_line(unpushed)}). A running auth server pushes "
            "it as soon as it can; until then a verifier drops the key at its next fetch of the key set, within "
            f"{policy.max_age_s + policy.stale_s:g} s.",
            err=True,
        )
    else:
        typer.echo("The revocation is in the feed: every verifier that follows it drops the key within a second.")
    typer.echo(
        "Callers: tokens of the dropped key get 401 invalid_token; getting a new token and repeating the call once "
        "cures it."
    )


def print_consequences(change: Change, reports: Reports, policy: KeyPolicy, now: float) -> None:
    """Say what callers will see after another key was activated. ``reports``: what the verifiers said."""
    behind: list[str] = []
    for key in change.moved_to(KeyState.ACTIVE):
        if now < activation_safe_at(key, policy):
            until = when(activation_safe_at(key, policy), now)
            behind.append(f"The new key is young: until {until} a verifier may not hold it yet")
        if lags := confirmation.laggards(key.kid, reports or (), now, policy):
            behind.append(f"Verifiers without proof of the new key: {confirmation.named(lags, now)}")
    for sentence in behind:
        typer.echo(f"{one_line(sentence)}; it answers 401 to the new tokens until its next fetch.")
    if behind or change.overtaken or any(key.compromised for key in change.moved_to(KeyState.REMOVED)):
        return
    if reports:
        typer.echo("Callers notice nothing: every verifier proved the new key, and the old one stays published.")
    else:
        typer.echo(
            "Callers notice nothing: the new key is older than any key set in a cache (no verifier has reported, so "
            "its age alone decided), and the old one stays published."
        )
