"""Proving keys to the installation: what a verifier can verify it says, and nothing that it can't."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import httpx
import msgspec
import pytest

from model_server.app import remote_keys
from model_server.key_proofs import verifier_id
from model_server.remote_keys import RemoteKeys
from shared import verifiers
from shared.embedded_store import EmbeddedStore
from shared.events import Event
from shared.revocations.entries import client_revoked, signing_key_revoked
from shared.revocations.feed_key import FeedKey, load_or_create_feed_key
from shared.revocations.writer import RevocationFeed
from shared.settings import Settings
from shared.store import connect
from shared.verifiers import CANARY_AUDIENCE
from tests.model_server.feed_site import FeedSite, following, until
from tests.model_server.issuer_site import JWKS, running_site
from tests.model_server.serving import PREDICT
from tests.tokens import NOW, Issuer

ROOT = Path(__file__).parents[2]
NAME = verifier_id(8000, 1)


@pytest.fixture
async def site():
    async with running_site() as site:
        yield site


@pytest.fixture
def active(rsa_key, site):
    return Issuer(rsa_key, "active", site.url)


@pytest.fixture
def standby(other_rsa_key, site):
    return Issuer(other_rsa_key, "standby", site.url)


@pytest.fixture
async def proving(feed_site, attributes, site, active, clock, monkeypatch):
    """A model server that holds the active key and reports every 10 ms."""
    monkeypatch.setattr(verifiers, "REPORT_EVERY_S", 0.01)
    site.publish(active.jwk)
    settings = replace(feed_site.settings, issuer=site.url)
    keys = RemoteKeys(site.url, file=settings.key_set_file, soft_max_age_s=300, max_stale_s=3600, clock=clock)
    await feed_site.feed.heartbeat()
    async with following(settings, attributes, active, keys, feed_site.revocations(), clock) as api:
        yield api


def canary(issuer: Issuer, **changes) -> str:
    claims = {"aud": CANARY_AUDIENCE, "sub": "canary", "client_id": "canary", "scope": "canary", "exp": NOW + 60}
    return issuer.token(**claims | changes).decode()


async def publish(feed_site: FeedSite, generation: int = 7, **canaries: str) -> None:
    await verifiers.publish_canaries(feed_site.client, feed_site.key, generation, canaries, feed_site.clock())


async def reported(feed_site: FeedSite) -> verifiers.VerifierReport | None:
    found = await verifiers.read_reports(feed_site.client, feed_site.key)
    return found[0] if found else None


async def until_reported(feed_site: FeedSite, condition) -> verifiers.VerifierReport:
    async with asyncio.timeout(5):
        while (said := await reported(feed_site)) is None or not condition(said):
            await asyncio.sleep(0.005)
    return said


async def test_a_verified_canary_is_a_proof(proving, feed_site, active, event_log):
    """With name, keys, feed and generation; each proof is one event and keeps its first time."""
    await publish(feed_site, active=canary(active))
    said = await until_reported(feed_site, lambda said: said.proofs)
    assert (said.id, said.kids, said.proofs) == (NAME, ("active",), {"active": NOW})
    assert (said.feed_state, said.generation, said.started_at) == ("following", 7, NOW)
    assert said.is_live(feed_site.clock())
    feed_site.clock.advance(3)
    said = await until_reported(feed_site, lambda said: said.seen_at > NOW)
    assert (said.proofs, said.staleness_s) == ({"active": NOW}, 3.0)
    assert [line["kid"] for line in event_log.named(Event.KEY_PROVED)] == ["active"]


async def test_a_canary_of_an_unknown_key_makes_the_follower_ask(proving, feed_site, site, active, standby):
    """The standby key is fetched and proved, although nobody has used it and no refresh is due."""
    n_fetches = site.n_requests[JWKS]
    site.publish(active.jwk, standby.jwk)
    await publish(feed_site, active=canary(active), standby=canary(standby))
    said = await until_reported(feed_site, lambda said: "standby" in said.proofs)
    assert set(said.kids) == {"active", "standby"}
    assert site.n_requests[JWKS] == n_fetches + 1


@pytest.mark.parametrize("wrong", ["expired", "audience", "key", "nonsense"])
async def test_what_does_not_verify_proves_nothing(wrong, proving, feed_site, active, standby):
    """Expired, another audience, signed by another key, no token; and a good one under another's kid."""
    bad = {
        "expired": canary(active, exp=NOW - 60, iat=NOW - 120),
        "audience": canary(active, aud="http://127.0.0.1:8000"),
        "key": canary(replace(standby, kid="active")),
        "nonsense": "nonsense",
    }
    await publish(feed_site, active=bad[wrong], standby=canary(active))
    said = await until_reported(feed_site, lambda said: said.generation == 7)
    assert (said.kids, said.proofs) == (("active",), {})


