"""What must hold in the store before the first token: the demo client in development, none in production."""

import asyncio
import contextlib
from dataclasses import replace

import pytest

from auth_server.preparation import follow_deletion, follow_rotation, prepare
from auth_server.settings import AuthSettings
from auth_server.stores.client_secrets import load_pepper, new_secret
from auth_server.stores.clients import Clients
from shared.embedded_store import EmbeddedStore
from shared.errors import AppError
from shared.events import Event
from shared.store import connect
from tests.auth_server.serving import demo, serving


async def test_the_first_start_leaves_a_demo_client_that_only_its_owner_can_read(settings, clock):
    """All members that a first call needs; mode 0600."""
    async with serving(settings, clock) as server:
        held = demo(settings)
        assert set(held) == {"client_id", "client_secret", "token_endpoint", "resource", "scope"}
        assert held["token_endpoint"] == "http://127.0.0.1:9000/oauth2/token"
        assert settings.demo_file.stat().st_mode & 0o777 == 0o600
        assert (await server.clients.get(held["client_id"])).demo


async def test_later_starts_and_several_workers_keep_the_one_demo_client(settings, clock, event_log):
    """Also when they start at the same moment."""
    async with serving(settings, clock), serving(settings, clock), serving(settings, clock) as server:
        first = demo(settings)
        assert await server.clients.demo_ids() == [first["client_id"]]
    async with serving(settings, clock):
        assert demo(settings) == first
    assert len(event_log.named(Event.CLIENT_CREATED)) == 1


async def test_workers_that_prepare_at_once_make_one_demo_client(settings, clock):
    """Eight at the same moment."""
    async with opened(settings) as clients:
        pepper = load_pepper(settings.keys_dir)
        await asyncio.gather(*(prepare(settings, clients, pepper, clock()) for _ in range(8)))
        assert await clients.demo_ids() == [demo(settings)["client_id"]]


async def test_a_store_that_lost_the_demo_client_gets_it_back_as_the_file_says(settings, clock):
    """The printed calls go on working."""
    async with opened(settings) as clients:
        pepper = load_pepper(settings.keys_dir)
        await prepare(settings, clients, pepper, clock())
        held = demo(settings)
        await clients.delete(held["client_id"])
        await prepare(settings, clients, pepper, clock())
        again = await clients.get(held["client_id"])
        assert again.secrets[0].secret_hash == pepper.secret_hash(held["client_secret"])
        assert demo(settings) == held


async def test_a_disabled_demo_client_stays_disabled(settings, clock):
    """A start does not undo what an operator did."""
    async with opened(settings) as clients:
        pepper = load_pepper(settings.keys_dir)
        await prepare(settings, clients, pepper, clock())
        await clients.disable(demo(settings)["client_id"], clock())
        await prepare(settings, clients, pepper, clock())
        assert (await clients.get(demo(settings)["client_id"])).disabled


async def test_the_file_follows_another_address_and_survives_damage(settings, clock):
    """Same client for another port; a new one where the file can't be read."""
    async with opened(settings) as clients:
        pepper = load_pepper(settings.keys_dir)
        await prepare(settings, clients, pepper, clock())
        held = demo(settings)
        moved = replace(settings, issuer="http://127.0.0.1:9100")
        await prepare(moved, clients, pepper, clock())
        assert demo(settings) == held | {"token_endpoint": "http://127.0.0.1:9100/oauth2/token"}
        settings.demo_file.write_text("{")
        await prepare(settings, clients, pepper, clock())
        assert demo(settings)["client_id"] != held["client_id"]


async def test_production_makes_no_demo_client_and_refuses_a_store_that_has_one(settings, clock, tmp_path):
    """Its id is named, so that the operator knows what to delete."""
    productive = replace(settings, env="production", var_dir=tmp_path / "elsewhere")
    async with opened(settings) as clients:
        pepper = load_pepper(settings.keys_dir)
        await prepare(productive, clients, pepper, clock())
        assert not productive.demo_file.exists()
        await prepare(settings, clients, pepper, clock())
        with pytest.raises(AppError, match=demo(settings)["client_id"]):
            await prepare(productive, clients, pepper, clock())


async def test_a_server_with_the_wrong_pepper_does_not_start(settings, clock):
    """Every secret would be refused; better to say so."""
    async with serving(settings, clock):
        pass
    (settings.keys_dir / "client-secret.pepper").unlink()
    with pytest.raises(AppError, match=r"client-secret\.pepper"):
        async with serving(settings, clock):
            pass


def test_the_file_follows_its_own_client_only(tmp_path):
    """A rotation keeps it true, a deletion removes it; other clients do not touch it."""
    path, secret = AuthSettings(var_dir=tmp_path).demo_file, new_secret()
    text = '{"client_id":"demo-1","client_secret":"s","token_endpoint":"t","resource":"r","scope":"c"}'
    path.write_text(text)
    follow_rotation(path, "other-1", secret)
    follow_deletion(path, "other-1")
    assert path.read_text() == text
    follow_rotation(path, "demo-1", secret)
    assert demo(AuthSettings(var_dir=tmp_path))["client_secret"] == secret.reveal()
    follow_deletion(path, "demo-1")
    assert not path.exists()
    follow_deletion(path, "demo-1")


@contextlib.asynccontextmanager
async def opened(settings):
    """The clients of an installation whose server does not run."""
    embedded, store = EmbeddedStore(settings.var_dir), connect(settings)
    await asyncio.to_thread(embedded.attach)
    yield Clients(store)
    await store.aclose()
    await asyncio.to_thread(embedded.release)
