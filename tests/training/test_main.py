"""The command: usage, training into a folder, and the proof that it repeats."""

import subprocess
import sys
from pathlib import Path

import pytest

from training.__main__ import main
from training.tables import FOLDER


def test_an_unknown_attribute_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and the name that is not known; nothing is trained."""
    with pytest.raises(SystemExit) as stop:
        main(["charm"])
    assert stop.value.code == 2
    assert "unknown attribute: charm" in capsys.readouterr().err


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    """Trained here and in a fresh process: every file of the bundle is the same; a touched file is reported."""
    assert main(["play_teamwork", "--out", str(tmp_path)]) == 0
    again = [sys.executable, "-m", "training", "play_teamwork", "--check", "--out", str(tmp_path)]
    checked = subprocess.run(again, cwd=FOLDER.parent.parent, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    shipped = FOLDER.parent.parent / "models" / "play_teamwork" / "1" / "model.txt"
    assert (tmp_path / "play_teamwork" / "1" / "model.txt").read_bytes() == shipped.read_bytes()
    (tmp_path / "play_teamwork" / "1" / "card.md").write_text("better than it is")
    touched = subprocess.run(again, cwd=FOLDER.parent.parent, capture_output=True, text=True, check=False)
    assert touched.returncode == 1
    assert "card.md" in touched.stderr
