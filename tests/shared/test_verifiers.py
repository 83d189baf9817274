"""The verifiers' registry and the canaries in a real store: what is authentic counts, and nothing else."""

import os
from collections.abc import AsyncIterator, Iterator

import msgspec
import pytest
from redis.asyncio import Redis

from shared import verifiers
from shared.embedded_store import EmbeddedStore
from shared.errors import AppError
from shared.revocations.feed_key import FeedKey
from shared.settings import Settings
from shared.store import connect
from shared.telemetry import VERIFIER_REPORTS_REFUSED
from shared.verifiers import CANARIES_KEY, KEEP_S, VERIFIERS_KEY, Canaries, VerifierReport

NOW = 1_800_000_000.0
KEY = FeedKey(bytes(range(32)))
OTHER_KEY = FeedKey(os.urandom(32))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Iterator[object]:
    """One store for this file."""
    made = tmp_path_factory.mktemp("verifiers")
    with EmbeddedStore(made):
        yield made


@pytest.fixture
async def store(folder) -> AsyncIterator[Redis]:
    """An empty store."""
    client = connect(Settings(var_dir=folder))
    await client.flushall()
    yield client
    await client.aclose()


def said(verifier_id: str = "host-8000-1", **changes) -> VerifierReport:
    usual = {
        "id": verifier_id,
        "started_at": NOW - 100,
        "seen_at": NOW,
        "kids": ("a", "b"),
        "proofs": {"a": NOW - 50},
        "feed_state": "following",
        "staleness_s": 0.4,
        "generation": 7,
    }
    return VerifierReport(**usual | changes)


async def test_what_was_reported_is_read_back(store: Redis) -> None:
    """By id, the latest of each; a goodbye takes one off."""
    await verifiers.report(store, KEY, said("b"))
    await verifiers.report(store, KEY, said("a", staleness_s=None))
    await verifiers.report(store, KEY, said("b", proofs={}))
    assert await verifiers.read_reports(store, KEY) == (said("a", staleness_s=None), said("b", proofs={}))
    await verifiers.forget(store, "a")
    assert await verifiers.read_reports(store, KEY) == (said("b", proofs={}),)
    await verifiers.forget(store)


async def test_a_registry_ends_with_its_last_verifier(store: Redis) -> None:
    """Both keys have a life."""
    await verifiers.report(store, KEY, said())
    await verifiers.publish_canaries(store, KEY, 7, {"a": "token"}, NOW)
    assert 0 < await store.ttl(VERIFIERS_KEY) <= KEEP_S
    assert 0 < await store.ttl(CANARIES_KEY) <= 3600


async def test_forged_reports_are_counted_and_do_not_count(store: Redis) -> None:
    """Under another key, altered, under another's name, cut, or not a report at all."""
    await verifiers.report(store, KEY, said("good"))
    await verifiers.report(store, OTHER_KEY, said("forged"))
    raw = await store.hget(VERIFIERS_KEY, "good")
    await store.hset(VERIFIERS_KEY, "altered", raw.replace(b'"good"', b'"evil"'))
    await store.hset(VERIFIERS_KEY, "another", raw)
    await store.hset(VERIFIERS_KEY, "cut", raw[:-1])
    await store.hset(VERIFIERS_KEY, "empty", b"")
    body = b'{"id":1}'
    await store.hset(VERIFIERS_KEY, "shapeless", KEY.authenticator(b"verifier").mac(body) + body)
    before = VERIFIER_REPORTS_REFUSED._value.get()
    assert await verifiers.read_reports(store, KEY) == (said("good"),)
    assert VERIFIER_REPORTS_REFUSED._value.get() == before + 6


async def test_canaries_are_read_back_only_if_authentic(store: Redis) -> None:
    """None there, good ones, another key's, a report in their place, and more than there can be keys."""
    assert await verifiers.read_canaries(store, KEY) is None
    await verifiers.publish_canaries(store, KEY, 7, {"a": "token"}, NOW)
    assert await verifiers.read_canaries(store, KEY) == Canaries(7, NOW, {"a": "token"})
    assert await verifiers.read_canaries(store, OTHER_KEY) is None
    body = msgspec.json.encode(Canaries(7, NOW, {"a": "token"}))
    await store.set(CANARIES_KEY, KEY.authenticator(b"verifier").mac(body) + body)
    assert await verifiers.read_canaries(store, KEY) is None
    await verifiers.publish_canaries(store, KEY, 7, {str(n): "token" for n in range(17)}, NOW)
    assert await verifiers.read_canaries(store, KEY) is None


async def test_a_store_that_is_away_is_an_error_of_ours(tmp_path) -> None:
    """Each operation says store_unavailable."""
    client = connect(Settings(var_dir=tmp_path))
    for work in (
        verifiers.publish_canaries(client, KEY, 1, {}, NOW),
        verifiers.read_canaries(client, KEY),
        verifiers.report(client, KEY, said()),
        verifiers.read_reports(client, KEY),
        verifiers.forget(client, "a"),
    ):
        with pytest.raises(AppError) as error:
            await work
        assert error.value.code == "store_unavailable"


def test_a_silent_verifier_is_dead_after_30_seconds_and_settled_after_the_cache_bound() -> None:
    """Exactly at the bounds."""
    one = said()
    assert one.is_live(NOW + 30)
    assert not one.is_live(NOW + 30.1)
    assert one.settled_at(332) == NOW + 332
    assert verifiers.long_silent([one, said("old", seen_at=NOW - KEEP_S - 1)], NOW) == ("old",)
