"""SIGKILL at every write, fsync, rename and unlink of every change: the ring always loads, whole."""

import json
import subprocess
import sys
from pathlib import Path

DRIVER = Path(__file__).with_name("crash_driver.py")
ROOT = DRIVER.parents[3]


def test_ring_survives_a_kill_at_every_durable_step(tmp_path):
    """Each time: old ring or new ring, exactly one active key, every key's file there, leftovers cleared later."""
    done = subprocess.run(
        [sys.executable, DRIVER, tmp_path],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    assert set(counts) == {
        "first ring", "prepare", "rotate", "rotate and remove", "emergency", "withdraw", "sweep", "reserve",
    }  # fmt: skip
    assert min(counts.values()) >= 10, counts
    assert sum(counts.values()) >= 180, counts
