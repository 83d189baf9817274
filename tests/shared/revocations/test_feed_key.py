"""The feed key's file: made once by whoever comes first, never open to others."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shared.errors import AppError
from shared.revocations.feed_key import FeedKey, load_or_create_feed_key


def code(key: FeedKey) -> bytes:
    return key.authenticator(b"test").mac(b"")


def test_all_that_start_at_once_get_the_same_key(tmp_path: Path) -> None:
    """One file of 0600 with 32 bytes, and nothing left beside it."""
    path = tmp_path / "keys" / "revocation-feed.key"
    with ThreadPoolExecutor(16) as pool:
        keys = list(pool.map(lambda _: load_or_create_feed_key(path), range(64)))
    assert len({code(key) for key in keys}) == 1
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(path.read_bytes()) == 32


def test_a_key_of_the_operators_may_be_hexadecimal_and_a_link(tmp_path: Path) -> None:
    """As `openssl rand -hex 32` writes it, mounted by an orchestrator."""
    (tmp_path / "mounted").write_text("ab" * 32 + "\n")
    (tmp_path / "mounted").chmod(0o440)
    (tmp_path / "key").symlink_to("mounted")
    assert code(load_or_create_feed_key(tmp_path / "key")) == code(FeedKey(b"\xab" * 32))


@pytest.mark.parametrize(
    ("content", "mode", "reason"),
    [
        (b"x" * 32, 0o604, "feed_key_open_to_others"),
        (b"x" * 32, 0o620, "feed_key_open_to_others"),
        (b"", 0o600, "feed_key_length"),
        (b"x" * 31, 0o600, "feed_key_length"),
        (b"zz" * 32, 0o600, "feed_key_length"),
    ],
)
def test_a_file_that_others_could_use_or_that_is_no_key_is_refused(
    tmp_path: Path, content: bytes, mode: int, reason: str
) -> None:
    """It is never replaced: that would silence every follower that has the right one."""
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(mode)
    with pytest.raises(AppError) as caught:
        load_or_create_feed_key(path)
    assert (caught.value.code, caught.value.reason) == ("keys_unavailable", reason)
    assert path.read_bytes() == content


def test_a_place_that_can_not_be_used_is_one_error(tmp_path: Path) -> None:
    """A folder where the file should be."""
    with pytest.raises(AppError, match="keys_unavailable"):
        load_or_create_feed_key(tmp_path)


def test_a_key_is_never_printed() -> None:
    """Nor its purposes mixed up."""
    key = FeedKey(os.urandom(32))
    assert repr(key) == "FeedKey(***)"
    assert len({key.authenticator(*what).mac(b"") for what in [(b"a",), (b"b",), (b"a", b"b")]}) == 3
