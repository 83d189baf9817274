"""Client secrets: how they are made, and the keyed hash that is all the store ever sees of them.

A generated secret has 256 bits, so one HMAC is enough; slow hashes are for people's passwords. The key of the HMAC
(the pepper) rests beside the signing keys, so a copy of the store alone lets nobody check a guess.
"""

import contextlib
import hmac
import os
import secrets
from pathlib import Path

from auth_server.keyring.files import FILE_MODE, FOLDER_MODE, opened_folder, read_private
from shared.errors import AppError
from shared.secret import Secret

SECRET_PREFIX = "flex_cs_"  # noqa: S105
PEPPER_FILE = "client-secret.pepper"
_PEPPER_BYTES = 32


class Pepper:
    """The key under which this installation hashes client secrets. Never printed."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        if len(key) != _PEPPER_BYTES:
            raise AppError("keys_unavailable", reason=f"{PEPPER_FILE} must have {_PEPPER_BYTES} bytes")
        self._key = key

    def secret_hash(self, secret: str) -> bytes:
        """HMAC-SHA-256 of a client secret: 32 bytes."""
        return hmac.digest(self._key, b"client secret\x00" + secret.encode(), "sha256")

    @property
    def fingerprint(self) -> str:
        """Tells one pepper from another without saying anything about it: 16 hexadecimal digits."""
        return hmac.digest(self._key, b"fingerprint\x00", "sha256")[:8].hex()

    def __repr__(self) -> str:
        return "Pepper(***)"


def new_secret() -> Secret:
    """A client secret of 256 random bits, with a prefix that secret scanners can look for."""
    return Secret(SECRET_PREFIX + secrets.token_urlsafe(32))


def load_pepper(keys_dir: Path) -> Pepper:
    """Read the pepper of a keys folder; the first to ask makes it, and all that ask at once get the same.

    Raises AppError keys_unavailable if the folder or the file is a link, of another owner or open to others.
    """
    _claim(keys_dir)
    with opened_folder(keys_dir) as folder:
        try:
            content, _ = read_private(folder, PEPPER_FILE)
        except FileNotFoundError:
            _make_pepper(folder)
            content, _ = read_private(folder, PEPPER_FILE)
    return Pepper(content)


def _claim(keys_dir: Path) -> None:
    """Create the folder, or close one of ours that is still empty (a fresh clone's has mode 0755)."""
    keys_dir.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    status = keys_dir.lstat()
    used = any(entry.suffix in {".pem", ".json", ".pepper"} for entry in keys_dir.iterdir())
    if status.st_uid == os.geteuid() and not keys_dir.is_symlink() and not used:
        keys_dir.chmod(FOLDER_MODE)


def _make_pepper(folder: int) -> None:
    # The name appears by link(2), which fails if another process was first: so it never shows half a file, and never
    # changes once it is there.
    temporary = f"{PEPPER_FILE}.{secrets.token_hex(6)}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE, dir_fd=folder)
    try:
        os.fchmod(descriptor, FILE_MODE)
        os.write(descriptor, secrets.token_bytes(_PEPPER_BYTES))
        os.fsync(descriptor)
        with contextlib.suppress(FileExistsError):
            os.link(temporary, PEPPER_FILE, src_dir_fd=folder, dst_dir_fd=folder)
    finally:
        os.close(descriptor)
        os.unlink(temporary, dir_fd=folder)
    os.fsync(folder)
