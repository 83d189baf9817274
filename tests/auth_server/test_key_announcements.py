"""What the auth server tells every verifier about its keys: canaries that prove, revocations that end."""

import asyncio
from dataclasses import replace

import pytest

from auth_server.key_announcements import KeyAnnouncements
from auth_server.keyring.canaries import CANARY_LIFE_S
from auth_server.keyring.changes import RingChanges
from auth_server.keyring.folder import KeysFolder
from auth_server.keyring.policy import LONGEST_TTL_S, ring_policy
from auth_server.keyring.ring import KeyState
from auth_server.keyring.signer import Signer
from shared.access_token import LEEWAY_S, StaticKeySet, TokenRefused, parse_key_set, verify_access_token
from shared.errors import AppError
from shared.events import Event
from shared.revocations.entries import Kind, decode_entry, epoch_authenticator
from shared.revocations.feed_key import FeedKey, load_or_create_feed_key
from shared.revocations.head import HEAD_KEY, decode_head, stream_key
from shared.revocations.writer import RevocationFeed
from shared.secret import Secret
from shared.store import connect
from shared.verifiers import CANARIES_KEY, CANARY_AUDIENCE, publish_canaries, read_canaries
from tests.auth_server.serving import serving


class Site:
    """An auth server's keys beside a real store, one or more announcers, and what they left in the store."""

    def __init__(self, settings, store, clock) -> None:
        self.settings, self.store, self.clock = settings, store, clock
        self.key: FeedKey = load_or_create_feed_key(settings.feed_key_file)
        self.folder, self.policy = KeysFolder(settings.keys_dir), ring_policy(settings)
        self.changes = RingChanges(self.folder, self.policy, clock)
        self.signer = Signer.open(self.folder, self.policy, issuer=settings.issuer, clock=clock)

    def feed(self) -> RevocationFeed:
        return RevocationFeed(self.store, self.key, clock=self.clock, max_token_life_s=LONGEST_TTL_S, leeway_s=LEEWAY_S)

    def announcer(self, feed: RevocationFeed | None = None) -> KeyAnnouncements:
        return KeyAnnouncements(
            self.store, self.key, feed or self.feed(), self.signer, trusted_s=86400, clock=self.clock
        )

    async def canaries(self):
        return await read_canaries(self.store, self.key)

    async def dropped_kids(self) -> list[str]:
        """The kids in the feed, in the order of their entries."""
        raw = await self.store.get(HEAD_KEY)
        if raw is None:
            return []
        epoch = decode_head(self.key, raw).epoch
        authenticator = epoch_authenticator(self.key, epoch)
        rows = [fields for _, fields in await self.store.xrange(stream_key(epoch))]
        entries = [decode_entry(authenticator, next(iter(fields.values()))) for fields in rows]
        return [entry.key.decode() for entry in entries if entry.kind == Kind.SIGNING_KEY]

    async def drop_active(self) -> str:
        """Drop the active key in the ring only, as a command that crashed before it told anybody."""
        kid = self.folder.read()[0].active.kid
        await asyncio.to_thread(lambda: self.changes.rotate_in_emergency(seen_active=kid))
        await asyncio.to_thread(self.signer.refresh)
        return kid


@pytest.fixture
async def site(own_store, clock):
    """Keys, a running store, a settable clock."""
    _, settings = own_store
    store = connect(settings)
    yield Site(settings, store, clock)
    await store.aclose()


async def test_canaries_prove_active_and_standby_keys_and_open_nothing(site):
    """Each verifies with its own key as an access token for no resource, and as nothing else."""
    await site.announcer().announce()
    held = await site.canaries()
    ring = site.folder.read()[0]
    assert held.generation == ring.generation
    assert set(held.canaries) == {ring.active.kid, ring.next_standby.kid}
    keys = StaticKeySet(parse_key_set(site.signer.jwks().body, site.settings.issuer))
    for kid, raw in held.canaries.items():
        token = verify_access_token(
            raw, keys, issuer=site.settings.issuer, audience=CANARY_AUDIENCE, now=site.clock.now
        )
        assert token.key.kid == kid
        assert token.scopes == {"canary"}
        for audience in (site.settings.resource, site.settings.issuer):
            with pytest.raises(TokenRefused, match="wrong_audience"):
                verify_access_token(raw, keys, issuer=site.settings.issuer, audience=audience, now=site.clock.now)
    assert site.folder.read()[0].next_standby.last_expiry_at == 0


async def test_canaries_are_renewed_before_they_expire_and_not_before_that(site):
    """Several workers find each other's and leave them."""
    first, second = site.announcer(), site.announcer()
    await first.announce()
    written = await site.store.get(CANARIES_KEY)
    site.clock.advance(10)
    await second.announce()
    await first.announce()
    assert await site.store.get(CANARIES_KEY) == written
    site.clock.advance(CANARY_LIFE_S / 3)
    await second.announce()
    assert (await site.canaries()).written_at == site.clock.now


