"""Revocations at the model server: what is revoked is refused, and what is not known is not guessed."""

import math
import os

import pytest

from model_server.app import create_app
from model_server.revocations import Revocations
from shared.access_token import StaticKeySet
from shared.embedded_store import EmbeddedStore
from shared.events import Event
from shared.revocations.entries import client_revoked, signing_key_revoked, subject_revoked, token_revoked
from shared.revocations.notices import State
from shared.telemetry import BEARER_REFUSED
from tests.model_server.feed_site import LIMIT_S, FeedSite, following, until
from tests.model_server.serving import PREDICT, lifespan
from tests.tokens import NOW, Issuer

JTI = "0197f000000070008000000000000001"


@pytest.fixture
def other(other_rsa_key):
    return Issuer(other_rsa_key, "kid-2")


@pytest.fixture
def keys(issuer, other):
    return StaticKeySet({one.kid: one.key for one in (issuer, other)})


@pytest.fixture
async def running(feed_site, attributes, issuer, keys, clock):
    """A model server that follows the feed, and its revocations."""
    await feed_site.feed.heartbeat()
    revocations = feed_site.revocations()
    async with following(feed_site.settings, attributes, issuer, keys, revocations, clock) as api:
        yield api, revocations


async def predict(api, issuer, **claims):
    return await api.http.post(PREDICT, json=api.example(), headers=issuer.authorization(**claims))


KINDS = {
    "token_revoked": (token_revoked(JTI, NOW + 900), {"jti": JTI}, {"jti": JTI[:-1] + "2"}),
    "client_revoked": (client_revoked("stolen", NOW), {"client_id": "stolen"}, {"client_id": "honest"}),
    "subject_revoked": (subject_revoked("mallory", NOW), {"sub": "mallory"}, {"sub": "alice"}),
}


@pytest.mark.parametrize("reason", KINDS)
async def test_what_is_revoked_is_refused_and_nothing_else(reason, running, feed_site, issuer, event_log):
    """Seen before or not; callers get the one answer, log and metric the reason."""
    revocation, ended, lives = KINDS[reason]
    api, revocations = running
    assert (await predict(api, issuer, **ended)).status_code == 200
    before = BEARER_REFUSED.labels(reason)._value.get()
    await feed_site.revoke(revocation)
    await until(lambda: len(revocations.revoked) == 1)
    answer = await predict(api, issuer, **ended)
    assert (answer.status_code, answer.json()["type"]) == (401, "urn:flex:error:invalid_token")
    assert (await predict(api, issuer, **ended, scope="predict:*")).status_code == 401
    assert (await predict(api, issuer, **lives)).status_code == 200
    assert BEARER_REFUSED.labels(reason)._value.get() == before + 2
    assert [line["reason"] for line in event_log.named(Event.BEARER_REFUSED)] == [reason, reason]
    assert "revoked" not in answer.text


async def test_a_revoked_signing_key_ends_its_tokens_while_the_key_set_still_has_it(
    running, feed_site, issuer, other, event_log
):
    """Whenever they were issued, seen before or not; other keys' tokens live."""
    api, revocations = running
    assert (await predict(api, issuer)).status_code == 200
    await feed_site.revoke(signing_key_revoked(issuer.kid))
    await until(lambda: len(revocations.revoked) == 1)
    assert (await predict(api, issuer)).status_code == 401
    assert (await predict(api, issuer, iat=NOW + 20, jti="later")).status_code == 401
    assert (await predict(api, other)).status_code == 200
    assert [line["kid"] for line in event_log.named(Event.KEY_REVOKED)] == [issuer.kid]


async def test_no_call_is_served_before_the_feed_was_read(feed_site, attributes, issuer, keys, clock):
    """What was revoked while the server was away is refused from its first call on."""
    await feed_site.revoke(token_revoked(JTI, NOW + 900))
    async with following(feed_site.settings, attributes, issuer, keys, feed_site.revocations(), clock) as api:
        assert (await predict(api, issuer, jti=JTI)).status_code == 401
        assert (await predict(api, issuer)).status_code == 200


