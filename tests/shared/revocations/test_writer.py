"""Writing: numbers without holes whoever writes, one heartbeat a second, trimming that harms nobody, lost stores."""

import asyncio
import os
from dataclasses import replace

import pytest

from shared.errors import AppError
from shared.revocations import entries
from shared.revocations.entries import Kind, Revocation, client_revoked, signing_key_revoked
from shared.revocations.feed_key import FeedKey
from shared.revocations.head import BEATS_KEY, HEAD_KEY, stream_key
from shared.revocations.writer import RevocationFeed
from tests.shared.revocations.conftest import held_tokens, new_set, until

LIFE_S, LEEWAY_S = 3600.0, 30.0


def is_unbroken(found: list[entries.Entry], first: int = 1) -> bool:
    numbers = [entry.sequence for entry in found]
    links = [entry.link for entry in found]
    return numbers == list(range(first, first + len(found))) and links[:-1] == [entry.previous for entry in found[1:]]


async def test_many_writers_at_once_leave_no_hole(site) -> None:
    """Eight writers of one store, 264 revocations one by one and in batches, heartbeats between."""
    feeds = [site.feed() for _ in range(8)]

    async def write(feed: RevocationFeed) -> None:
        for number in range(10):
            await feed.revoke(site.token())
            await feed.revoke_many([site.token() for _ in range(number % 4 + 1)])
            site.clock.ahead_s += 0.05
            await feed.heartbeat()

    await asyncio.gather(*map(write, feeds))
    found, head = await site.entries(), await site.head()
    assert is_unbroken(found)
    assert len(found) == head.last == 8 * (10 + 23)
    assert found[-1].link == head.link
    assert len(site.noticed("revocation_epoch_opened")) == 1


async def test_a_position_says_where(site) -> None:
    """Epoch, number and the store's id; a long batch goes in several steps without a hole."""
    feed = site.feed()
    first = await feed.revoke(site.token())
    last = await feed.revoke_many([site.token() for _ in range(1234)])
    assert (first.sequence, last.sequence, first.epoch) == (1, 1235, last.epoch)
    assert (await site.client.xrange(stream_key(last.epoch), last.stream_id, last.stream_id)) != []
    assert is_unbroken(await site.entries())
    with pytest.raises(ValueError, match="nothing"):
        await feed.revoke_many([])


async def test_the_same_revocation_again_is_not_written_again(site) -> None:
    """RFC 7009 lets clients revoke as often as they like; a higher watermark is another matter."""
    feed, token = site.feed(), site.token()
    assert await feed.revoke(token) == await feed.revoke(token)
    now = site.clock()
    await feed.revoke(entries.client_revoked("c", now - 10))
    await feed.revoke(entries.client_revoked("c", now - 20))
    await feed.revoke(entries.client_revoked("c", now - 5))
    assert [entry.kind for entry in await site.entries()] == [Kind.TOKEN, Kind.CLIENT, Kind.CLIENT]


async def test_times_are_bounded_and_the_clock_has_passed_a_watermark_when_it_is_written(site) -> None:
    """No watermark lies in the future, no token lives longer than any can."""
    feed = site.feed()
    await feed.revoke(entries.client_revoked("c", site.clock() + 500))
    assert (await site.entries())[0].time_ms < site.clock() * 1000
    await feed.revoke(entries.token_revoked("a" * 32, site.clock() + 1e6))
    await asyncio.sleep(0.001)  # the feed's times are rounded to whole milliseconds, half a one ahead of the clock
    assert (await site.entries())[1].time_ms <= (site.clock() + LIFE_S) * 1000


async def test_one_heartbeat_a_second_whoever_calls(site) -> None:
    """Of eight workers one wins, and none for the rest of that second."""
    feeds = [site.feed() for _ in range(8)]
    await feeds[0].revoke(site.token())
    assert await asyncio.gather(*(feed.heartbeat() for feed in feeds)) == [False] * 8  # the new epoch was one
    site.clock.ahead_s += 1.1
    assert sum(await asyncio.gather(*(feed.heartbeat() for feed in feeds))) == 1
    assert sum(await asyncio.gather(*(feed.heartbeat() for feed in feeds))) == 0
    assert await site.client.xlen(BEATS_KEY) == 1


