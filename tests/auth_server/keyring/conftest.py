"""A real key ring on disk for each test, copied from one made once (making RSA keys is the slow part)."""

import shutil
from pathlib import Path

import pytest

from auth_server.keyring.changes import RingChanges
from auth_server.keyring.folder import KeysFolder
from auth_server.keyring.ring import KeyPolicy

START = 1_800_000_000.0


@pytest.fixture(scope="session")
def policy() -> KeyPolicy:
    """The default bounds: 300 s in caches, tokens of 900 s."""
    return KeyPolicy(max_age_s=300, ttl_s=900)


@pytest.fixture(scope="session")
def ring_template(tmp_path_factory, policy) -> Path:
    """A folder with a first ring, made at the moment at which the test clock starts."""
    path = tmp_path_factory.mktemp("ring") / "keys"
    KeysFolder(path).ensure(START, policy)
    return path


@pytest.fixture
def folder(tmp_path, ring_template) -> KeysFolder:
    """This test's own key ring: one active and one standby key."""
    path = tmp_path / "keys"
    shutil.copytree(ring_template, path)
    return KeysFolder(path, lock_timeout_s=5)


@pytest.fixture
def changes(folder, policy, clock) -> RingChanges:
    """What an operator can do to this test's ring."""
    return RingChanges(folder, policy, clock)