async def test_staleness_turns_calls_away_exactly_at_its_bound(running, clock, issuer):
    """503 with Retry-After and the age, never 401; readiness says it too; a heartbeat mends it."""
    api, revocations = running
    as_of = revocations._follower.as_of
    clock.now = as_of + LIMIT_S
    assert (await predict(api, issuer, exp=NOW + 3600)).status_code == 200
    assert (await api.http.get("/health/ready")).json()["revocations"]["staleness_s"] == LIMIT_S
    clock.now = as_of + LIMIT_S + 0.01
    answer = await predict(api, issuer, exp=NOW + 3600)
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:flex:error:revocations_stale")
    assert (answer.headers["retry-after"], answer.headers["flex-revocation-staleness"]) == ("5", str(LIMIT_S + 1))
    not_ready = await api.http.get("/health/ready")
    assert (not_ready.status_code, f"{LIMIT_S}.0 s old" in not_ready.json()["detail"]) == (503, True)


async def test_a_heartbeat_mends_staleness(running, feed_site, clock, issuer):
    """The same token is served again; what is certainly revoked is 401 all the time."""
    api, revocations = running
    await feed_site.revoke(token_revoked(JTI, NOW + 3600))
    await until(lambda: len(revocations.revoked) == 1)
    clock.advance(LIMIT_S + 1)
    assert (await predict(api, issuer, exp=NOW + 3600)).status_code == 503
    assert (await predict(api, issuer, exp=NOW + 3600, jti=JTI)).status_code == 401
    await feed_site.feed.heartbeat()
    await until(lambda: revocations.staleness_s < 1)
    assert (await predict(api, issuer, exp=NOW + 3600)).status_code == 200


async def test_without_a_store_a_snapshot_is_served_until_it_is_too_old(feed_site, attributes, issuer, keys, clock):
    """It knows what was revoked, and its age counts from its last heartbeat."""
    await feed_site.revoke(token_revoked(JTI, NOW + 900))
    file = feed_site.settings.revocations_file
    async with following(feed_site.settings, attributes, issuer, keys, feed_site.revocations(), clock):
        await until(file.exists)
    clock.advance(60)
    revocations = feed_site.revocations()
    async with following(feed_site.without_store(), attributes, issuer, keys, revocations, clock) as api:
        assert (await predict(api, issuer)).status_code == 200
        assert (await predict(api, issuer, jti=JTI)).status_code == 401
        ready = (await api.http.get("/health/ready")).json()
        assert ready["revocations"] == {"state": "disconnected", "staleness_s": pytest.approx(60, abs=0.2)}
        clock.advance(LIMIT_S)
        assert (await predict(api, issuer, exp=NOW + 3600)).status_code == 503


async def test_what_is_new_is_soon_on_disk(running, feed_site, issuer, attributes, keys, clock):
    """A second after a revocation both may die: a restart without the store still refuses the token."""
    _, revocations = running
    file = feed_site.settings.revocations_file
    await until(file.exists)
    await feed_site.revoke(token_revoked(JTI, NOW + 900))
    await until(lambda: len(revocations.revoked) == 1)
    old = file.read_bytes()
    os.utime(file, (NOW, NOW))  # as if written long ago
    clock.advance(1.1)
    await until(lambda: file.read_bytes() != old)
    restarted = feed_site.revocations()
    async with following(feed_site.without_store(), attributes, issuer, keys, restarted, clock) as api:
        assert (await predict(api, issuer, jti=JTI)).status_code == 401
        assert (await predict(api, issuer)).status_code == 200


async def test_without_store_and_snapshot_nothing_is_served(feed_site, attributes, issuer, keys, clock, monkeypatch):
    """The server starts all the same, and says that it knows nothing."""
    monkeypatch.setattr("model_server.app.FIRST_WAIT_S", 0.3)
    revocations = feed_site.revocations()
    async with following(feed_site.without_store(), attributes, issuer, keys, revocations, clock) as api:
        answer = await predict(api, issuer)
        assert (answer.status_code, answer.headers["flex-revocation-staleness"]) == (503, "unknown")
        assert (await predict(api, issuer, aud="https://elsewhere")).status_code == 401
        ready = await api.http.get("/health/ready")
        assert "nothing is known about revocations (the feed is disconnected)" in ready.json()["detail"]
        assert (await api.http.get("/health/live")).status_code == 200
    assert math.isinf(revocations.staleness_s)


