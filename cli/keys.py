"""``flex keys …``: look at the key ring, and move its keys through their states.

Results go to standard output, everything else (countdown, refusals) to standard error, events to
``operator-events.jsonl`` in the var folder.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Annotated

import typer

from auth_server.keyring import confirmation
from auth_server.keyring.changes import Change, RingChanges
from auth_server.keyring.confirmation import Obstacles, Reports
from auth_server.keyring.folder import KeysFolder
from auth_server.keyring.policy import ring_policy
from auth_server.keyring.ring import KeyRing, KeyState, SigningKey, activation_safe_at, when
from auth_server.keyring.status import ring_status
from auth_server.settings import AuthSettings
from cli import keys_output, keys_store
from cli.session import reported
from shared.errors import AppError

app = typer.Typer(
    name="keys",
    help="Signing keys: staged → published → confirmed → active → retiring → removed. A key signs only when every "
    "verifier is known to hold it.",
    no_args_is_help=True,
)


class KeySize(StrEnum):
    """Bits of a new RSA key: a larger one signs slower (2048: 0.4 ms, 3072: 1.2 ms, 4096: 2.4 ms)."""

    SMALL = "2048"
    MEDIUM = "3072"
    LARGE = "4096"


Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Bits = Annotated[KeySize, typer.Option("--bits", help="Size of a key that is made.")]
Kid = Annotated[str, typer.Argument(help="The key's kid, or the first characters of it (at least 6).")]


Force = Annotated[
    bool,
    typer.Option("--force", "--emergency", help="Skip both checks, age and verifiers; told aloud and as an event."),
]


@contextlib.contextmanager
def _ring_changes(bits: KeySize = KeySize.SMALL) -> Iterator[tuple[RingChanges, AuthSettings]]:
    """Open the ring that the settings name; a refusal in the body of the ``with`` ends the command with one line."""
    with reported():
        settings = AuthSettings.read()
        folder = KeysFolder(settings.keys_dir, settings.keys_passphrase_file)
        yield RingChanges(folder, ring_policy(settings), time.time, int(bits)), settings


def _full_kid(changes: RingChanges, text: str) -> str:
    """Complete a shortened kid; AppError not_found or conflict where that does not name one key."""
    ring, _ = changes.folder.read()
    found = [key.kid for key in ring.keys if key.kid == text or (len(text) >= 6 and key.kid.startswith(text))]
    if not found:
        raise AppError("not_found", "No key of the ring has this kid; see 'flex keys status'.")
    if len(found) > 1:
        raise AppError("conflict", "Several keys begin so; give more characters of the kid.")
    return found[0]


@app.command(epilog="Example: flex keys status --json")
def status(*, as_json: Json = False) -> None:
    """Show every key's state and the earliest safe next step, and what each verifier holds and since when."""
    with _ring_changes() as (changes, settings):
        ring, _ = changes.folder.read()
        with keys_store.open_reports(settings) as read_reports:
            reports, now = read_reports(), time.time()
        keys_output.print_status(ring_status(ring, reports, now, changes.policy), now, as_json=as_json)


@app.command(epilog="Example: flex keys prepare --bits 3072")
def prepare(*, bits: Bits = KeySize.SMALL, as_json: Json = False) -> None:
    """Publish one more standby key; make the first ring where there is none."""
    with _ring_changes(bits) as (changes, _):
        if not changes.folder.manifest_path.exists():
            ring = changes.folder.ensure(time.time(), changes.policy, n_bits=int(bits))
            keys_output.print_first(ring, as_json=as_json)
            return
        keys_output.print_change(changes.prepare(), as_json=as_json)


@app.command(epilog="Example: flex keys activate kM3vRZ")
def activate(
    kid: Annotated[str, typer.Argument(help="A standby key's kid (default: the one published longest).")] = "",
    *,
    force: Force = False,
    bits: Bits = KeySize.SMALL,
    as_json: Json = False,
) -> None:
    """Let a standby key sign and retire the active key, which stays published until its last token is over.

    Refused unless the key is old enough and every live verifier has proved that it holds it.
    """
    with _ring_changes(bits) as (changes, settings):
        with keys_store.open_reports(settings) as read_reports:
            reports = read_reports()
        ring, _ = changes.folder.read()
        chosen = ring.find(_full_kid(changes, kid)) if kid else ring.next_standby
        if force and chosen.state is KeyState.STANDBY:
            _warn(changes, chosen, reports)
        change = changes.activate(chosen.kid, reports=reports, force=force)
        keys_output.print_change(change, as_json=as_json)
        if not as_json:
            keys_output.print_consequences(change, reports, changes.policy, time.time())


def _warn(changes: RingChanges, key: SigningKey, reports: Reports) -> None:
    now, policy = changes.clock(), changes.policy
    keys_output.warn_of_force(confirmation.sentences(confirmation.obstacles(key, reports, now, policy), now, policy))


@app.command(epilog="Example: flex keys retire   (or, to withdraw one standby key: flex keys retire kM3vRZ)")
def retire(
    kid: Annotated[str, typer.Argument(help="A standby or retired key's kid (default: all that are due).")] = "",
    *,
    bits: Bits = KeySize.SMALL,
    as_json: Json = False,
) -> None:
    """Remove retired keys that no live token can need, or withdraw a standby key that shall never sign."""
    with _ring_changes(bits) as (changes, _):
        change = changes.retire(_full_kid(changes, kid)) if kid else changes.sweep()
        keys_output.print_change(change, as_json=as_json)


