"""The short form of the soak, on real servers, from end to end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.soak.__main__ import options_from
from tests.bench.test_quick_run import environ_of, running

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_everything_holds_under_faults_and_nothing_is_left_behind(tmp_path):
    """It exits 0 only if all promises held; every process and folder of its own is gone."""
    paths = ["--out", str(tmp_path / "out"), "--raw", str(tmp_path / "raw.json")]
    done = subprocess.run(
        [sys.executable, "-m", "bench.soak", "--quick", *paths],
        check=False,
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=140,
    )
    assert done.returncode == 0, done.stdout[:4000] + done.stderr[-2000:]
    raw = json.loads((tmp_path / "raw.json").read_text())
    assert raw["soak"]["outcomes"]["ok"] > 500
    assert raw["soak"]["outcomes"]["recovered"] > 0
    assert {reach["kind"] for reach in raw["soak"]["reaches"]} >= {"jti", "client", "subject", "emergency"}
    assert (tmp_path / "out" / "soak.png").stat().st_size > 10_000
    assert "**Everything held.**" in (tmp_path / "out" / "soak.md").read_text()
    assert not list(tmp_path.glob("flex-*"))
    assert not [pid for pid in running() if str(tmp_path).encode() in environ_of(pid)]


def test_a_whole_run_writes_into_docs_and_a_short_one_nowhere():
    """So a trial never changes the published page."""
    assert options_from([]).out == ROOT / "docs"
    assert options_from(["--quick"]).out is None
    assert options_from(["--only", "floods"]).out is None
    assert options_from([]).rotations == 100


@pytest.mark.parametrize(
    "arguments", [["--only", "nothing"], ["--seconds", "1"], ["--rate", "0"], ["--rotations", "-1"]]
)
def test_wrong_usage_ends_with_2(arguments, capsys):
    """Nothing is started before the command line is understood."""
    with pytest.raises(SystemExit) as ended:
        options_from(arguments)
    assert ended.value.code == 2
    assert "usage" in capsys.readouterr().err
