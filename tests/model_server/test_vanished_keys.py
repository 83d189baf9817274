"""A key that vanishes from the issuer's set is kept while its tokens may live, if the revocation feed is followed."""

import json
from dataclasses import dataclass, field, replace

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from model_server.remote_keys import KeyFeed, RemoteKeys
from model_server.remote_keys.fetch import open_client
from model_server.remote_keys.vanished import KEEP_S, MAX_KEPT, keep_vanished
from shared.events import Event
from shared.key_sets import VerificationKey
from shared.telemetry import KEYS_KEPT
from tests.model_server.issuer_site import running_site
from tests.tokens import Issuer


@dataclass
class Feed:
    """What a revocation feed says, as a test sets it."""

    fresh: bool = True
    revoked: set[str] = field(default_factory=set)

    @property
    def of_keys(self) -> KeyFeed:
        return KeyFeed(lambda: self.fresh, lambda kid: kid in self.revoked)


class Site:
    """An issuer with two keys, whose set then lacks the first."""

    def __init__(self, issuer_site, client, clock, folder, first, second) -> None:
        self.issuer, self.client, self.clock, self.folder = issuer_site, client, clock, folder
        self.first, self.second = first, second
        self.feed = Feed()
        self.keys = self.follow(self.feed.of_keys)

    def follow(self, feed: KeyFeed | None) -> RemoteKeys:
        file = self.folder / "model" / "key_set.json"
        usual = {"soft_max_age_s": 300, "max_stale_s": 86_400.0, "chance": lambda: 0.5}
        return RemoteKeys(self.issuer.url, file=file, clock=self.clock, feed=feed, **usual)

    def restarted(self, feed: KeyFeed | None) -> RemoteKeys:
        keys = self.follow(feed)
        keys.load_last_good()
        return keys

    async def publish(self, *issuers: Issuer, keys: RemoteKeys | None = None) -> None:
        self.issuer.publish(*(one.jwk for one in issuers))
        await (keys or self.keys).refresh(self.client)

    async def roll_back(self, keys: RemoteKeys | None = None) -> None:
        await self.publish(self.first, self.second, keys=keys)
        await self.publish(self.second, keys=keys)


@pytest.fixture
async def site(clock, tmp_path, rsa_key, other_rsa_key):
    async with running_site() as issuer, open_client(issuer.url) as client:
        first, second = Issuer(rsa_key, "one", issuer.url), Issuer(other_rsa_key, "two", issuer.url)
        yield Site(issuer, client, clock, tmp_path, first, second)


async def test_a_rolled_back_set_refuses_no_good_token(site, event_log):
    """The key goes on verifying to the last moment of a token's life; one event, one metric, and it counts as held."""
    changes = []
    site.keys.on_change = lambda: changes.append(1)
    await site.roll_back()
    key = site.keys.get("one")
    assert key == site.first.key
    assert set(site.keys.held) == {"one", "two"}
    assert [line["kids"] for line in event_log.named(Event.KEY_VANISHED)] == [["one"]]
    assert KEYS_KEPT._value.get() == 1
    site.clock.advance(KEEP_S - 0.1)
    await site.publish(site.second)
    assert site.keys.get("one") is key
    site.clock.advance(0.1)
    assert site.keys.get("one") is None
    assert set(site.keys.held) == {"two"}
    await site.publish(site.second)
    assert (site.keys.ring.kept, KEYS_KEPT._value.get(), len(changes)) == ({}, 0, 2)


async def test_without_a_feed_a_vanished_key_goes_at_once(site, event_log):
    """Nobody could tell us that it was dropped because it is stolen; and nothing of it is on disk."""
    keys = site.follow(None)
    await site.roll_back(keys)
    assert keys.get("one") is None
    assert set(keys.held) == {"two"}
    assert not event_log.named(Event.KEY_VANISHED)
    assert site.restarted(site.feed.of_keys).get("one") is None


async def test_a_stale_feed_vouches_for_no_vanished_key(site):
    """It would not have told us of a theft; published keys are no matter of the feed's age."""
    await site.roll_back()
    site.feed.fresh = False
    assert site.keys.get("one") is None
    assert site.keys.get("two")
    assert set(site.keys.held) == {"two"}
    site.feed.fresh = True
    assert site.keys.get("one")


async def test_a_revoked_key_is_not_kept(site, event_log):
    """Whether the feed or the set is first."""
    await site.roll_back()
    site.feed.revoked.add("one")
    assert site.keys.get("one") is None
    await site.publish(site.second)
    assert site.keys.ring.kept == {}
    await site.publish(site.first, site.second)
    await site.publish(site.second)
    assert site.keys.ring.kept == {}
    assert len(event_log.named(Event.KEY_VANISHED)) == 1


async def test_a_key_that_comes_back_is_the_same_and_no_longer_kept(site):
    """Tokens verified with it stay good, and its next disappearance counts from then."""
    await site.roll_back()
    key = site.keys.get("one")
    site.clock.advance(100)
    await site.publish(site.first, site.second)
    assert site.keys.get("one") is key
    assert site.keys.ring.kept == {}
    await site.publish(site.second)
    assert site.keys.ring.kept["one"].until == site.clock.now + KEEP_S


async def test_a_kid_with_other_key_material_is_the_published_one(site):
    """What the issuer says now wins."""
    await site.roll_back()
    await site.publish(replace(site.second, kid="one"))
    assert site.keys.get("one") == replace(site.second, kid="one").key
    assert set(site.keys.ring.kept) == {"two"}


async def test_a_set_beyond_its_hard_age_leaves_nothing_to_keep(site):
    """For a day nobody has said that its keys are good."""
    await site.publish(site.first, site.second)
    site.clock.advance(86_400)
    await site.publish(site.second)
    assert site.keys.get("one") is None


async def test_what_is_kept_outlives_a_restart_and_not_its_time(site):
    """Beside the last good set on disk; only where a feed is followed, and never when it is revoked."""
    await site.roll_back()
    site.clock.advance(1000)
    assert site.restarted(site.feed.of_keys).get("one") == site.first.key
    assert site.restarted(None).get("one") is None
    assert site.restarted(Feed(revoked={"one"}).of_keys).get("one") is None
    site.clock.advance(KEEP_S - 1000)
    assert site.restarted(site.feed.of_keys).get("one") is None
    assert site.restarted(site.feed.of_keys).get("two")


async def test_a_file_without_kept_keys_is_read(site):
    """As yesterday's server wrote it; and one that promises too much is cut."""
    await site.roll_back()
    file = site.folder / "model" / "key_set.json"
    stored = json.loads(file.read_bytes())
    file.write_text(json.dumps(stored | {"kept_until": {"one": site.clock.now + 10 * KEEP_S}}))
    assert site.restarted(site.feed.of_keys).ring.kept["one"].until == site.clock.now + KEEP_S
    file.write_text(json.dumps({name: stored[name] for name in ("issuer", "fetched_at", "jwks")}))
    keys = site.restarted(site.feed.of_keys)
    assert (keys.get("one"), keys.get("two")) == (None, site.second.key)


def test_as_many_are_kept_as_a_set_may_have():
    """The first to vanish go first, so that an endpoint gone mad fills no memory."""
    public = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    kept = {}
    for number in range(MAX_KEPT + 4):
        before = {f"key-{number}": VerificationKey("https://id.example", f"key-{number}", 5, 3, public)}
        kept = keep_vanished(kept, before, {}, Feed().of_keys, 1000.0 + number)
    assert sorted(kept) == sorted(f"key-{number}" for number in range(4, MAX_KEPT + 4))