async def test_forged_canaries_are_not_looked_at(proving, feed_site, active):
    """Without the feed key nobody can make the verifiers prove or fetch anything."""
    stranger = FeedKey(os.urandom(32))
    await verifiers.publish_canaries(feed_site.client, stranger, 9, {"active": canary(active)}, NOW)
    feed_site.clock.advance(1)
    said = await until_reported(feed_site, lambda said: said.seen_at > NOW)
    assert (said.generation, said.proofs) == (0, {})


async def test_a_canary_opens_nothing(proving, feed_site, active):
    """It is a token of another audience."""
    answer = await proving.http.post(
        PREDICT, json=proving.example(), headers={"authorization": "Bearer " + canary(active, scope="predict:grit")}
    )
    assert answer.status_code == 401


async def test_a_proof_ends_with_its_key(proving, feed_site, site, active, standby):
    """A key that the set lost is no longer held or proved, and one that is revoked is no longer proved."""
    site.publish(active.jwk, standby.jwk)
    await publish(feed_site, active=canary(active), standby=canary(standby))
    await until_reported(feed_site, lambda said: len(said.proofs) == 2)
    await feed_site.revoke(signing_key_revoked("active"))
    said = await until_reported(feed_site, lambda said: "active" not in said.proofs)
    assert set(said.kids) == {"active", "standby"}
    site.publish(active.jwk)
    await publish(feed_site, another=canary(replace(standby, kid="another")))
    feed_site.clock.advance(31)
    said = await until_reported(feed_site, lambda said: not said.proofs)
    assert said.kids == ("active",)


async def test_a_kept_key_is_still_held_and_proved(feed_site, attributes, site, active, standby, clock, monkeypatch):
    """A set that is rolled back takes away nothing that this process would verify with; a revocation does."""
    monkeypatch.setattr(verifiers, "REPORT_EVERY_S", 0.01)
    site.publish(active.jwk, standby.jwk)
    settings, revocations = replace(feed_site.settings, issuer=site.url), feed_site.revocations()
    keys = remote_keys(settings, revocations, clock=clock)
    await feed_site.feed.heartbeat()
    async with following(settings, attributes, active, keys, revocations, clock) as api:
        await publish(feed_site, active=canary(active), standby=canary(standby))
        await until_reported(feed_site, lambda said: len(said.proofs) == 2)
        site.publish(standby.jwk)
        clock.advance(31)
        await feed_site.feed.heartbeat()
        assert keys.get("unknown") is None  # the follower asks again
        await until(lambda: keys.ring.kept)
        said = await until_reported(feed_site, lambda said: said.seen_at > NOW + 30)
        assert set(said.kids) == set(said.proofs) == {"active", "standby"}
        headers = active.authorization(scope="predict:grit")
        assert (await api.http.post(PREDICT, json=api.example(), headers=headers)).status_code == 200
        await feed_site.revoke(signing_key_revoked("active"))
        said = await until_reported(feed_site, lambda said: "active" not in said.kids)
        assert (said.kids, set(said.proofs)) == (("standby",), {"standby"})
        assert (await api.http.post(PREDICT, json=api.example(), headers=headers)).status_code == 401


