"""Fixtures of the fault table's tests: the servers' own ones, under the names that these tests use."""

import shutil

import pytest

from auth_server.keyring.folder import KeysFolder
from auth_server.keyring.policy import ring_policy
from auth_server.settings import AuthSettings
from model_server.attribute import open_all
from shared import verifiers
from shared.embedded_store import EmbeddedStore
from shared.store import connect
from tests.faults.at_auth import AuthWorld
from tests.faults.at_model import MODELS, ModelWorld
from tests.model_server.issuer_site import running_site


@pytest.fixture(scope="session")
def attributes():
    """The shipped models, opened once."""
    return open_all(MODELS).opened


@pytest.fixture(scope="session")
def keys_template(tmp_path_factory):
    """A key ring made once."""
    path = tmp_path_factory.mktemp("template") / "keys"
    KeysFolder(path).ensure(1_799_000_000.0, ring_policy(AuthSettings()))
    return path


@pytest.fixture
def own_store(tmp_path):
    """A store that nobody starts again when a test kills it."""
    store = EmbeddedStore(tmp_path / "store")
    store.attach()
    yield store
    store.release()


@pytest.fixture
def auth_world(tmp_path, keys_template, own_store, clock, monkeypatch):
    """An auth server to be started, with keys of its own and less patience with a frozen store."""
    monkeypatch.setitem(connect.__kwdefaults__, "timeout_s", 0.7)
    shutil.copytree(keys_template, tmp_path / "keys")
    (tmp_path / "keys").chmod(0o700)
    return AuthWorld(tmp_path, own_store, clock, monkeypatch)


@pytest.fixture
async def model_world(tmp_path, attributes, own_store, clock, rsa_key, other_rsa_key, monkeypatch):
    """A model server to be started, its issuer, its store, and whoever writes the feed."""
    monkeypatch.setattr(verifiers, "REPORT_EVERY_S", 0.05)
    async with running_site() as issuer_site:
        world = ModelWorld(tmp_path, attributes, own_store, issuer_site, clock, (rsa_key, other_rsa_key), monkeypatch)
        yield world
        await world.end()
