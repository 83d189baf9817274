"""The keys folder: one PEM file a key, and ``keyring.json``, whose replacement is the only commit point.

New PEM files are durable before the manifest names them, old ones are deleted after it does not, so a crash at any
moment leaves a whole ring; what it left over is cleared by the next change.
"""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric import rsa

from auth_server.keyring import files, material
from auth_server.keyring.material import MadeKey, unusable
from auth_server.keyring.ring import KeyPolicy, KeyRing, SigningKey, faults
from auth_server.keyring.transitions import first_ring
from shared.errors import AppError
from shared.secret import Secret

MANIFEST: Final = "keyring.json"
_CREATING: Final = "keyring.creating"  # there while the first ring is made: its PEM files belong to nobody yet
_FORMAT: Final = 1
_PEM_NAME: Final = re.compile(r"[A-Za-z0-9_-]{43}\.pem")


class _Manifest(msgspec.Struct, frozen=True):
    format: int
    generation: int
    keys: tuple[SigningKey, ...]


@dataclass(frozen=True, slots=True)
class KeysFolder:
    """Where the ring rests. ``passphrase_file`` holds what encrypts private keys; None: they rest in clear (0600)."""

    path: Path
    passphrase_file: Path | None = None
    lock_timeout_s: float = 10.0

    def read(self) -> tuple[KeyRing, files.Fingerprint]:
        """Read the ring without the lock (a reader sees the ring before or after a change, never between).

        Raises AppError keys_unavailable, with the cause in ``reason``, if there is none or it can't be trusted.
        """
        with files.opened_folder(self.path) as folder:
            return _read_manifest(folder)

    @property
    def manifest_path(self) -> Path:
        """The manifest's path, for a cheap look whether it was replaced."""
        return self.path / MANIFEST

    def private_key(self, key: SigningKey) -> rsa.RSAPrivateKey:
        """Load one private key: 45 ms, and 0.2 s more if it is encrypted. Raises AppError keys_unavailable."""
        with files.opened_folder(self.path) as folder:
            pem = _read_pem(folder, key)
        return material.from_pem(pem, key, self._passphrase())

    def check_pems(self, ring: KeyRing) -> None:
        """Raise AppError keys_unavailable if a PEM file of a published key is missing, changed or open to others."""
        with files.opened_folder(self.path) as folder:
            for key in ring.published:
                if material.digest(_read_pem(folder, key)) != key.pem_sha256:
                    raise unusable(f"{key.kid}.pem is not the file that {MANIFEST} names (its digest differs)")

    def make_key(self, n_bits: int) -> MadeKey:
        """Make a key as this folder keeps them (encrypted if it has a passphrase); nothing is written yet."""
        return material.make_key(n_bits, self._passphrase())

    @contextlib.contextmanager
    def changing(self) -> Iterator["Draft"]:
        """Hold the lock for the body of a ``with``; gives the ring as it is now and the way to replace it.

        Raises AppError conflict if the lock is not free in time, keys_unavailable if the folder can't be used.
        """
        with _as_unusable(), files.opened_folder(self.path) as folder, files.locked(folder, self.lock_timeout_s):
            yield Draft(folder, *_read_manifest(folder))

    def ensure(self, now: float, policy: KeyPolicy, *, n_bits: int = 2048) -> KeyRing:
        """Make the first ring (one active key, one standby key) if there is none; else give the one that is there.

        A folder that holds nothing yet is created or closed to others (0700). Raises AppError keys_unavailable if
        PEM files are there without a manifest: that is a lost manifest, not a new folder.
        """
        with _as_unusable():
            _claim(self.path)
            with files.opened_folder(self.path) as folder, files.locked(folder, self.lock_timeout_s):
                names = files.names(folder)
                if MANIFEST in names:
                    ring, _ = _read_manifest(folder)
                    _clear_leftovers(folder, ring)
                    return ring
                _check_new(self.path, names)
                files.write_durably(folder, _CREATING, b"")
                _clear_leftovers(folder, None)
                made = [self.make_key(n_bits), self.make_key(n_bits)]
                ring = first_ring(made[0].fresh, made[1].fresh, now, policy)
                Draft(folder, ring, None).commit(ring, made)
                return ring

    def _passphrase(self) -> Secret | None:
        return read_passphrase(self.passphrase_file) if self.passphrase_file else None


