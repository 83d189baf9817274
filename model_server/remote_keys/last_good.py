"""The issuer's last good key set on disk, so that a restart works while the issuer is away.

Several workers write the same file; each write is whole (temporary file, fsync, rename), so the last one wins and
nobody ever reads half of one. What is in it is public, but whoever could change it could forge tokens: it is 0600 and
read only if nobody else may write it.
"""

import os
import tempfile
from pathlib import Path

import msgspec

from shared.key_sets import MAX_BODY_BYTES


class StoredKeySet(msgspec.Struct, frozen=True):
    """A JWK set as it came (``jwks``), from whom, and when it was last confirmed (UTC seconds).

    ``kept_jwks`` holds the keys that have vanished from the issuer's set, ``kept_until`` until when each is kept.
    """

    issuer: str
    fetched_at: float
    jwks: str
    kept_jwks: str = ""
    kept_until: dict[str, float] = {}


class KeySetFileProblem(Exception):  # noqa: N818 - not an error of ours
    """The file can't be used; ``reason`` is one fixed word."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


def load(path: Path, issuer: str) -> StoredKeySet | None:
    """Read the stored set of ``issuer``; None if there is none. Raises KeySetFileProblem if it is not to be trusted."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError:
        raise KeySetFileProblem("file_unreadable") from None
    with os.fdopen(descriptor, "rb") as file:
        facts = os.fstat(descriptor)
        if facts.st_uid != os.geteuid() or facts.st_mode & 0o022:
            raise KeySetFileProblem("file_writable_by_others")
        text = file.read(4 * MAX_BODY_BYTES)
    try:
        stored = msgspec.json.decode(text, type=StoredKeySet)
    except (ValueError, RecursionError):
        raise KeySetFileProblem("file_malformed") from None
    return stored if stored.issuer == issuer else None


def save(path: Path, stored: StoredKeySet) -> None:
    """Replace the file in one step. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".key_set-")  # made with mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(stored))
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)  # noqa: PTH105 - one call, one meaning
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
