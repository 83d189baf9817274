"""The admin handlers of keys and verifiers: what they answer, refuse and leave in the audit."""

from dataclasses import dataclass

import msgspec
import pytest

from auth_server.endpoints.admin_keys import AdminKeys
from auth_server.keyring.changes import RingChanges
from auth_server.keyring.folder import KeysFolder
from auth_server.keyring.policy import LONGEST_TTL_S, ring_policy
from shared.access_token import LEEWAY_S
from shared.errors import AppError
from shared.events import Event
from shared.revocations.feed_key import load_or_create_feed_key
from shared.revocations.writer import RevocationFeed
from shared.store import connect
from shared.verifiers import VerifierReport, read_reports, report


@dataclass(frozen=True)
class Caller:
    client_id: str = "operator-1"


@dataclass(frozen=True)
class Request:
    now: float
    body: object = None
    caller: Caller = Caller()


class Site:
    """The handlers on a real ring and a real store."""

    def __init__(self, settings, store, clock) -> None:
        self.store, self.clock = store, clock
        self.key = load_or_create_feed_key(settings.feed_key_file)
        self.folder = KeysFolder(settings.keys_dir)
        feed = RevocationFeed(store, self.key, clock=clock, max_token_life_s=LONGEST_TTL_S, leeway_s=LEEWAY_S)
        changes = RingChanges(self.folder, ring_policy(settings), clock)
        routes = AdminKeys(changes, feed, self.reports).routes()
        self.handlers = {(route.method, route.path): route.handler for route in routes}

    async def reports(self):
        try:
            return await read_reports(self.store, self.key)
        except AppError:
            return None

    async def __call__(self, method: str, path: str, body: object = None):
        """Call a handler as the admin endpoint does, and read its answer as a client does."""
        answer = await self.handlers[method, f"/admin/v1/{path}"](Request(self.clock.now, body))
        return msgspec.json.decode(msgspec.json.encode(answer))

    @property
    def ring(self):
        return self.folder.read()[0]

    async def verifier(self, *, proved: bool) -> None:
        kids = tuple(key.kid for key in self.ring.published)
        proofs = dict.fromkeys(kids if proved else (), self.clock.now)
        said = VerifierReport(
            id="model-8000-0",
            started_at=1.0,
            seen_at=self.clock.now,
            kids=kids,
            proofs=proofs,
            feed_state="",
            staleness_s=None,
            generation=0,
        )
        await report(self.store, self.key, said)


@pytest.fixture
async def site(own_store, clock):
    """A ring whose standby key is old enough."""
    _, settings = own_store
    store = connect(settings)
    yield Site(settings, store, clock)
    await store.aclose()


async def test_lists_show_keys_and_verifiers(site):
    """One page each, the named list beside ``items``."""
    await site.verifier(proved=False)
    seen = await site("GET", "keys")
    assert seen["keys"] == seen["items"]
    assert seen["next"] is None
    assert [key["state"] for key in seen["keys"]] == ["active", "published"]
    assert seen["keys"][1]["waits_for"] == ["model-8000-0"]
    verifiers = await site("GET", "verifiers")
    assert verifiers["items"] == verifiers["verifiers"] == seen["verifiers"]
    assert verifiers["items"][0]["id"] == "model-8000-0"


async def test_rotation_is_refused_while_a_verifier_lags_and_done_once_it_has_proved(site, event_log):
    """The events name the client that asked."""
    await site.verifier(proved=False)
    with pytest.raises(AppError, match="model-8000-0") as refused:
        await site("POST", "keys/rotate")
    assert (refused.value.status, refused.value.retry_after_s) == (409, 2)
    await site.verifier(proved=True)
    old = site.ring.active.kid
    done = await site("POST", "keys/rotate", {"generation": 1})
    assert (done["retired"], done["pushed"]) == ([old], None)
    assert (await site("POST", "keys/rotate", {"generation": 1}))["overtaken"] is True
    assert event_log.named(Event.KEY_ACTIVATED)[0]["actor"] == "operator-1"
    assert event_log.named(Event.KEY_ROTATION_REFUSED)[0]["actor"] == "operator-1"


async def test_forced_rotation_is_audited(site, event_log):
    """With what it passed over."""
    await site.verifier(proved=False)
    await site("POST", "keys/rotate", {"force": True})
    (told,) = event_log.named(Event.KEY_ACTIVATION_FORCED)
    assert told["actor"] == "operator-1"
    assert "model-8000-0" in told["missing"]


async def test_emergency_and_revocation_reach_the_feed(site, event_log):
    """The ring drops the key, the next one signs, the verifiers are told."""
    old = site.ring.active.kid
    done = await site("POST", "keys/rotate", {"emergency": True})
    assert (done["revoked"], done["pushed"]) == ([old], True)
    kid = site.ring.next_standby.kid
    assert (await site("POST", "keys/revoke", {"kid": kid}))["revoked"] == [kid]
    assert [line["kid"] for line in event_log.named(Event.KEY_REVOCATION_PUSHED)] == [old, kid]


async def test_key_is_dropped_in_the_ring_even_if_the_store_is_away(site, own_store):
    """``pushed`` says that the verifiers were not told; a planned step is refused, as nobody knows them."""
    own_store[0].release()
    old = site.ring.active.kid
    assert (await site("POST", "keys/rotate", {"emergency": True}))["pushed"] is False
    assert site.ring.find(old).compromised
    with pytest.raises(AppError, match="nobody knows"):
        await site("POST", "keys/activate")
    with pytest.raises(AppError, match="store_unavailable"):
        await site("GET", "verifiers")
    assert (await site("GET", "keys"))["verifiers_known"] is False


async def test_prepare_activate_and_retire_move_keys(site):
    """As the command line does."""
    (made,) = (await site("POST", "keys/prepare", {"bits": 2048}))["prepared"]
    assert (await site("POST", "keys/retire", {"kid": made}))["retired"] == [made]
    heir = site.ring.next_standby.kid
    assert (await site("POST", "keys/activate", {"kid": heir}))["activated"] == [heir]
    site.clock.advance(10_000)
    assert len((await site("POST", "keys/retire"))["removed"]) == 2


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("revoke", None, "invalid_request"),
        ("revoke", {"kid": "nobody"}, "not_found"),
        ("rotate", {"forced": True}, "invalid_request"),
        ("rotate", ["force"], "invalid_request"),
        ("rotate", {"force": "yes"}, "invalid_request"),
        ("prepare", {"bits": 1024}, "invalid_request"),
        ("activate", {"kid": "nobody"}, "not_found"),
    ],
)
async def test_wrong_bodies_change_nothing(site, path, body, code):
    """One refusal for what the client sent; the ring stays as it is."""
    with pytest.raises(AppError) as refused:
        await site("POST", f"keys/{path}", body)
    assert refused.value.code == code
    assert site.ring.generation == 1
