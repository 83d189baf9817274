"""The runner itself, on real servers: a smoke run from end to end."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_smoke_run_measures_and_leaves_nothing_behind(tmp_path):
    """It exits 0, writes page and raw figures where it is told, and every process and folder of its own is gone."""
    command = [sys.executable, "-m", "bench", "--quick", "--rounds", "1", "--only", "token,predict,explain,memory"]
    paths = ["--out", str(tmp_path / "out"), "--raw", str(tmp_path / "raw.json")]
    done = subprocess.run(
        [*command, *paths],
        check=False,
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    raw = json.loads((tmp_path / "raw.json").read_text())
    for case in ("sign", "token-32", "floor-32", "predict-32", "explain-1"):
        assert raw["results"]["samples"][case][0]["rate"] > 0
    assert "| predict, warm tokens ÷ bare-ASGI floor | ≥ 0.75 |" in (tmp_path / "out" / "benchmarks.md").read_text()
    assert not list(tmp_path.glob("flex-bench-*"))
    assert not [pid for pid in running() if str(tmp_path).encode() in environ_of(pid)]


def running() -> list[str]:
    """Ids of all processes."""
    return [entry.name for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def environ_of(pid: str) -> bytes:
    """Environment of a process; nothing if it is gone or not ours."""
    with contextlib.suppress(OSError):
        return Path("/proc", pid, "environ").read_bytes()
    return b""


@pytest.mark.parametrize("arguments", [["--only", "nothing"], ["--rounds", "0"], ["--seconds", "61"]])
def test_wrong_usage_ends_with_2(arguments):
    """Nothing is started before the command line is understood."""
    done = subprocess.run(
        [sys.executable, "-m", "bench", *arguments], check=False, cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 2
    assert "usage" in done.stderr