async def test_a_writer_of_the_far_future_does_not_silence_the_others(site) -> None:
    """Its heartbeat, an hour ahead, is replaced at once."""
    site.clock.ahead_s = 3600
    await site.feed().heartbeat()
    site.clock.ahead_s = 0
    assert await site.feed().heartbeat()


async def test_trimming_takes_what_no_live_token_needs_and_nothing_else(site) -> None:
    """Exactly to the floor that the head names; also when everything goes, and the numbers go on."""
    feed = site.feed()
    await feed.revoke_many([site.token() for _ in range(3)])
    site.clock.ahead_s += 100
    await feed.revoke_many([site.token() for _ in range(2)])
    site.clock.ahead_s += LIFE_S + LEEWAY_S + 5 - 50
    await feed.heartbeat()
    head, found = await site.head(), await site.entries()
    assert [entry.sequence for entry in found] == [4, 5]
    assert (head.floor, head.last) == (4, 5)
    site.clock.ahead_s += 100
    await feed.heartbeat()
    assert ((await site.head()).floor, await site.entries()) == (6, [])
    assert (await feed.revoke(site.token())).sequence == 6


async def test_somebody_elses_trimming_does_not_move_the_floor(site) -> None:
    """What was deleted too early stays missed; and a forged old entry in front moves nothing either."""
    feed = site.feed()
    await feed.revoke_many([site.token() for _ in range(5)])
    await site.client.xtrim(await site.stream(), maxlen=2, approximate=False)
    await site.beat(feed)
    assert (await site.head()).floor == 1
    await site.client.delete(await site.stream())
    await site.client.xadd(await site.stream(), {"e": os.urandom(80)}, id="1-1")
    await site.beat(feed)
    assert (await site.head()).floor == 1


async def test_a_head_that_is_not_ours_stops_the_writer(site) -> None:
    """Loudly, and until an operator reseals: nothing may be signed on top of it."""
    feed = site.feed()
    await feed.revoke(site.token())
    stranger = RevocationFeed(
        site.client, FeedKey(os.urandom(32)), clock=site.clock, max_token_life_s=60, leeway_s=0, notify=site.notify
    )
    for attempt in (stranger.revoke(site.token()), stranger.heartbeat()):
        with pytest.raises(AppError) as caught:
            await attempt
        assert (caught.value.code, caught.value.reason) == ("conflict", "revocation_head_not_authentic")
    assert site.noticed("revocation_head_refused")
    assert await stranger.reseal() == 0
    assert await stranger.revoke(site.token())


async def test_resealing_keeps_every_authentic_entry(site) -> None:
    """After entries were deleted and altered: a new epoch with the rest, without a hole; the old one goes away."""
    writer, feed = site.feed(), site.feed()
    tokens = [site.token() for _ in range(6)]
    await writer.revoke_many(tokens)
    old = await site.stream()
    ids = [stream_id for stream_id, _ in await site.client.xrange(old)]
    await site.client.xdel(old, ids[1], ids[5])
    await site.client.xadd(old, {"e": os.urandom(80)})
    assert await feed.reseal() == 4
    found = await site.entries()
    assert [entry.key for entry in found] == [tokens[n].key for n in (0, 2, 3, 4)]
    assert is_unbroken(found)
    assert 0 < await site.client.ttl(old) <= LIFE_S + LEEWAY_S + 5


async def test_a_store_that_lost_everything_gets_this_writers_last_minute_back(site) -> None:
    """A new epoch with what is remembered; the first of several writers opens it, the others join and add theirs."""
    one, two = site.feed(), site.feed()
    tokens = [site.token() for _ in range(4)]
    await one.revoke_many(tokens[:2])
    await two.revoke_many(tokens[2:])
    await site.client.flushall()
    site.clock.ahead_s += 1
    await asyncio.gather(one.heartbeat(), two.heartbeat())
    found = await site.entries()
    assert {entry.key for entry in found} == {token.key for token in tokens}
    assert is_unbroken(found)


