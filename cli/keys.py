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

from auth_server.keyring.changes import Change, RingChanges
from auth_server.keyring.folder import KeysFolder
from auth_server.keyring.policy import ring_policy
from auth_server.keyring.ring import activation_safe_at, when
from auth_server.keyring.status import ring_status
from auth_server.settings import AuthSettings
from cli import keys_output
from cli.session import reported
from shared.errors import AppError

app = typer.Typer(
    name="keys",
    help="Signing keys: standby → active → retired → removed. A standby key is always published before it signs.",
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


@contextlib.contextmanager
def _ring_changes(bits: KeySize = KeySize.SMALL) -> Iterator[RingChanges]:
    """Open the ring that the settings name; a refusal in the body of the ``with`` ends the command with one line."""
    with reported():
        settings = AuthSettings.read()
        folder = KeysFolder(settings.keys_dir, settings.keys_passphrase_file)
        yield RingChanges(folder, ring_policy(settings), time.time, int(bits))


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
    """Show every key's state, age, last expiry signed and the earliest safe next step."""
    with _ring_changes() as changes:
        ring, _ = changes.folder.read()
        now = time.time()
        keys_output.print_status(ring_status(ring, now, changes.policy), now, as_json=as_json)


@app.command(epilog="Example: flex keys prepare --bits 3072")
def prepare(*, bits: Bits = KeySize.SMALL, as_json: Json = False) -> None:
    """Publish one more standby key; make the first ring where there is none."""
    with _ring_changes(bits) as changes:
        if not changes.folder.manifest_path.exists():
            ring = changes.folder.ensure(time.time(), changes.policy, n_bits=int(bits))
            keys_output.print_first(ring, as_json=as_json)
            return
        keys_output.print_change(changes.prepare(), as_json=as_json)


@app.command(epilog="Example: flex keys activate kM3vRZ")
def activate(
    kid: Annotated[str, typer.Argument(help="A standby key's kid (default: the one published longest).")] = "",
    *,
    emergency: Annotated[
        bool, typer.Option("--emergency", help="Activate even if verifiers may not hold the key yet.")
    ] = False,
    bits: Bits = KeySize.SMALL,
    as_json: Json = False,
) -> None:
    """Let a standby key sign and retire the active key, which stays published until its last token is over."""
    with _ring_changes(bits) as changes:
        change = changes.activate(_full_kid(changes, kid) if kid else "", emergency=emergency)
        keys_output.print_change(change, as_json=as_json)
        keys_output.print_consequences(change, changes.policy, time.time(), as_json=as_json)


@app.command(epilog="Example: flex keys retire   (or, to withdraw one standby key: flex keys retire kM3vRZ)")
def retire(
    kid: Annotated[str, typer.Argument(help="A standby or retired key's kid (default: all that are due).")] = "",
    *,
    bits: Bits = KeySize.SMALL,
    as_json: Json = False,
) -> None:
    """Remove retired keys that no live token can need, or withdraw a standby key that shall never sign."""
    with _ring_changes(bits) as changes:
        change = changes.retire(_full_kid(changes, kid)) if kid else changes.sweep()
        keys_output.print_change(change, as_json=as_json)


@app.command(epilog="Example: flex keys revoke kM3vRZ")
def revoke(kid: Kid, *, bits: Bits = KeySize.SMALL, as_json: Json = False) -> None:
    """Drop a compromised key at once, whatever live tokens need it; its tokens are refused from then on."""
    with _ring_changes(bits) as changes:
        change = changes.revoke(_full_kid(changes, kid))
        keys_output.print_change(change, as_json=as_json)
        keys_output.print_consequences(change, changes.policy, time.time(), as_json=as_json)


@app.command(epilog="Example: flex keys rotate   (or: flex keys rotate --no-wait --json)")
def rotate(
    *,
    emergency: Annotated[
        bool, typer.Option("--emergency", help="Drop the active key now, as compromised; no waiting.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait until the standby key is old enough, or refuse at once.")
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

    A planned rotation waits until every verifier holds the standby key, so no caller notices it. It can be broken
    off and started again at any time.
    """
    with _ring_changes(bits) as changes:
        ring, _ = changes.folder.read()
        seen = ring.active.kid
        if generation is not None and ring.generation != generation:
            keys_output.print_change(Change(ring, ring, overtaken=True), as_json=as_json)
            return
        if emergency:
            change = changes.rotate_in_emergency(seen_active=seen)
        else:
            longest_s = (wait_timeout if wait_timeout is not None else float("inf")) if wait else 0.0
            with keys_output.countdown() as tell:
                change = rotate_when_safe(changes, seen, longest_s=longest_s, sleep=time.sleep, tell=tell)
        keys_output.print_change(change, as_json=as_json)
        keys_output.print_consequences(change, changes.policy, time.time(), as_json=as_json)


def rotate_when_safe(
    changes: RingChanges,
    seen_active: str,
    *,
    longest_s: float,
    sleep: Callable[[float], None],
    tell: Callable[[str], None],
) -> Change:
    """Wait until the standby key may be activated, then rotate; ``tell`` gets the countdown once a second.

    Ends as ``overtaken`` if another process rotates meanwhile. Raises AppError conflict at once if the wait would be
    longer than ``longest_s``.
    """
    deadline = changes.clock() + longest_s
    while True:
        ring, _ = changes.folder.read()
        now, safe_at = changes.clock(), activation_safe_at(ring.next_standby, changes.policy)
        if now >= safe_at or safe_at > deadline or ring.active.kid != seen_active:
            return changes.rotate(seen_active=seen_active)
        tell(f"Waiting until every verifier holds standby key {ring.next_standby.kid[:16]}: {when(safe_at, now)}")
        sleep(min(1.0, safe_at - now))


__all__ = ["app", "rotate_when_safe"]
