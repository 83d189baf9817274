"""The keys folder: who may touch it, what is refused, what a crash or a full disk leaves."""

import errno
import os
import shutil
import threading

import msgspec
import pytest

from auth_server.keyring import files, transitions
from auth_server.keyring.folder import MANIFEST, KeysFolder, read_passphrase
from auth_server.keyring.ring import KeyState, faults
from shared.errors import AppError


def refusal(act) -> str:
    with pytest.raises(AppError) as refused:
        act()
    assert refused.value.code == "keys_unavailable"
    assert str(refused.value) == "keys_unavailable: The signing keys can't be used now."
    return refused.value.reason


def mode(path) -> int:
    return path.stat().st_mode & 0o777


def traced(monkeypatch) -> list[str]:
    """The names of the durable steps, in order, from now on."""
    steps = []

    def trace(name, step):
        def call(*args, **kwargs):
            steps.append(name)
            return step(*args, **kwargs)

        monkeypatch.setattr(os, name, call)

    for name in ("fsync", "rename", "unlink"):
        trace(name, getattr(os, name))
    return steps


def active_pem(folder):
    return folder.path / f"{folder.read()[0].active.kid}.pem"


def test_first_ring_is_whole_and_closed_to_others(folder):
    """Folder 0700, files 0600, one active and one standby key, nothing left over."""
    ring, _ = folder.read()
    assert faults(ring) == []
    assert [key.state for key in ring.keys] == [KeyState.ACTIVE, KeyState.STANDBY]
    assert mode(folder.path) == 0o700
    names = {entry.name for entry in folder.path.iterdir()}
    assert names == {MANIFEST, "keyring.lock", *(f"{key.kid}.pem" for key in ring.keys)}
    assert {mode(entry) for entry in folder.path.iterdir()} == {0o600}


def test_folder_of_a_fresh_clone_is_closed(tmp_path, policy):
    """Git makes it 0755 with a placeholder in it; the first start takes it over."""
    path = tmp_path / "keys"
    path.mkdir(mode=0o755)
    path.chmod(0o755)
    (path / ".gitkeep").touch()
    KeysFolder(path).ensure(0.0, policy)
    assert mode(path) == 0o700
    assert (path / ".gitkeep").exists()


def test_ensure_keeps_the_ring_that_is_there(folder, policy):
    """A second server's start changes nothing."""
    before = folder.manifest_path.read_bytes()
    folder.ensure(5.0, policy)
    assert folder.manifest_path.read_bytes() == before


def test_open_folder_is_refused(folder, policy):
    """A folder with keys that others can enter is never quietly repaired."""
    folder.path.chmod(0o750)
    assert "mode 0750; it must be 0700: chmod 700" in refusal(folder.read)
    assert "0700" in refusal(lambda: folder.ensure(0.0, policy))


@pytest.mark.parametrize("victim", ["manifest", "pem"])
def test_open_file_is_refused(folder, victim):
    """So is a manifest or a key that others can read."""
    path = folder.manifest_path if victim == "manifest" else active_pem(folder)
    path.chmod(0o640)
    assert "mode 0640; it must be 0600" in refusal(lambda: folder.check_pems(folder.read()[0]))


@pytest.mark.parametrize("victim", ["folder", "manifest", "pem", "lock"])
def test_symbolic_link_is_refused(folder, tmp_path, victim):
    """A link could lead anywhere, also to a place where others write."""
    ring, _ = folder.read()
    path = {
        "folder": folder.path,
        "manifest": folder.manifest_path,
        "pem": active_pem(folder),
        "lock": folder.path / "keyring.lock",
    }[victim]
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")

    def use() -> None:
        folder.check_pems(ring)
        folder.read()
        with folder.changing():
            pass

    assert "symbolic link" in refusal(use)


def test_foreign_owner_is_refused(folder, monkeypatch):
    """Keys of another user are not ours to use; the sentence says how to run instead."""
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    assert "runs as user 54321; run as the owner" in refusal(folder.read)


def test_missing_or_changed_pem_is_refused(folder):
    """The manifest names every file by its digest."""
    pem = active_pem(folder)
    content = pem.read_bytes()
    pem.write_bytes(content + b"\n")
    assert "digest differs" in refusal(lambda: folder.check_pems(folder.read()[0]))
    pem.unlink()
    assert "is missing" in refusal(lambda: folder.check_pems(folder.read()[0]))


def test_directory_in_place_of_a_key_is_refused(folder):
    """Only regular files are read."""
    pem = active_pem(folder)
    pem.unlink()
    pem.mkdir(mode=0o600)
    assert "not a regular file" in refusal(lambda: folder.check_pems(folder.read()[0]))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format":1}', b"\xff\xfe", b"null"])
def test_damaged_manifest_is_refused(folder, content):
    """No guess is made at what it said."""
    folder.manifest_path.write_bytes(content)
    assert "damaged" in refusal(folder.read)


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda m: m | {"format": 2}, "format is 2"),
        (lambda m: m | {"keys": m["keys"][:1]}, "standby key"),
        (lambda m: m | {"keys": [m["keys"][1], m["keys"][1]]}, "exactly one active key"),
        (lambda m: m | {"keys": [m["keys"][0] | {"n": m["keys"][1]["n"]}, m["keys"][1]]}, "not its thumbprint"),
        (lambda m: m | {"generation": 0}, "generation"),
    ],
)
def test_manifest_that_breaks_the_rules_is_refused(folder, edit, told):
    """Two active keys, no standby, a renamed key: none of these is ever used."""
    manifest = msgspec.json.decode(folder.manifest_path.read_bytes())
    folder.manifest_path.write_bytes(msgspec.json.encode(edit(manifest)))
    assert told in refusal(folder.read)


