"""Files that hold secrets: opened without following links, refused when others could touch them, written durably.

Every function works relative to an open folder, so nobody can swap the folder between a check and a use.
"""

import contextlib
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from auth_server.keyring.material import unusable
from shared.errors import AppError

FOLDER_MODE = 0o700
FILE_MODE = 0o600
TEMP_SUFFIX = ".tmp"
MAX_FILE_BYTES = 4 * 1024 * 1024
_LOCK_NAME = "keyring.lock"
_LOCK_POLL_S = 0.02

Fingerprint = tuple[int, int, int]


@contextlib.contextmanager
def opened_folder(path: Path) -> Iterator[int]:
    """Open the keys folder for the body of a ``with``; gives its file descriptor.

    Raises AppError keys_unavailable if it is missing, a symbolic link, of another owner or not mode 0700.
    """
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise unusable(f"the keys folder {path} does not exist; 'flex keys prepare' makes it") from None
    except OSError as problem:
        raise unusable(f"the keys folder {path} can't be opened: {_why(path, problem)}") from None
    try:
        status = os.fstat(folder)
        _check_owner(str(path), status)
        if stat.S_IMODE(status.st_mode) != FOLDER_MODE:
            raise unusable(f"{path} has mode {stat.S_IMODE(status.st_mode):04o}; it must be 0700: chmod 700 {path}")
        yield folder
    finally:
        os.close(folder)


def read_private(folder: int, name: str) -> tuple[bytes, Fingerprint]:
    """Read a file of mode 0600 that is ours; gives its bytes and what tells it from its successor.

    Raises FileNotFoundError if there is none, AppError keys_unavailable for a link, a wrong mode or a foreign owner.
    """
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder)
    except FileNotFoundError:
        raise
    except OSError as problem:
        raise unusable(f"{name} can't be opened: {_why(name, problem, folder)}") from None
    try:
        status = os.fstat(descriptor)
        _check_file(name, status)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(), fingerprint(status)
    finally:
        os.close(descriptor)


def names(folder: int) -> list[str]:
    """The names in the folder."""
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries]


def fingerprint(status: os.stat_result) -> Fingerprint:
    """What changes when a file is replaced, written or has its mode changed."""
    return status.st_ino, status.st_ctime_ns, status.st_size


def write_durably(folder: int, name: str, content: bytes, last_look: Callable[[], None] = lambda: None) -> None:
    """Replace ``name`` so that a crash at any moment leaves the old file or the new one, whole: temporary file, fsync,
    rename, fsync of the folder. ``last_look`` is called right before the rename and may refuse it by raising.
    """
    temporary = f".{name}.{secrets.token_hex(6)}{TEMP_SUFFIX}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, FILE_MODE, dir_fd=folder)
    try:
        os.fchmod(descriptor, FILE_MODE)  # the umask may have taken bits away
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
        last_look()
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise
    finally:
        os.close(descriptor)
    os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    os.fsync(folder)


def remove_durably(folder: int, names: Iterable[str]) -> None:
    """Delete files; those that are gone already are fine."""
    removed = False
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)
            removed = True
    if removed:
        os.fsync(folder)


@contextlib.contextmanager
def locked(folder: int, timeout_s: float) -> Iterator[None]:
    """Hold the folder's lock for the body of a ``with``; the kernel frees it when the process dies.

    Raises AppError conflict if another process holds it longer than ``timeout_s``.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(_LOCK_NAME, flags, FILE_MODE, dir_fd=folder)
    except OSError as problem:
        raise unusable(f"{_LOCK_NAME} can't be opened: {_why(_LOCK_NAME, problem, folder)}") from None
    try:
        _check_owner(_LOCK_NAME, os.fstat(descriptor))
        _take_lock(descriptor, timeout_s)
        yield
    finally:
        os.close(descriptor)


def _take_lock(descriptor: int, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise AppError(
                    "conflict", f"Another process has held the key ring's lock for {timeout_s:g} s.", retry_after_s=1
                ) from None
            time.sleep(_LOCK_POLL_S)
        else:
            return


def _check_file(name: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise unusable(f"{name} is not a regular file")
    _check_owner(name, status)
    if stat.S_IMODE(status.st_mode) != FILE_MODE:
        raise unusable(f"{name} has mode {stat.S_IMODE(status.st_mode):04o}; it must be 0600: chmod 600 {name}")
    if status.st_size > MAX_FILE_BYTES:
        raise unusable(f"{name} is larger than {MAX_FILE_BYTES} bytes")


def _check_owner(name: str, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid():
        raise unusable(
            f"{name} belongs to user {status.st_uid}, this process runs as user {os.geteuid()}; run as the owner"
        )


def _why(name: str | Path, problem: OSError, folder: int | None = None) -> str:
    with contextlib.suppress(OSError):
        if stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            return "it is a symbolic link, which is refused"
    return problem.strerror or "unknown error"
