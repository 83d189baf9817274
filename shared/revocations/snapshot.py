"""The last known set on disk, so that a process that starts while the store is away knows what it knew.

Authenticated with the feed key, mode 0600, replaced in one step (temporary file, fsync, rename), at most 64 MiB (four
million tokens). Several processes may share one file: each write is whole, and one that is still young is left alone.
"""

import asyncio
import hmac
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from shared.revocations.feed_key import FeedKey
from shared.revocations.notices import Notice, Notify
from shared.revocations.revoked import Contents, RevokedSet

MAX_BYTES = 64 * 1024 * 1024
_CODE_BYTES = 32
_NEWS_S = 1.0


class SnapshotProblem(Exception):  # noqa: N818 - not an error of ours
    """The file can't be used or written; ``reason`` is one fixed word."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Snapshot(msgspec.Struct, frozen=True):
    """A set, and the time (UTC ms, of the heartbeat that confirmed it) up to which it is complete."""

    as_of_ms: int
    contents: Contents


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Snapshot).decode


@dataclass(frozen=True, slots=True)
class SnapshotFile:
    """Where the snapshot rests. ``every_s`` is how long a written one is left alone if nothing is new (0: never)."""

    path: Path
    key: FeedKey
    every_s: float = 30.0
    wall_clock: Callable[[], float] = time.time

    def load(self) -> Snapshot | None:
        """Read it; None if there is none. Raises SnapshotProblem if it is damaged, forged, too large or unreadable."""
        try:
            with self.path.open("rb") as file:
                raw = file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError:
            raise SnapshotProblem("unreadable") from None
        if len(raw) > MAX_BYTES:
            raise SnapshotProblem("too_large")
        body, code = raw[:-_CODE_BYTES], raw[-_CODE_BYTES:]
        if not hmac.compare_digest(self._code(body), code):
            raise SnapshotProblem("not_authentic")
        try:
            return _decode(body)
        except msgspec.MsgspecError:
            raise SnapshotProblem("malformed") from None

    def is_due(self, after_s: float) -> bool:
        """Whether the file is missing or ``after_s`` old, whoever wrote it."""
        try:
            age_s = self.wall_clock() - self.path.stat().st_mtime
        except OSError:
            return True
        return not 0 <= age_s < after_s

    def save(self, snapshot: Snapshot) -> None:
        """Replace the file; some 100 ms a million tokens, so call it in a thread. Raises SnapshotProblem."""
        body = _encode(snapshot)
        if len(body) + _CODE_BYTES > MAX_BYTES:
            raise SnapshotProblem("too_large")
        try:
            self._replace(body + self._code(body))
        except OSError:
            raise SnapshotProblem("unwritable") from None

    def _replace(self, content: bytes) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=".revocations-")  # made with mode 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            Path(temporary).replace(self.path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _code(self, body: bytes) -> bytes:
        return self.key.authenticator(b"snapshot").mac(body)


class SnapshotKeeper:
    """Loads the snapshot at the start and writes it from time to time, and a second after something new; the event loop
    never waits for the disk.

    Writing takes at most a fiftieth of the time, however large the set is.
    """

    def __init__(self, file: SnapshotFile, revoked: RevokedSet, clock: Callable[[], float], notify: Notify) -> None:
        self._file = file
        self._revoked = revoked
        self._clock = clock
        self._notify = notify
        self._saving: asyncio.Task[None] | None = None
        self._not_before = 0.0
        self._pause_s = min(file.every_s, _NEWS_S)
        self._saved_to = b""

    async def load(self) -> int:
        """Merge the snapshot into the set; gives the time (UTC ms) up to which that is complete, 0 if there is none."""
        try:
            snapshot = await asyncio.to_thread(self._file.load)
        except SnapshotProblem as problem:
            self._notify(Notice.SNAPSHOT_REFUSED, {"reason": problem.reason})
            return 0
        if snapshot is None:
            return 0
        await asyncio.to_thread(self._revoked.merge, snapshot.contents)
        self._notify(Notice.SNAPSHOT_LOADED, {"n_entries": len(self._revoked), "as_of": snapshot.as_of_ms / 1000})
        return snapshot.as_of_ms

    def save_if_due(self, as_of_ms: int, read_to: bytes) -> None:
        """Begin to write the set as it is, unless it was written lately; ``read_to`` changes when something is new.

        May be called in every state: the set only grows, so it is complete up to ``as_of_ms`` whatever happened since.
        """
        now = self._clock()
        if now < self._not_before or (self._saving is not None and not self._saving.done()):
            return
        self._not_before = now + self._pause_s
        if self._file.is_due(self._file.every_s if read_to == self._saved_to else self._pause_s):
            self._saving = asyncio.create_task(self._save(as_of_ms, read_to, now))

    async def _save(self, as_of_ms: int, read_to: bytes, began: float) -> None:
        try:
            await asyncio.to_thread(lambda: self._file.save(Snapshot(as_of_ms, self._revoked.contents())))
        except SnapshotProblem as problem:
            self._notify(Notice.SNAPSHOT_FAILED, {"reason": problem.reason})
        else:
            self._saved_to = read_to
        now = self._clock()
        self._not_before = now + max(self._pause_s, 50 * (now - began))
