"""Kills a process at every durable step of every change of a key ring, and looks at what is left each time.

Run as a program (one thread, so that forking is safe): ``crash_driver.py FOLDER`` prints one JSON object, scenario →
number of crash points tried, and fails at the first ring that is not whole. RSA keys come from small pools made
beforehand; they are real keys, only their making is not what is tested. Whoever makes keys (what was done before, the
killed child, the look at what is left) has a pool of its own, so no key ever comes twice into one ring.
"""

import itertools
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa

from auth_server.keyring import changes as keyring_changes
from auth_server.keyring.changes import RingChanges
from auth_server.keyring.folder import MANIFEST, KeysFolder
from auth_server.keyring.ring import KeyPolicy, KeyRing, faults
from shared import events
from shared.errors import AppError

POLICY = KeyPolicy(max_age_s=300, ttl_s=900)
NOW = 1_000_000.0
LATER = NOW + 10_000
_STEPS = ("open", "write", "fsync", "rename", "unlink")
Act = Callable[[KeysFolder], object]


def changed_by(method: str, *, at: float = LATER) -> Act:
    def act(folder: KeysFolder) -> object:
        changes = RingChanges(folder, POLICY, lambda: at)
        ring, _ = folder.read()
        arguments = {
            "prepare": {},
            "sweep": {},
            "rotate": {"seen_active": ring.active.kid, "reports": ()},
            "rotate_in_emergency": {"seen_active": ring.active.kid},
            "retire": {"kid": ring.next_standby.kid},
        }[method]
        return getattr(changes, method)(**arguments)

    return act


def reserved(folder: KeysFolder) -> object:
    return keyring_changes.reserve(folder, folder.read()[0].active.kid, LATER)


def made_first(folder: KeysFolder) -> object:
    return folder.ensure(NOW, POLICY)


SCENARIOS: dict[str, tuple[Act, ...]] = {
    # name: what was done before, and last the change that is killed
    "first ring": (made_first,),
    "prepare": (made_first, changed_by("prepare")),
    "rotate": (made_first, changed_by("rotate")),
    "rotate and remove": (made_first, changed_by("rotate"), changed_by("rotate", at=LATER + 10_000)),
    "emergency": (made_first, changed_by("rotate_in_emergency")),
    "withdraw": (made_first, changed_by("retire")),
    "sweep": (made_first, changed_by("rotate"), changed_by("sweep", at=LATER + 10_000)),
    "reserve": (made_first, reserved),
}


class Pools:
    """Ready keys for each maker; a pool starts again whenever its maker does."""

    def __init__(self, **sizes: int) -> None:
        made = rsa.generate_private_key
        self._keys = {
            maker: [made(public_exponent=65537, key_size=2048) for _ in range(size)] for maker, size in sizes.items()
        }
        self._next = iter(())
        rsa.generate_private_key = lambda **_: next(self._next)

    def use(self, maker: str) -> None:
        self._next = iter(self._keys[maker])


class Deadly:
    """Stands in front of the durable system calls, counts them, and kills this process at one of them."""

    def __init__(self, kill_at: int, *, half: bool) -> None:
        self.n_steps = 0
        self._kill_at = kill_at
        self._half = half
        for name in _STEPS:
            setattr(os, name, self._guarded(name, getattr(os, name)))

    def _guarded(self, name: str, call: Callable) -> Callable:
        def guarded(*args, **kwargs):
            if name == "open" and not args[1] & os.O_CREAT:
                return call(*args, **kwargs)
            self.n_steps += 1
            if self.n_steps == self._kill_at:
                if self._half and name == "write":
                    call(args[0], bytes(args[1])[: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return guarded


def killed_child(path: Path, act: Act, kill_at: int, *, half: bool) -> bool:
    """Run ``act`` in a child that dies at step ``kill_at``; gives whether it got so far."""
    child = os.fork()
    if child == 0:
        pools.use("child")
        Deadly(kill_at, half=half)
        act(KeysFolder(path))
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or status == 0, f"the child failed by itself: {status}"
    return os.WIFSIGNALED(status)


def states(ring: KeyRing) -> dict[str, str]:
    return {key.kid: key.state for key in ring.keys}


def look(path: Path, before: KeyRing | None) -> None:
    """A ring that is the old or the new one, whole; after the next start nothing is left over."""
    pools.use("look")
    folder = KeysFolder(path, lock_timeout_s=1)
    try:
        ring = folder.read()[0]
    except AppError:
        assert before is None, "the ring was lost"
        ring = folder.ensure(NOW, POLICY)
    assert not faults(ring)
    if before is not None:
        assert ring.generation - before.generation in {0, 1}
        assert ring.generation > before.generation or states(ring) == states(before)
    folder.check_pems(ring)
    folder.ensure(NOW, POLICY)
    names = {entry.name for entry in path.iterdir()}
    assert names == {MANIFEST, "keyring.lock", *(f"{key.kid}.pem" for key in ring.published)}, names


def resumed(path: Path, before: KeyRing) -> None:
    """What the next look of a schedule does: rotate if that is still due. Either way it happened once."""
    pools.use("again")
    ring, _ = KeysFolder(path).read()
    if ring.active.kid == before.active.kid:
        changed_by("rotate", at=LATER + 10_000)(KeysFolder(path))
    after, _ = KeysFolder(path).read()
    assert after.generation == before.generation + 1
    assert after.active.kid == before.next_standby.kid


def tried(work: Path, steps: tuple[Act, ...], *, resume: bool) -> int:
    """Kill the last of ``steps`` at every point; gives how many points there were."""
    base = work / "base"
    pools.use("before")
    for step in steps[:-1]:
        step(KeysFolder(base))
    before = KeysFolder(base).read()[0] if base.exists() else None
    n_points = 0
    for half in (False, True):
        for kill_at in itertools.count(1):
            victim = work / f"victim-{half}-{kill_at}"
            if base.exists():
                shutil.copytree(base, victim)
            if not killed_child(victim, steps[-1], kill_at, half=half):
                break
            n_points += 1
            look(victim, before)
            if resume and before is not None:
                resumed(victim, before)
            shutil.rmtree(victim)
    return n_points


def main(work: Path) -> None:
    events.configure(stream=sys.stderr)  # standard output is the result
    counts = {}
    for number, (name, steps) in enumerate(SCENARIOS.items()):
        (work / str(number)).mkdir()
        counts[name] = tried(work / str(number), steps, resume=name.startswith("rotate"))
    print(json.dumps(counts))


if __name__ == "__main__":
    pools = Pools(before=4, child=3, look=3, again=1)
    main(Path(sys.argv[1]))
