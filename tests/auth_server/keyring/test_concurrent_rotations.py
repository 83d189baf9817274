"""Many processes that rotate, reserve and start at the same moment: one change, no error."""

import collections
import subprocess
import sys
import textwrap
from pathlib import Path

from auth_server.keyring.folder import KeysFolder
from auth_server.keyring.ring import KeyState, faults

ROOT = Path(__file__).parents[3]
PREAMBLE = """
import os, sys
from pathlib import Path
from auth_server.keyring import changes
from auth_server.keyring.folder import KeysFolder
from auth_server.keyring.ring import KeyPolicy
policy = KeyPolicy(max_age_s=300, ttl_s=900)
folder = KeysFolder(Path(sys.argv[1]), lock_timeout_s=50)

def crowd(n, act):
    gate, opener = os.pipe()
    for number in range(n):
        if os.fork() == 0:
            os.close(opener)
            os.read(gate, 1)  # all wait here until the pipe is closed
            said = act(number)
            os.write(1, f"{said}\\n".encode())
            os._exit(0)
    os.close(opener)
    assert all(os.wait()[1] == 0 for _ in range(n))
"""


def run(script: str, path: Path) -> collections.Counter:
    """Run a script in one process (which forks the crowd) and count what its members said."""
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + textwrap.dedent(script), path],
        check=False, capture_output=True, text=True, cwd=ROOT, env={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return collections.Counter(line for line in done.stdout.splitlines() if not line.startswith("{"))


def test_twenty_rotations_at_once_are_one_rotation(folder, clock):
    """Nineteen find that another one was faster and end well."""
    before, _ = folder.read()
    said = run(
        f"""
        seen = folder.read()[0].active.kid
        operator = changes.RingChanges(folder, policy, lambda: {clock.now + 400})
        crowd(20, lambda _: operator.rotate(seen_active=seen, reports=()).overtaken)
        """,
        folder.path,
    )
    assert said == {"False": 1, "True": 19}
    after, _ = folder.read()
    assert after.generation == before.generation + 1
    assert [len(after.in_state(state)) for state in KeyState] == [1, 1, 1, 0]


def test_twenty_first_starts_at_once_make_one_ring(tmp_path):
    """All workers of all servers may start on an empty folder together."""
    said = run("crowd(20, lambda _: folder.ensure(0.0, policy).active.kid)", tmp_path / "keys")
    assert list(said.values()) == [20]
    assert not faults(KeysFolder(tmp_path / "keys").read()[0])


def test_reservations_beside_a_rotation_never_reach_the_retired_key(folder, clock):
    """Whoever comes late reserves nothing for a key that signs no more."""
    before, _ = folder.read()
    run(
        f"""
        seen = folder.read()[0].active.kid
        operator = changes.RingChanges(folder, policy, lambda: {clock.now + 400})
        def act(number):
            if number == 5:
                operator.rotate(seen_active=seen, reports=())
            else:
                changes.reserve(folder, seen, {clock.now} + 2000 + number)
        crowd(12, act)
        """,
        folder.path,
    )
    after, _ = folder.read()
    assert after.find(before.active.kid).state is KeyState.RETIRED
    assert after.find(before.active.kid).last_expiry_at <= clock.now + 2011
    assert after.active.last_expiry_at == clock.now + 400 + 900 + 120