@dataclass(slots=True)
class Draft:
    """The ring under the folder's lock; ``_seen`` tells the manifest that it was read from (None: there was none)."""

    _folder: int
    ring: KeyRing
    _seen: files.Fingerprint | None

    def commit(self, ring: KeyRing, made: Iterable[MadeKey] = ()) -> None:
        """Make ``ring`` the ring. Keys in ``made`` that it does not use are dropped unwritten.

        Raises AppError conflict if the manifest is no longer the one that was read: a lock on a network file system
        is lost when its server gives it up, and then another host may have been faster.
        """
        kids = {key.kid for key in ring.published}
        for key in made:
            if key.fresh.kid in kids:
                files.write_durably(self._folder, f"{key.fresh.kid}.pem", key.pem)
        files.write_durably(self._folder, MANIFEST, _encode(ring), self._check_unchanged)
        self.ring, self._seen = ring, self._look()
        _clear_leftovers(self._folder, ring)

    def _check_unchanged(self) -> None:
        if self._look() != self._seen:
            raise AppError("conflict", "Another host changed the key ring at the same time; nothing was changed here.")

    def _look(self) -> files.Fingerprint | None:
        try:
            return files.read_private(self._folder, MANIFEST)[1]  # opening asks a file server again, stat may not
        except FileNotFoundError:
            return None


def read_passphrase(path: Path) -> Secret:
    """Read the passphrase file (one line). Raises AppError keys_unavailable if it is missing, empty or open to writes.

    Links are followed and readers are allowed: orchestrators mount secrets as links to files of mode 0444.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(4096)
    except OSError as problem:
        raise unusable(f"the passphrase file {path} can't be read: {problem.strerror}") from None
    if mode & 0o022:
        raise unusable(f"the passphrase file {path} can be written by others: chmod go-w {path}")
    try:
        passphrase = content.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise unusable(f"the passphrase file {path} is not UTF-8 text") from None
    if not passphrase:
        raise unusable(f"the passphrase file {path} is empty")
    return Secret(passphrase)


def _read_manifest(folder: int) -> tuple[KeyRing, files.Fingerprint]:
    try:
        content, fingerprint = files.read_private(folder, MANIFEST)
    except FileNotFoundError:
        raise unusable(f"there is no key ring yet ({MANIFEST} is missing); 'flex keys prepare' makes one") from None
    try:
        manifest = msgspec.json.decode(content, type=_Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise unusable(f"{MANIFEST} is damaged; restore it from a backup") from None
    ring = KeyRing(manifest.generation, manifest.keys)
    broken = faults(ring)
    if manifest.format != _FORMAT:
        broken = [f"its format is {manifest.format}, this version reads {_FORMAT}"]
    broken += [f"{key.kid} is not its thumbprint" for key in ring.published if not _named_rightly(key)]
    if broken:
        raise unusable(f"{MANIFEST} can't be trusted: {'; '.join(broken)}")
    return ring, fingerprint


def _named_rightly(key: SigningKey) -> bool:
    return key.kid == material.thumbprint(key.n, key.e)


def _encode(ring: KeyRing) -> bytes:
    manifest = _Manifest(_FORMAT, ring.generation, ring.keys)
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"


def _read_pem(folder: int, key: SigningKey) -> bytes:
    try:
        return files.read_private(folder, f"{key.kid}.pem")[0]
    except FileNotFoundError:
        raise unusable(f"{key.kid}.pem is missing; restore it from a backup or revoke the key") from None


def _clear_leftovers(folder: int, ring: KeyRing | None) -> None:
    """Delete what a crash left: temporary files, and keys that no manifest names."""
    kept = {f"{key.kid}.pem" for key in ring.published} if ring else {_CREATING}
    files.remove_durably(
        folder,
        [
            name
            for name in files.names(folder)
            if name not in kept
            and (
                name == _CREATING
                or _PEM_NAME.fullmatch(name)
                or (name.startswith(".") and name.endswith(files.TEMP_SUFFIX))
            )
        ],
    )


def _claim(path: Path) -> None:
    """Create the folder, or close one of ours that holds no keys yet (a fresh clone's has mode 0755)."""
    path.mkdir(mode=files.FOLDER_MODE, parents=True, exist_ok=True)
    status = path.lstat()
    ours = status.st_uid == os.geteuid() and not path.is_symlink()
    if (
        ours
        and status.st_mode & 0o777 != files.FOLDER_MODE
        and not any(_secret(entry.name) for entry in path.iterdir())
    ):
        path.chmod(files.FOLDER_MODE)


def _secret(name: str) -> bool:
    return name == MANIFEST or name.endswith(".pem")


def _check_new(path: Path, names: list[str]) -> None:
    if _CREATING not in names and any(name.endswith(".pem") for name in names):
        raise unusable(f"{path} holds PEM files but no {MANIFEST}: restore it from a backup, or move the files away")


@contextlib.contextmanager
def _as_unusable() -> Iterator[None]:
    """Turn the operating system's refusals (disk full, read-only) into the error that servers and operators see."""
    try:
        yield
    except OSError as problem:
        raise unusable(f"the key ring can't be changed: {problem.strerror}") from problem
