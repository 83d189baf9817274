"""A whole auth server in process: real store, real keys, a clock that tests set."""

import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from auth_server.keyring.folder import KeysFolder
from auth_server.keyring.policy import ring_policy
from auth_server.settings import AuthSettings
from shared.embedded_store import EmbeddedStore
from shared.secret import Secret
from tests.auth_server.serving import Server, serving


@pytest.fixture(scope="session")
def keys_template(tmp_path_factory) -> Path:
    """A key ring made once: making keys takes longer than most tests."""
    path = tmp_path_factory.mktemp("template") / "keys"
    KeysFolder(path).ensure(1_799_000_000.0, ring_policy(AuthSettings()))
    return path


@pytest.fixture
def settings(tmp_path, keys_template) -> AuthSettings:
    """Settings of a fresh installation that has its keys already."""
    shutil.copytree(keys_template, tmp_path / "keys")
    (tmp_path / "keys").chmod(0o700)
    return AuthSettings(var_dir=tmp_path / "var", keys_dir=tmp_path / "keys")


@pytest.fixture
async def server(settings, clock) -> AsyncIterator[Server]:
    """One running server."""
    async with serving(settings, clock) as one:
        yield one


@pytest.fixture
def own_store(settings) -> Iterator[tuple[EmbeddedStore, AuthSettings]]:
    """A store that the test itself starts and stops, and settings that name it by URL."""
    store = EmbeddedStore(settings.var_dir)
    store.attach()
    yield store, replace(settings, redis_url=Secret(f"unix://{store.socket_path}"))
    store.release()
