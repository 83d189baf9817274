"""Rotation by itself: when it is due, what holds it up, and that it happens once."""

import asyncio

import pytest

from auth_server.keyring.changes import RingChanges
from auth_server.keyring.folder import KeysFolder
from auth_server.keyring.policy import ring_policy
from auth_server.keyring.ring import KeyState
from auth_server.keyring.signer import Signer
from auth_server.scheduled_rotation import ScheduledRotation
from auth_server.settings import AuthSettings
from shared.events import Event
from shared.verifiers import VerifierReport
from tests.auth_server.serving import serving

DAY_S = 86400.0


class Site:
    """A key ring, what verifiers say, and servers that follow a schedule of one day."""

    def __init__(self, settings: AuthSettings, clock) -> None:
        self.clock = clock
        self.folder, self.policy = KeysFolder(settings.keys_dir), ring_policy(settings)
        self.changes = RingChanges(self.folder, self.policy, clock)
        self.settings = settings
        self.reports: tuple[VerifierReport, ...] | None = ()
        # the template's ring is older than a day: a rotation now starts this test's own day
        self.changes.rotate(seen_active=self.ring.active.kid, reports=())

    @property
    def ring(self):
        return self.folder.read()[0]

    def server(self, every_s: float = DAY_S) -> ScheduledRotation:
        async def read_reports():
            return self.reports

        signer = Signer.open(self.folder, self.policy, issuer=self.settings.issuer, clock=self.clock)
        return ScheduledRotation(self.changes, signer, read_reports, every_s=every_s)

    def verifier(self, *, proved: bool) -> None:
        kids = tuple(key.kid for key in self.ring.published)
        self.reports = (
            VerifierReport(
                id="model-8000-0",
                started_at=0.0,
                seen_at=self.clock.now,
                kids=kids,
                proofs=dict.fromkeys(kids if proved else kids[:1], self.clock.now),
                feed_state="",
                staleness_s=None,
                generation=0,
            ),
        )


@pytest.fixture
def site(settings, clock) -> Site:
    """One ring whose active key signs since now."""
    return Site(settings, clock)


async def test_rotation_happens_when_the_active_key_has_its_age_and_not_before(site):
    """The confirmed standby key takes over, a new one is published."""
    old, heir = site.ring.active.kid, site.ring.next_standby.kid
    server = site.server()
    site.clock.advance(DAY_S - 1)
    await server.step()
    assert site.ring.active.kid == old
    site.clock.advance(1)
    site.verifier(proved=True)
    await server.step()
    assert site.ring.active.kid == heir
    assert site.ring.find(old).state is KeyState.RETIRED
    assert site.ring.in_state(KeyState.STANDBY)


async def test_laggard_holds_it_up_and_is_named_once_a_minute(site, event_log):
    """As soon as it has proved the key, the rotation goes on."""
    old, server = site.ring.active.kid, site.server()
    site.clock.advance(DAY_S)
    for _ in range(120):
        site.verifier(proved=False)
        await server.step()
        site.clock.advance(1)
    assert site.ring.active.kid == old
    told = event_log.named(Event.KEY_ROTATION_BLOCKED)
    assert len(told) == 2
    assert told[0]["laggards"] == ["model-8000-0"]
    assert told[0]["kid"] == site.ring.next_standby.kid
    site.verifier(proved=True)
    await server.step()
    assert site.ring.active.kid != old


async def test_unknown_verifiers_hold_it_up(site, event_log):
    """A store that can't be read is no permission."""
    old, server = site.ring.active.kid, site.server()
    site.clock.advance(DAY_S)
    site.reports = None
    await server.step()
    assert site.ring.active.kid == old
    assert "nobody knows" in event_log.named(Event.KEY_ROTATION_BLOCKED)[0]["reason"]


async def test_many_servers_that_look_at_once_rotate_once(site):
    """Each decided on the same active key; the ring's lock lets one of them do it."""
    generation = site.ring.generation
    servers = [site.server() for _ in range(5)]
    site.clock.advance(DAY_S)
    await asyncio.gather(*(server.step() for server in servers))
    assert site.ring.generation == generation + 1
    await asyncio.gather(*(server.step() for server in servers))
    assert site.ring.generation == generation + 1


async def test_server_that_starts_in_the_middle_goes_on(site):
    """Nothing of the schedule is kept: a new process rotates what is due, and removes what is over."""
    old = site.ring.active.kid
    site.clock.advance(DAY_S)
    await site.server().step()
    site.clock.advance(5000)
    await site.server().step()
    assert site.ring.find(old).state is KeyState.REMOVED
    assert len([key for key in site.ring.published if key.state is not KeyState.RETIRED]) == 2


async def test_no_schedule_ends_at_once_and_changes_nothing(site):
    """The default in development."""
    generation = site.ring.generation
    site.clock.advance(100 * DAY_S)
    await asyncio.wait_for(site.server(every_s=0).keep(), 1)
    assert site.ring.generation == generation
    assert AuthSettings().key_rotation_s == 0


def test_production_rotates_every_thirty_days_unless_told_otherwise(tmp_path):
    """And a number decides everywhere."""
    assert AuthSettings(env="production").key_rotation_s == 30 * 86400
    assert AuthSettings.read({"FLEX_KEY_ROTATION_S": "0"}).key_rotation_s == 0
    assert AuthSettings.read({"FLEX_KEY_ROTATION_S": "90"}).key_rotation_s == 90


async def test_running_server_follows_its_schedule(own_store, clock):
    """The template's ring is long past ten seconds: a start rotates it."""
    _, settings = own_store
    folder = KeysFolder(settings.keys_dir)
    old = folder.read()[0].active.kid
    scheduled = AuthSettings(
        var_dir=settings.var_dir, keys_dir=settings.keys_dir, redis_url=settings.redis_url, key_rotation_every_s=10
    )
    async with serving(scheduled, clock), asyncio.timeout(20):
        while folder.read()[0].active.kid == old:
            await asyncio.sleep(0.02)
    assert folder.read()[0].find(old).state is KeyState.RETIRED