async def test_a_clean_stop_says_goodbye(feed_site, attributes, site, active, clock):
    """No rotation waits for a verifier that has left; one that is long silent is taken off by the others."""
    site.publish(active.jwk)
    old = verifiers.VerifierReport("old", 1.0, NOW - verifiers.KEEP_S - 1, (), {}, "following", 0.1, 1)
    quiet = msgspec.structs.replace(old, id="quiet", seen_at=NOW - 600.0)
    for one in (old, quiet):
        await verifiers.report(feed_site.client, feed_site.key, one)
    settings = replace(feed_site.settings, issuer=site.url)
    keys = RemoteKeys(site.url, file=settings.key_set_file, soft_max_age_s=300, max_stale_s=3600, clock=clock)
    await feed_site.feed.heartbeat()
    async with following(settings, attributes, active, keys, feed_site.revocations(), clock):
        async with asyncio.timeout(5):
            while await names(feed_site) != {NAME, "quiet"}:
                await asyncio.sleep(0.005)
    assert await names(feed_site) == {"quiet"}


async def names(feed_site: FeedSite) -> set[str]:
    return {said.id for said in await verifiers.read_reports(feed_site.client, feed_site.key)}


async def test_a_store_that_is_away_is_told_once(feed_site, attributes, site, active, clock, event_log, monkeypatch):
    """Reports go on when it is back; until then calls are answered from what is known."""
    monkeypatch.setattr(verifiers, "REPORT_EVERY_S", 0.01)
    monkeypatch.setattr("model_server.app.FIRST_WAIT_S", 0.3)
    site.publish(active.jwk)
    settings = replace(feed_site.without_store(), issuer=site.url)
    keys = RemoteKeys(site.url, file=settings.key_set_file, soft_max_age_s=300, max_stale_s=3600, clock=clock)
    async with following(settings, attributes, active, keys, feed_site.revocations(), clock):
        await until(lambda: event_log.named(Event.VERIFIER_REPORT_FAILED))
        await asyncio.sleep(0.1)
    assert len(event_log.named(Event.VERIFIER_REPORT_FAILED)) == 1


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.mark.slow
async def test_each_worker_process_proves_for_itself(site, rsa_key, tmp_path):
    """Two real workers: two stable names, both prove, both refuse a revoked token, both say goodbye at SIGTERM."""
    port = free_port()
    issuer = Issuer(rsa_key, "one", site.url)
    site.publish(issuer.jwk)
    resource = f"http://127.0.0.1:{port}"
    environ = {
        "FLEX_MODEL_PORT": str(port),
        "FLEX_ISSUER": site.url,
        "FLEX_RESOURCE": resource,
        "FLEX_VAR_DIR": str(tmp_path),
        "FLEX_MODELS_DIR": str(ROOT / "models"),
        "FLEX_WORKERS": "2",
    }
    settings = Settings(var_dir=tmp_path)
    expected = [verifier_id(port, slot) for slot in (1, 2)]
    now = int(time.time())
    usual = {"iat": now, "exp": now + 300}
    with EmbeddedStore(tmp_path):
        client, key = connect(settings), load_or_create_feed_key(settings.feed_key_file)
        feed = RevocationFeed(client, key, clock=time.time, max_token_life_s=3600, leeway_s=30)
        beating = asyncio.create_task(feed.keep_beating())
        await verifiers.publish_canaries(client, key, 1, {"one": canary(issuer, **usual)}, time.time())
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "model_server", cwd=ROOT, env={**os.environ, **environ}, stdout=subprocess.DEVNULL
        )
        try:
            async with asyncio.timeout(20):
                while True:
                    said = await verifiers.read_reports(client, key)
                    if [one.id for one in said] == expected and all("one" in one.proofs for one in said):
                        break
                    await asyncio.sleep(0.05)
            assert {one.feed_state for one in said} == {"following"}
            headers = issuer.authorization(aud=resource, scope="predict:grit", **usual)
            assert await answers(resource, headers) == {200}
            await feed.revoke(client_revoked("client-1", time.time()))
            await asyncio.sleep(0.1)
            assert await answers(resource, headers) == {401}
        finally:
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
        assert await verifiers.read_reports(client, key) == ()
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
        await client.aclose()


async def answers(resource: str, headers: dict[str, str]) -> set[int]:
    """Statuses of 30 calls over connections of their own, so that both workers get some."""
    found = set()
    for _ in range(30):
        async with httpx.AsyncClient(base_url=resource) as http:
            found.add((await http.get("/v1/attributes", headers=headers)).status_code)
    return found
