"""Steps of the demo about signing keys: proved, rotated, held up by a laggard, dropped."""

import time
from collections.abc import Iterator
from typing import Any

from cli.demo_callers import Callers, part_of
from cli.demo_instance import wait_until
from cli.demo_ports import DemoError
from cli.demo_stage import PATIENCE_S, Stage, hold

N_CALLERS = 3
_SHORT = 12


def verifiers(stage: Stage) -> Iterator[str]:
    """Wait until both model servers have proved the standby key."""
    status = _confirmed(stage)
    kid = _standby(status)["kid"]
    yield f"standby key {kid[:_SHORT]}…, old enough and confirmed"
    now = time.time()
    for each in status["verifiers"]:
        since = max(0.0, now - each["proved_at"][kid])
        yield f"{each['id']} verified a token that this key has signed, {since:.1f} s ago"


def rotate(stage: Stage) -> Iterator[str]:
    """Rotate with callers at work, none of which may notice."""
    before = _active(stage)
    with Callers(stage.account, stage.features, n=N_CALLERS, fresh_tokens=True) as callers:
        hold(wait_until(lambda: before in callers.kids, PATIENCE_S), "The callers do not get going.")
        after = str(stage.instance.flex("keys", "rotate")["active"])
        hold(wait_until(lambda: after in callers.kids, PATIENCE_S), "No token of the new key was seen.")
        n_then = callers.n_calls
        wait_until(lambda: callers.n_calls >= n_then + 200, PATIENCE_S)
    hold(not callers.failures, f"{len(callers.failures)} calls failed, the first with: {callers.failures[:1]}")
    yield f"flex keys rotate: {before[:_SHORT]}… → {after[:_SHORT]}…"
    n_tokens = sum(callers.kids.values())
    yield f"{callers.n_calls:,} calls with {n_tokens} fresh tokens of both keys meanwhile, 0 failed"


def laggard(stage: Stage) -> Iterator[str]:
    """Halt the second model server before it can prove the next key, and try to rotate."""
    _confirmed(stage)
    with stage.instance.frozen_server("model-2"):
        stage.instance.flex("keys", "rotate")  # to a key that the halted one has proved; the next one it can't see
        hold(wait_until(lambda: _only_waits(stage), PATIENCE_S), "The key's age is not the only obstacle.")
        behind = _standby(_status(stage))["waits_for"]
        refused = stage.instance.run("keys", "rotate", "--no-wait")
        hold(refused.returncode == 1, "A key was activated that a verifier has not proved.")
        hold(len(behind) == 1 and behind[0] in refused.stderr, f"The refusal names nobody: {refused.stderr}")
        yield f"{behind[0]} hangs; flex keys rotate --no-wait → exit code 1:"
        yield refused.stderr.strip().removeprefix("flex: ")
    woken = time.monotonic()
    stage.instance.flex("keys", "rotate")
    yield f"it goes on and proves the key; flex keys rotate is done {time.monotonic() - woken:.1f} s later"


def emergency(stage: Stage) -> Iterator[str]:
    """Drop the active key and see how soon its tokens are refused."""
    _confirmed(stage)
    stolen = stage.account.credentials().access_token()
    dropped = part_of(stolen, 0)["kid"]
    with Callers(stage.account, stage.features, n=N_CALLERS, fresh_tokens=False) as callers:
        hold(wait_until(lambda: dropped in callers.kids, PATIENCE_S), "The callers do not get going.")
        with stage.watched(stolen) as watch:
            typed_at = time.time()
            after = str(stage.instance.flex("keys", "rotate", "--emergency")["active"])
            dropped_at = stage.instance.event_at("key_revoked")
            refused_ms = watch.after(dropped_at)
        hold(wait_until(lambda: after in callers.kids, PATIENCE_S), "The callers did not get a new token.")
    hold(not callers.failures, f"{len(callers.failures)} calls failed, the first with: {callers.failures[:1]}")
    hold(stage.statuses(stage.account.credentials().access_token()) == {200}, "A token of the new key is refused.")
    yield f"flex keys rotate --emergency: {dropped[:_SHORT]}… is gone, {after[:_SHORT]}… signs"
    typed = f"({1000 * (dropped_at - typed_at):.0f} ms after the command was typed)"
    yield f"401 for its tokens at both model servers {refused_ms:.0f} ms after the key was dropped {typed}"
    yield f"{callers.n_calls:,} calls of the Python client meanwhile, 0 lost: one retry with a new token"


def _status(stage: Stage) -> dict[str, Any]:
    return stage.instance.flex("keys", "status")


def _active(stage: Stage) -> str:
    return str(next(key["kid"] for key in _status(stage)["keys"] if key["state"] == "active"))


def _standby(status: dict[str, Any]) -> dict[str, Any]:
    for key in status["keys"]:
        if key["state"] in {"staged", "published", "confirmed"}:
            found: dict[str, Any] = key
            return found
    raise DemoError("There is no standby key.")


def _confirmed(stage: Stage) -> dict[str, Any]:
    """Wait until the standby key may sign and both model servers have reported; give the ring's status."""
    seen: dict[str, Any] = {}

    def confirmed() -> bool:
        seen.update(_status(stage))
        return _standby(seen)["state"] == "confirmed" and len(seen["verifiers"]) == len(stage.instance.model_servers)

    hold(wait_until(confirmed, PATIENCE_S), "The verifiers do not prove the standby key.")
    return seen


def _only_waits(stage: Stage) -> bool:
    """Whether the standby key is old enough, so that only a verifier's proof is missing."""
    standby = _standby(_status(stage))
    return bool(standby["waits_for"]) and standby["safe_at"] <= time.time()