@app.command(epilog="Example: flex keys revoke kM3vRZ")
def revoke(kid: Kid, *, bits: Bits = KeySize.SMALL, as_json: Json = False) -> None:
    """Drop a compromised key at once, whatever live tokens need it: every verifier refuses its tokens in a second."""
    with _ring_changes(bits) as (changes, settings):
        _drop(changes, settings, changes.revoke(_full_kid(changes, kid)), as_json=as_json)


def _drop(changes: RingChanges, settings: AuthSettings, change: Change, *, as_json: bool) -> None:
    """Push what a change dropped, which is in the ring already, and print both."""
    dropped = tuple(key.kid for key in change.moved_to(KeyState.REMOVED) if key.compromised)
    unpushed = keys_store.push(settings, dropped) if dropped else None
    keys_output.print_change(change, as_json=as_json, unpushed=unpushed)
    if not as_json:
        keys_output.print_dropped(change, changes.policy, unpushed or "")
        keys_output.print_consequences(change, (), changes.policy, time.time())


@app.command(epilog="Example: flex keys rotate   (or: flex keys rotate --no-wait --json)")
def rotate(
    *,
    emergency: Annotated[
        bool, typer.Option("--emergency", help="Drop the active key now, as compromised; no waiting.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Skip both checks, age and verifiers; told aloud and as an event.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait until every verifier holds the key, or refuse at once.")
    ] = True,
    wait_timeout: Annotated[
        float | None, typer.Option("--wait-timeout", min=0, help="Refuse if it would take longer (seconds).")
    ] = None,
    generation: Annotated[
        int | None, typer.Option("--generation", help="Only if the ring still has this generation; else it is done.")
    ] = None,
    bits: Bits = KeySize.SMALL,
    as_json: Json = False,
) -> None:
    """Rotate in one step: the standby key signs, the active one retires, a new standby key is published.

    A planned rotation waits until the standby key is older than any key set in a cache and every live verifier has
    proved that it holds it, so no caller notices it. It can be broken off and started again at any time.
    """
    with _ring_changes(bits) as (changes, settings):
        ring, _ = changes.folder.read()
        if generation is not None and ring.generation != generation:
            keys_output.print_change(Change(ring, ring, overtaken=True), as_json=as_json)
        elif emergency:
            _drop(changes, settings, changes.rotate_in_emergency(seen_active=ring.active.kid), as_json=as_json)
        else:
            longest_s = (wait_timeout if wait_timeout is not None else float("inf")) if wait else 0.0
            change, reports = _planned(changes, settings, ring, longest_s, force=force)
            keys_output.print_change(change, as_json=as_json)
            if not as_json:
                keys_output.print_consequences(change, reports, changes.policy, time.time())


def _planned(
    changes: RingChanges, settings: AuthSettings, ring: KeyRing, longest_s: float, *, force: bool
) -> tuple[Change, Reports]:
    seen = ring.active.kid
    with keys_store.open_reports(settings) as read_reports:
        if force:
            reports = read_reports()
            _warn(changes, ring.next_standby, reports)
            return changes.rotate(seen_active=seen, reports=reports, force=True), reports
        with keys_output.countdown() as tell:
            change = rotate_when_safe(
                changes, seen, longest_s=longest_s, sleep=time.sleep, tell=tell, read_reports=read_reports
            )
        return change, read_reports()


def rotate_when_safe(
    changes: RingChanges,
    seen_active: str,
    *,
    longest_s: float,
    sleep: Callable[[float], None],
    tell: Callable[[str], None],
    read_reports: Callable[[], Reports],
) -> Change:
    """Wait until the standby key may be activated, then rotate; ``tell`` gets what is waited for once a second.

    Ends as ``overtaken`` if another process rotates meanwhile. Raises AppError conflict at once if the store can't be
    read at the start or the key's age alone would take longer than ``longest_s``, and else after ``longest_s``.
    """
    deadline, can_start = changes.clock() + longest_s, False
    while True:
        ring, _ = changes.folder.read()
        reports, now = read_reports(), changes.clock()
        can_start = can_start or reports is not None
        found = confirmation.obstacles(ring.next_standby, reports, now, changes.policy)
        safe_at = activation_safe_at(ring.next_standby, changes.policy)
        over = not can_start or safe_at > deadline or now >= deadline
        if not found or over or ring.active.kid != seen_active:
            return changes.rotate(seen_active=seen_active, reports=reports)
        tell(_waiting(found, safe_at, now))
        sleep(min(1.0, safe_at - now) if found.too_young else 1.0)


def _waiting(found: Obstacles, safe_at: float, now: float) -> str:
    short = found.key.kid[: keys_output.SHORT_KID]
    behind = f"; not proved by {confirmation.named(found.laggards, now)}" if found.laggards else ""
    if found.unknown:
        behind = "; the store can't be read now, so nobody knows what the verifiers hold"
    if found.too_young:
        return f"Waiting until every verifier holds standby key {short}{behind}: {when(safe_at, now)}"
    return f"Standby key {short} is old enough; waiting for the verifiers{behind}"


__all__ = ["app", "rotate_when_safe"]
