"""The snapshot file: whole or not at all, ours or not used."""

import os
import stat
from pathlib import Path

import pytest

from shared.revocations import snapshot
from shared.revocations.feed_key import FeedKey
from shared.revocations.revoked import Contents
from shared.revocations.snapshot import Snapshot, SnapshotFile, SnapshotProblem

KEY = FeedKey(bytes(32))
SNAPSHOT = Snapshot(1_800_000_000_000, Contents({60_000: b"k" * 32}, {2: {b"client": 5}, 3: {}}, [b"kid"]))


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    """Mode 0600, and nothing else is left in the folder."""
    file = SnapshotFile(tmp_path / "var" / "s", KEY)
    assert file.load() is None
    file.save(SNAPSHOT)
    file.save(SNAPSHOT)
    assert file.load() == SNAPSHOT
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert [entry.name for entry in file.path.parent.iterdir()] == ["s"]


def test_a_young_file_is_left_alone(tmp_path: Path) -> None:
    """Whoever wrote it; one from the future (a clock went back) is not."""
    now = 1_800_000_000.0
    file = SnapshotFile(tmp_path / "s", KEY, every_s=30, wall_clock=lambda: now)
    assert file.is_due(30)
    file.save(SNAPSHOT)
    for age_s, due in [(10, False), (31, True), (-10, True)]:
        os.utime(file.path, (now - age_s, now - age_s))
        assert file.is_due(30) is due


@pytest.mark.parametrize("harm", ["cut", "bit", "empty", "key", "folder", "large", "other"])
def test_a_harmed_file_is_refused(tmp_path: Path, harm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one fixed word for the event."""
    file = SnapshotFile(tmp_path / "s", KEY)
    file.save(SNAPSHOT)
    raw = file.path.read_bytes()
    expected = "not_authentic"
    if harm == "cut":
        file.path.write_bytes(raw[:-1])
    elif harm == "bit":
        file.path.write_bytes(bytes([raw[0] ^ 1]) + raw[1:])
    elif harm == "empty":
        file.path.write_bytes(b"")
    elif harm == "key":
        file = SnapshotFile(file.path, FeedKey(b"x" * 32))
    elif harm == "folder":
        file, expected = SnapshotFile(tmp_path, KEY), "unreadable"
    elif harm == "large":
        monkeypatch.setattr(snapshot, "MAX_BYTES", 50)
        expected = "too_large"
    else:
        body = b"\x93\x01\x02\x03"
        file.path.write_bytes(body + file._code(body))
        expected = "malformed"
    with pytest.raises(SnapshotProblem) as caught:
        file.load()
    assert caught.value.reason == expected


def test_what_can_not_be_written_is_said_and_the_old_file_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A set that is too large, a place that is no folder."""
    file = SnapshotFile(tmp_path / "s", KEY)
    file.save(SNAPSHOT)
    monkeypatch.setattr(snapshot, "MAX_BYTES", 50)
    with pytest.raises(SnapshotProblem, match="too_large"):
        file.save(SNAPSHOT)
    monkeypatch.undo()
    assert file.load() == SNAPSHOT
    with pytest.raises(SnapshotProblem, match="unwritable"):
        SnapshotFile(tmp_path / "s" / "t", KEY).save(SNAPSHOT)