@pytest.mark.parametrize("loss", ["emptied", "put back"])
async def test_a_store_that_lost_what_is_long_known_gets_it_back_from_memory(site, loss) -> None:
    """Written an hour ago, far beyond the writer's last minute: a set that remembers it is enough."""
    revoked = new_set()
    await site.feed().revoke_many([site.token(), client_revoked("gone", site.clock())])
    await site.save()
    await site.feed().revoke_many([site.token(), signing_key_revoked("kid-1")])
    async with site.following(revoked):
        await until(lambda: len(revoked) == 4)
    feed = RevocationFeed(
        site.client,
        site.key,
        clock=site.clock,
        max_token_life_s=LIFE_S,
        leeway_s=LEEWAY_S,
        remembered=revoked.revocations,
    )
    await feed.heartbeat()
    await (site.client.flushall() if loss == "emptied" else site.lose_writes())
    await site.beat(feed)
    found = await site.entries()
    assert is_unbroken(found)
    fresh = new_set()
    for entry in found:
        fresh.apply(entry)
    assert held_tokens(fresh) == held_tokens(revoked)
    assert fresh.signing_keys == ("kid-1",)
    assert fresh._clients == revoked._clients


async def test_writes_that_a_failover_lost_are_written_again(site) -> None:
    """Also when another writer has gone on from the older state, so that the numbers look right."""
    one, two = site.feed(), site.feed()
    await one.revoke(site.token())
    await site.save()
    lost = [site.token(), site.token()]
    await one.revoke_many(lost)
    await site.lose_writes()
    await two.revoke_many([site.token() for _ in range(5)])
    await site.beat(one)
    found = await site.entries()
    assert {token.key for token in lost} <= {entry.key for entry in found}
    assert is_unbroken(found)
    assert site.noticed("revocation_writes_restored") == [{"n_entries": 3}]


async def test_a_lost_write_is_missed_although_anothers_entry_has_its_id(site) -> None:
    """Ids are the store's milliseconds: a failover within one may give the same id twice."""
    one, two = site.feed(), site.feed()
    await one.revoke(site.token())
    await site.save()
    lost = site.token()
    await one.revoke(lost)
    await site.lose_writes()
    await two.revoke(site.token())
    (*_, (stream_id, _)) = await site.client.xrange(await site.stream())
    revocation, position, at_ms = one._recent._written[lost.kind, lost.key]
    same_id = replace(position, stream_id=stream_id.decode())
    one._recent._written[lost.kind, lost.key] = (revocation, same_id, at_ms)
    await site.beat(one)
    assert lost.key in {entry.key for entry in await site.entries()}


async def test_a_store_that_is_away_is_one_error_and_the_task_goes_on(site, tmp_path) -> None:
    """Revoking is refused with 503 and can be repeated; the heartbeat's task never ends."""
    away = site.connect(path=tmp_path / "nothing")
    feed = RevocationFeed(away, site.key, clock=site.clock, max_token_life_s=60, leeway_s=0, notify=site.notify)
    with pytest.raises(AppError) as caught:
        await feed.revoke(site.token())
    assert caught.value.code == "store_unavailable"
    task = asyncio.create_task(feed.keep_beating(0.001))
    await asyncio.sleep(0.05)
    assert not task.done()
    assert len(site.noticed("revocation_feed_write_failed")) == 1  # once, not at every attempt
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_the_heads_key_is_all_that_lives_for_ever(site) -> None:
    """Head, heartbeat and one stream: nothing else is left in the store, however often it is resealed."""
    feed = site.feed()
    await feed.revoke(Revocation(Kind.SIGNING_KEY, b"kid", 0))
    await feed.reseal()
    names = {name.decode() for name in await site.client.keys("*")}
    permanent = {HEAD_KEY, BEATS_KEY, await site.stream()}
    assert permanent <= names
    assert all([await site.client.ttl(name) > 0 for name in names - permanent])