async def test_new_generation_has_its_canaries_at_once(site):
    """A server that is behind leaves what a newer ring wrote."""
    announcer = site.announcer()
    await announcer.announce()
    behind = Signer.open(site.folder, site.policy, issuer=site.settings.issuer, clock=site.clock)
    await asyncio.to_thread(site.changes.prepare)
    await asyncio.to_thread(site.signer.refresh)
    await announcer.announce()
    held = await site.canaries()
    assert (held.generation, len(held.canaries)) == (2, 3)
    site.signer = behind
    await site.announcer().announce()
    assert await site.canaries() == held


@pytest.mark.parametrize("harm", ["emptied", "forged"])
async def test_lost_or_forged_canaries_are_written_again(site, harm):
    """Within seconds, without any change of the ring."""
    announcer = site.announcer()
    await announcer.announce()
    if harm == "emptied":
        await site.store.flushdb()
    else:
        await publish_canaries(site.store, FeedKey(bytes(32)), 99, {}, site.clock.now)
        assert await site.canaries() is None
    site.clock.advance(5)
    await announcer.announce()
    assert len((await site.canaries()).canaries) == 2


async def test_canaries_of_an_issuer_that_has_moved_are_written_again(site):
    """Same keys, same generation, another FLEX_ISSUER: the old canaries would prove nothing for five minutes."""
    await site.announcer().announce()
    moved = "https://elsewhere.example"
    site.signer = Signer.open(site.folder, site.policy, issuer=moved, clock=site.clock)
    site.clock.advance(5)
    await site.announcer().announce()
    held = await site.canaries()
    assert held.written_at == site.clock.now
    for raw in held.canaries.values():
        verify_access_token(raw, site.signer, issuer=moved, audience=CANARY_AUDIENCE, now=site.clock.now)


async def test_key_that_was_dropped_while_nobody_could_tell_is_pushed(site, event_log):
    """A crash between the ring's commit and the push loses nothing; nothing else is revoked."""
    announcer = site.announcer()
    await announcer.announce()
    assert await site.dropped_kids() == []
    kid = await site.drop_active()
    await announcer.announce()
    assert await site.dropped_kids() == [kid]
    assert [line["kid"] for line in event_log.named(Event.KEY_REVOCATION_PUSHED)] == [kid]
    assert kid not in (await site.canaries()).canaries
    await announcer.announce()
    assert await site.dropped_kids() == [kid]


async def test_dropped_key_is_pushed_again_for_as_long_as_anybody_may_trust_it(site):
    """The stream forgets after the longest token; a verifier that can't fetch would not. Then it is over."""
    kid = await site.drop_active()
    feed = site.feed()
    announcer = site.announcer(feed)
    await announcer.announce()
    site.clock.advance(1900)
    await feed.heartbeat()
    await announcer.announce()
    assert await site.dropped_kids() == [kid, kid]
    site.clock.advance(86400 + 3600)
    await site.announcer().announce()
    assert await site.dropped_kids() == [kid, kid]


async def test_what_can_not_be_announced_is_told_once_and_made_up_for(own_store, clock, event_log):
    """The store is away at first."""
    embedded, settings = own_store
    store = connect(replace(settings, redis_url=Secret(f"unix://{embedded.socket_path}")))
    site = Site(settings, store, clock)
    embedded.release()
    announcer = site.announcer()
    with pytest.raises(AppError, match="store_unavailable"):
        await announcer.announce()
    task = asyncio.create_task(announcer.keep(poll_s=0.01))
    await asyncio.sleep(0.1)
    assert len(event_log.named(Event.KEY_ANNOUNCEMENT_FAILED)) == 1
    await asyncio.to_thread(embedded.attach)
    async with asyncio.timeout(10):
        while not event_log.named(Event.CANARIES_PUBLISHED):
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await store.aclose()


async def test_running_server_announces_by_itself(own_store, clock):
    """Canaries at the start; a key that the command line dropped is in the feed within a second."""
    _, settings = own_store
    store = connect(settings)
    site = Site(settings, store, clock)
    async with serving(settings, clock), asyncio.timeout(20):
        while await site.canaries() is None:
            await asyncio.sleep(0.02)
        kid = site.folder.read()[0].active.kid
        await asyncio.to_thread(lambda: site.changes.rotate_in_emergency(seen_active=kid))
        while await site.dropped_kids() != [kid]:
            await asyncio.sleep(0.02)
        assert site.folder.read()[0].active.state is KeyState.ACTIVE
    await store.aclose()
