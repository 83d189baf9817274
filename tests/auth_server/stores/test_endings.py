"""The end of a client ends its tokens, whatever workers are issuing meanwhile."""

import asyncio
import time

import pytest

from auth_server.stores.endings import end_tokens_of_client
from shared.errors import AppError
from shared.revocations.feed_key import load_or_create_feed_key
from shared.revocations.writer import RevocationFeed
from shared.store import connect
from tests.auth_server.serving import serving
from tests.auth_server.test_revoke import active, issued


class TickingClock:
    """A clock that goes on by itself, from the moment at which the others stand."""

    def __init__(self):
        self._ahead_s = 1_800_000_000 - time.monotonic()

    def __call__(self):
        return time.monotonic() + self._ahead_s


def new_feed(settings, store, clock):
    """A writer as another process has it."""
    key = load_or_create_feed_key(settings.feed_key_file)
    return RevocationFeed(store, key, clock=clock, max_token_life_s=3600, leeway_s=30)


async def test_no_token_outlives_the_end_of_its_client(settings):
    """Tokens are asked for at two workers all the time; whichever were issued, none is active afterwards."""
    clock = TickingClock()
    async with serving(settings, clock) as first, serving(settings, clock) as second:
        made, observer = await first.register(), await first.register()
        tokens, ended = [], asyncio.Event()

        async def ask(server):
            while not ended.is_set():
                answer = await server.token(made)
                if answer.status_code == 200:
                    tokens.append(answer.json()["access_token"])

        asking = [asyncio.create_task(ask(server)) for server in (first, second)]
        await asyncio.sleep(0.05)
        store = connect(settings)
        await first.clients.disable(made.client.client_id, clock())
        await end_tokens_of_client(new_feed(settings, store, clock), made.client.client_id, clock)
        ended.set()
        await asyncio.gather(*asking)
        await store.aclose()
        assert len(tokens) > 10
        async with asyncio.timeout(10):
            while await active(first, observer, tokens[-1]):
                await asyncio.sleep(0.001)
        assert not any([await active(first, observer, token) for token in tokens])


async def test_tokens_issued_right_after_a_watermark_are_good(settings):
    """Fifty times in a few seconds: the older token ends, the next one does not."""
    clock = TickingClock()
    async with serving(settings, clock) as server:
        made, operator = await server.register(), await server.register("tokens:revoke")
        login = {"authorization": f"Bearer {await issued(server, operator)}"}
        body = {"kind": "client", "value": made.client.client_id}
        for _ in range(50):
            before = await issued(server, made)
            assert (await server.http.post("/admin/v1/revocations", json=body, headers=login)).status_code == 200
            after = await issued(server, made)
            assert [await active(server, operator, each) for each in (before, after)] == [False, True]


async def test_what_could_not_be_ended_is_said(own_store, clock):
    """The store goes away after the record was changed: several attempts, then what is left to do."""
    embedded, settings = own_store
    store = connect(settings)
    feed = new_feed(settings, store, clock)
    await feed.heartbeat()
    embedded.release()
    with pytest.raises(AppError, match="flex token revoke --client one-0123456789ab") as refused:
        await end_tokens_of_client(feed, "one-0123456789ab", clock)
    assert refused.value.code == "store_unavailable"
    await store.aclose()


async def test_a_store_that_comes_back_in_time_is_tried_again(own_store, clock):
    """No operator is bothered by a restart of the store."""
    embedded, settings = own_store
    store = connect(settings)
    feed = new_feed(settings, store, clock)
    await feed.heartbeat()
    embedded.release()
    ending = asyncio.create_task(end_tokens_of_client(feed, "one-0123456789ab", clock))
    await asyncio.sleep(0.05)
    await asyncio.to_thread(embedded.attach)
    assert (await ending).sequence == 1
    await store.aclose()