async def test_an_unreadable_feed_key_is_told_and_nothing_is_served(
    feed_site, attributes, issuer, keys, clock, event_log, monkeypatch
):
    """Open to others: somebody may have read it. One event, 503 until it is right, then served."""
    monkeypatch.setattr("model_server.app.FIRST_WAIT_S", 0.1)
    monkeypatch.setattr("model_server.store_link.KEY_RETRY_S", 0.01)
    await feed_site.feed.heartbeat()
    feed_site.settings.feed_key_file.chmod(0o644)
    revocations = feed_site.revocations()
    async with following(feed_site.settings, attributes, issuer, keys, revocations, clock) as api:
        assert (await predict(api, issuer)).status_code == 503
        assert [line["reason"] for line in event_log.named(Event.FEED_KEY_PROBLEM)] == ["feed_key_open_to_others"]
        feed_site.settings.feed_key_file.chmod(0o600)
        await until(lambda: revocations.state is State.FOLLOWING)
        assert (await predict(api, issuer)).status_code == 200


async def test_metrics_say_how_the_feed_is(running, feed_site, clock, event_log, monkeypatch):
    """Age, number and state; a change of what the age allows is an event."""
    monkeypatch.setattr("model_server.revocations._WATCH_EVERY_S", 0.01)
    api, _ = running
    await feed_site.revoke(token_revoked(JTI, NOW + 900))
    clock.advance(30)
    await until(lambda: event_log.named(Event.REVOCATION_FRESHNESS_CHANGED))
    text = (await api.http.get("/metrics")).text
    assert "flex_revocation_staleness_seconds 30." in text
    assert "flex_revocations_held 1.0" in text
    assert 'flex_revocation_followers{state="following"} 1.0' in text
    (line,) = event_log.named(Event.REVOCATION_FRESHNESS_CHANGED)
    assert (line["freshness"], line["state"]) == ("degraded", "following")


async def test_the_embedded_store_is_started_held_and_stopped(settings, attributes, issuer, keys, clock, monkeypatch):
    """A model server alone starts the store of its folder; the last one to leave stops it."""
    monkeypatch.setattr("model_server.app.FIRST_WAIT_S", 0.5)
    site = FeedSite(settings, EmbeddedStore(settings.var_dir).socket_path, clock)
    revocations = site.revocations()
    async with following(settings, attributes, issuer, keys, revocations, clock) as api:
        assert EmbeddedStore(settings.var_dir).is_running()
        await site.feed.heartbeat()
        await until(lambda: revocations.state is State.FOLLOWING)
        assert (await predict(api, issuer)).status_code == 200
        await site.client.aclose()
    assert not EmbeddedStore(settings.var_dir).is_running()


async def test_an_issuer_without_a_feed_needs_no_store(monkeypatch, tmp_path, capsys):
    """With the limit 0 nothing is opened, and one event says so loudly."""
    monkeypatch.setenv("FLEX_VAR_DIR", str(tmp_path / "var"))
    monkeypatch.setenv("FLEX_MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.setenv("FLEX_ISSUER", "http://127.0.0.1:1")
    monkeypatch.setenv("FLEX_REQUIRE_FRESH_REVOCATIONS_S", "0")
    async with lifespan(create_app()):
        assert not (tmp_path / "var" / "store").exists()
        assert not (tmp_path / "var" / "feed.key").exists()
    assert '"insecure_option","option":"FLEX_REQUIRE_FRESH_REVOCATIONS_S=0"' in capsys.readouterr().out


async def test_readiness_says_that_there_is_no_feed(api):
    """Off is not the same as unknown."""
    assert (await api.http.get("/health/ready")).json() == {"ready": True, "revocations": {"state": "off"}}


def test_before_the_first_reading_everything_is_unknown(tmp_path, clock):
    """No follower yet, infinite staleness."""
    revocations = Revocations(limit_s=900, snapshot=tmp_path / "snapshot", clock=clock)
    assert (revocations.state, revocations.staleness_s) == (State.STARTING, math.inf)
