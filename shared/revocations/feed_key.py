"""The feed key: 32 random bytes that the auth servers and the followers share and the store never sees.

Each use has a key of its own, derived with HMAC-SHA-256: head, snapshot, and the entries of one epoch.
"""

import contextlib
import hashlib
import hmac
import os
import secrets
from pathlib import Path

from shared.errors import AppError

KEY_BYTES = 32
MAC_BYTES = 16  # of an entry: half of SHA-256's output, the least that RFC 2104 section 5 advises
_BLOCK_BYTES = 64
_MAX_FILE_BYTES = 256


class Authenticator:
    """HMAC-SHA-256 (RFC 2104) under one key, both pads hashed once: half the time of ``hmac.digest`` a message."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        padded = key.ljust(_BLOCK_BYTES, b"\0")  # our keys have 32 bytes: never longer than a block
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in padded))

    def mac(self, message: bytes) -> bytes:
        """The 32-byte code of ``message``."""
        inner = self._inner.copy()
        inner.update(message)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.digest()


class FeedKey:
    """The key of one installation's feed. Never printed."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise AppError("keys_unavailable", reason="feed_key_length")
        self._key = key

    def authenticator(self, purpose: bytes, context: bytes = b"") -> Authenticator:
        """Give what makes and checks the codes of one purpose in one context (for entries: their epoch)."""
        return Authenticator(hmac.digest(self._key, b"flex revocations\0" + purpose + b"\0" + context, "sha256"))

    def __repr__(self) -> str:
        return "FeedKey(***)"


def load_or_create_feed_key(path: Path) -> FeedKey:
    """Read the key, or make it: of all that start at once the first decides, and nobody sees half a file.

    The file holds 32 bytes, or 64 hexadecimal digits. Links are followed and its group may read it, since orchestrators
    mount secrets so. Raises AppError keys_unavailable (cause in ``reason``) if it can't be made or read, has another
    content, or is open to others.
    """
    try:
        try:
            return _read(path)
        except FileNotFoundError:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _create(path)
            return _read(path)
    except OSError as problem:
        raise AppError("keys_unavailable", reason=f"feed_key_{type(problem).__name__}") from None


def _read(path: Path) -> FeedKey:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        if os.fstat(descriptor).st_mode & 0o027:
            raise AppError("keys_unavailable", reason="feed_key_open_to_others")
        content = file.read(_MAX_FILE_BYTES)
    if len(content) != KEY_BYTES:
        with contextlib.suppress(ValueError):
            content = bytes.fromhex(content.decode("ascii", "replace"))
    return FeedKey(content)


def _create(path: Path) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)  # the umask may have taken bits away
        os.write(descriptor, secrets.token_bytes(KEY_BYTES))
        os.fsync(descriptor)
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        os.close(descriptor)
        temporary.unlink()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