def test_lost_manifest_never_makes_a_new_ring_over_old_keys(folder, policy):
    """PEM files without a manifest are somebody's keys; nothing is deleted or made."""
    folder.manifest_path.unlink()
    before = sorted(folder.path.iterdir())
    assert "restore it from a backup" in refusal(lambda: folder.ensure(0.0, policy))
    assert sorted(folder.path.iterdir()) == before


def test_missing_ring_is_told_with_the_cure(tmp_path):
    """An operator who looks before the first start learns what to do."""
    assert "'flex keys prepare'" in refusal(KeysFolder(tmp_path / "none").read)


def test_leftovers_of_a_crash_are_cleared_and_nothing_else(folder, policy):
    """Temporary files and keys that no manifest names go; what is not ours stays."""
    stranger = "x" * 43 + ".pem"
    for name in (f".{MANIFEST}.0123456789ab.tmp", stranger, "notes.txt", "backup.pem"):
        (folder.path / name).touch()
    folder.ensure(0.0, policy)
    names = {entry.name for entry in folder.path.iterdir()}
    assert not {stranger, f".{MANIFEST}.0123456789ab.tmp"} & names
    assert {"notes.txt", "backup.pem"} <= names


@pytest.mark.parametrize("call", ["fsync", "write", "rename"])
def test_full_disk_changes_nothing(folder, changes, monkeypatch, call):
    """The ring stays as it was, no temporary file stays, and the refusal says why."""
    before = folder.manifest_path.read_bytes()

    def fail(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        assert "No space left" in refusal(changes.prepare)
    assert folder.manifest_path.read_bytes() == before
    changes.prepare()
    assert not [entry for entry in folder.path.iterdir() if entry.name.endswith(".tmp")]


def test_every_rename_stands_between_two_fsyncs(changes, monkeypatch):
    """Content is durable before its name, and its name before the next step: that is what a power cut respects."""
    steps = traced(monkeypatch)
    changes.prepare()
    assert steps == ["fsync", "rename", "fsync"] * 2


def test_removed_key_is_deleted_durably_after_the_commit(changes, folder, monkeypatch):
    """The manifest forgets the key first; then the file goes, and the folder is synced."""
    standby = folder.read()[0].next_standby.kid
    changes.prepare()
    steps = traced(monkeypatch)
    changes.revoke(standby)
    assert steps == ["fsync", "rename", "fsync", "unlink", "fsync"]
    assert not (folder.path / f"{standby}.pem").exists()


def test_lock_that_is_not_free_in_time_is_a_conflict(folder):
    """A second change waits, but not for ever."""
    hasty = KeysFolder(folder.path, lock_timeout_s=0.05)
    with folder.changing(), pytest.raises(AppError) as refused, hasty.changing():
        pass
    assert refused.value.code == "conflict"
    with hasty.changing():
        pass


def test_reader_needs_no_lock(folder):
    """Servers read while an operator changes."""
    with folder.changing():
        reader = threading.Thread(target=folder.read)
        reader.start()
        reader.join(5)
        assert not reader.is_alive()


def test_keys_are_encrypted_with_the_passphrase_file(tmp_path, policy):
    """All private keys of the folder, and the file's trailing newline does not count."""
    secret = tmp_path / "passphrase"
    secret.write_text("correct horse\n")
    secret.chmod(0o400)
    folder = KeysFolder(tmp_path / "keys", secret)
    ring = folder.ensure(0.0, policy)
    assert all(b"ENCRYPTED" in path.read_bytes() for path in folder.path.glob("*.pem"))
    assert all(key.encrypted for key in ring.keys)
    folder.private_key(ring.active)
    assert "set FLEX_KEYS_PASSPHRASE_FILE" in refusal(lambda: KeysFolder(folder.path).private_key(ring.active))


@pytest.mark.parametrize(
    ("content", "permissions", "told"),
    [
        (b"\n", 0o600, "is empty"),
        (b"ok", 0o622, "written by others"),
        (b"\xff", 0o600, "not UTF-8"),
        (None, 0, "can't be read"),
    ],
)
def test_unfit_passphrase_file_is_refused(tmp_path, content, permissions, told):
    """Empty, writable by others, not text, or not there."""
    path = tmp_path / "passphrase"
    if content is not None:
        path.write_bytes(content)
        path.chmod(permissions)
    assert told in refusal(lambda: read_passphrase(path))


def test_fingerprint_tells_a_replaced_manifest(folder, changes):
    """Also one whose content has the same length."""
    _, before = folder.read()
    shutil.copy2(folder.manifest_path, folder.path / "copy")
    (folder.path / "copy").rename(folder.manifest_path)
    assert folder.read()[1] != before
    assert files.fingerprint(folder.manifest_path.stat()) == folder.read()[1]


def test_holder_of_a_lost_lock_changes_nothing(changes, folder, clock):
    """A file server may give a lock to another host while the first still believes in it; one of two changes wins."""
    with folder.changing() as draft:
        late = transitions.prepare(draft.ring, folder.make_key(2048).fresh, clock.now)
        (folder.path / "keyring.lock").unlink()
        won = changes.prepare().after
        with pytest.raises(AppError, match="Another host changed the key ring"):
            draft.commit(late)
    assert folder.read()[0] == won
    folder.check_pems(won)


def test_change_under_a_kept_lock_may_be_followed_by_another(folder, clock):
    """The look before the rename knows this process's own writes."""
    with folder.changing() as draft:
        for _ in range(2):
            made = folder.make_key(2048)
            draft.commit(transitions.prepare(draft.ring, made.fresh, clock.now), [made])
    assert folder.read()[0].generation == 3
