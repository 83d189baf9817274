"""The signer of a running server: real tokens, and every change of the ring taken over."""

import asyncio
import base64
import contextlib
import dataclasses
import json

import pytest

from auth_server.keyring import changes as keyring_changes
from auth_server.keyring.changes import RingChanges
from auth_server.keyring.ring import KeyState
from auth_server.keyring.signer import Signer
from shared.access_token import verify_access_token
from shared.errors import AppError
from shared.events import Event
from shared.key_sets import StaticKeySet, parse_key_set

ISSUER = "http://issuer.test"


@pytest.fixture
def signer(folder, policy, clock) -> Signer:
    return Signer.open(folder, policy, issuer=ISSUER, clock=clock)


def claims(now: float, ttl_s: int = 900) -> dict[str, object]:
    return {
        "iss": ISSUER,
        "sub": "svc",
        "aud": "http://models.test",
        "client_id": "svc",
        "iat": int(now),
        "exp": int(now) + ttl_s,
        "jti": "abc",
        "scope": "predict:grit",
    }


def header(token: str) -> dict[str, str]:
    return json.loads(base64.urlsafe_b64decode(token.split(".", maxsplit=1)[0] + "=="))


def verified(token: str, keys, now: float) -> str:
    return verify_access_token(token, keys, issuer=ISSUER, audience="http://models.test", now=now).key.kid


def test_token_verifies_with_the_published_keys(signer, clock):
    """A verifier that has only the JWKS accepts it; so does the auth server itself."""
    token = signer.sign(claims(clock.now))
    assert header(token) == {"alg": "RS256", "typ": "at+jwt", "kid": signer.ring.active.kid}
    remote = StaticKeySet(parse_key_set(signer.jwks().body, ISSUER))
    assert verified(token, remote, clock.now) == verified(token, signer, clock.now) == signer.ring.active.kid


def test_header_bytes_never_change(signer, clock):
    """Verifiers remember header texts; one key has one."""
    heads = {signer.sign(claims(clock.now) | {"jti": str(number)}).split(".")[0] for number in range(3)}
    assert len(heads) == 1


def test_jwks_shows_public_members_only(signer):
    """Exactly kty, n, e, kid, use and alg; standby and retired keys too; oldest first."""
    keys = json.loads(signer.jwks().body)["keys"]
    assert [key["kid"] for key in keys] == [key.kid for key in signer.ring.keys]
    assert all(set(key) == {"kty", "n", "e", "kid", "use", "alg"} for key in keys)
    assert {(key["kty"], key["use"], key["alg"]) for key in keys} == {("RSA", "sig", "RS256")}


def test_etag_changes_with_the_published_keys_only(signer, changes, clock):
    """A reservation leaves it; a new standby key changes it. It is strong and quoted."""
    before = signer.jwks()
    assert before.etag.startswith('"')
    assert before.etag.endswith('"')
    signer.refresh(clock.now + 5000)
    assert signer.jwks() == before
    changes.prepare()
    signer.refresh()
    assert signer.jwks().etag != before.etag
    assert signer.jwks().generation == before.generation + 1


def test_unknown_kid_gives_no_key(signer):
    """The KeySet's answer for a key that is not there."""
    assert signer.get("nope") is None


def test_next_signature_after_a_rotation_uses_the_new_key(signer, changes, clock):
    """Not at the next poll: at the next signature. The old key is still published."""
    old = signer.ring.active.kid
    token = signer.sign(claims(clock.now))
    clock.advance(400)
    changes.rotate(seen_active=old, reports=())
    assert signer.sign_if_ready(claims(clock.now)) is None
    assert header(signer.sign(claims(clock.now)))["kid"] == changes.folder.read()[0].active.kid != old
    assert verified(token, signer, clock.now) == old


def test_emergency_drops_the_key_from_the_set(signer, changes, clock):
    """Tokens of the compromised key are refused by whoever has the new set."""
    old = signer.ring.active.kid
    changes.rotate_in_emergency(seen_active=old)
    assert header(signer.sign(claims(clock.now)))["kid"] != old
    assert signer.get(old) is None
    assert old.encode() not in signer.jwks().body


def test_nothing_is_signed_beyond_the_durable_mark(signer, folder, clock):
    """The mark on disk is raised first, then the token is signed."""
    mark = folder.read()[0].active.last_expiry_at
    clock.now = mark - 10
    assert signer.sign_if_ready(claims(clock.now)) is None
    signer.sign(claims(clock.now))
    assert folder.read()[0].active.last_expiry_at >= clock.now + 900 + 120


def test_many_tokens_cost_one_write(signer, folder, clock):
    """The reservation is made ahead, not per token."""
    signer.sign(claims(clock.now))
    before = folder.read()[1]
    for _ in range(60):
        clock.advance(1)
        assert signer.sign_if_ready(claims(clock.now)) is not None
    assert folder.read()[1] == before


def test_clients_with_longer_lives_cost_one_write_for_many_tokens_too(folder, policy, clock):
    """Their tokens raise the mark as far ahead as usual ones; others keep the key no longer than they need it."""
    policy = dataclasses.replace(policy, longer_ttl_s=3600)
    signer = Signer.open(folder, policy, issuer=ISSUER, clock=clock)
    assert folder.read()[0].active.last_expiry_at <= clock.now + 900 + 120
    signer.sign(claims(clock.now, ttl_s=3600))
    before = folder.read()[1]
    for _ in range(60):
        clock.advance(1)
        assert signer.sign_if_ready(claims(clock.now, ttl_s=3600)) is not None
    assert folder.read()[1] == before


def test_expiry_beyond_the_longest_life_is_a_bug(signer, clock):
    """Milliseconds instead of seconds must not reserve a thousand years."""
    with pytest.raises(ValueError, match="longest life"):
        signer.sign(claims(clock.now, ttl_s=3600))
    with pytest.raises(TypeError):
        signer.sign(claims(clock.now) | {"exp": "soon"})


def test_late_server_reserves_nothing_for_a_retired_key(signer, changes, folder, clock):
    """It finds that another key signs, and takes that one."""
    old = signer.ring.active
    clock.advance(400)
    changes.rotate(seen_active=old.kid, reports=())
    keyring_changes.reserve(folder, old.kid, clock.now + 9999)
    assert folder.read()[0].find(old.kid).last_expiry_at == old.last_expiry_at
    signer.refresh(clock.now + 900)
    assert signer.ring.active.kid != old.kid


def test_removed_key_signed_nothing_that_lives(signer, changes, clock):
    """End to end: sign as late as possible, retire, remove as early as allowed; the token is over by then."""
    old = signer.ring.active.kid
    clock.now = signer.ring.active.last_expiry_at - 900
    token = signer.sign_if_ready(claims(clock.now))
    changes.activate(reports=None, force=True)
    clock.now = changes.folder.read()[0].find(old).last_expiry_at + 30
    assert changes.sweep().moved_to(KeyState.REMOVED) == ()
    clock.advance(1)
    assert [key.kid for key in changes.sweep().moved_to(KeyState.REMOVED)] == [old]
    keys = StaticKeySet(parse_key_set(signer.jwks().body, ISSUER))  # a verifier that still has the old set
    with pytest.raises(Exception, match="expired"):
        verified(token, keys, clock.now)


def test_lost_folder_stops_signing_at_once_and_keeps_the_key_set(signer, folder, clock, tmp_path):
    """Nobody can know whether the key was revoked: 503, never a token; what is published stays."""
    before = signer.jwks()
    folder.path.rename(tmp_path / "away")
    with pytest.raises(AppError) as refused:
        signer.sign(claims(clock.now))
    assert refused.value.code == "keys_unavailable"
    assert signer.jwks() is before
    (tmp_path / "away").rename(folder.path)
    signer.sign(claims(clock.now))


def test_held_lock_is_unavailability_for_a_server(folder, policy, clock):
    """A conflict is the operator's word; a caller of the token endpoint hears 503."""
    signer = Signer.open(dataclasses.replace(folder, lock_timeout_s=0.05), policy, issuer=ISSUER, clock=clock)
    with folder.changing(), pytest.raises(AppError) as refused:
        signer.refresh(clock.now + 5000)
    assert refused.value.code == "keys_unavailable"
    assert "lock" in refused.value.reason


def test_open_is_strict(folder, policy, clock):
    """A key file that others can read keeps the server from starting."""
    pem = folder.path / f"{folder.read()[0].next_standby.kid}.pem"
    pem.chmod(0o644)
    with pytest.raises(AppError) as refused:
        Signer.open(folder, policy, issuer=ISSUER, clock=clock)
    assert "mode 0644" in refused.value.reason


def test_activation_of_a_key_that_can_not_be_loaded_is_refused(changes, folder, clock):
    """A rotation never leads to a ring that no server can sign with."""
    ring, _ = folder.read()
    (folder.path / f"{ring.next_standby.kid}.pem").write_bytes(b"rubbish")
    clock.advance(400)
    for act, more in ((changes.rotate, {"reports": ()}), (changes.rotate_in_emergency, {})):
        with pytest.raises(AppError, match="keys_unavailable"):
            act(seen_active=ring.active.kid, **more)
    assert folder.read()[0] == ring


def test_ready_while_a_full_token_may_be_signed(signer, clock):
    """An exhausted reservation shows in readiness until it is raised."""
    assert signer.signing_ready
    clock.advance(121)
    assert not signer.signing_ready
    signer.refresh(clock.now + 900)
    assert signer.signing_ready


@contextlib.asynccontextmanager
async def watching(signer: Signer):
    task = asyncio.create_task(signer.watch(poll_s=0.005))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(condition) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.002)


async def test_watch_publishes_a_new_standby_key_and_holds_its_private_key(signer, changes, event_log):
    """Without any signature: the key set follows the folder by itself."""
    async with watching(signer):
        await until(lambda: event_log.named(Event.KEY_RING_LOADED))
        made = (await asyncio.to_thread(changes.prepare)).moved_to(KeyState.STANDBY)[0].kid
        await until(lambda: signer.get(made))
        await until(lambda: made in signer._private)
        await until(lambda: len(event_log.named(Event.KEY_RING_LOADED)) == 2)


async def test_watch_reserves_ahead_of_need(signer, clock):
    """At half of the reserve, so no token ever waits for the disk."""
    async with watching(signer):
        clock.advance(61)
        await until(lambda: signer.ring.active.last_expiry_at >= clock.now + 900 + 120)
    assert signer.sign_if_ready(claims(clock.now)) is not None


async def test_watch_forgets_private_keys_that_sign_no_more(signer, changes, clock):
    """A retired key's private half leaves the memory of the server."""
    old = signer.ring.active.kid
    async with watching(signer):
        clock.advance(400)
        await asyncio.to_thread(lambda: changes.rotate(seen_active=old, reports=()))
        await until(lambda: old not in signer._private)
    assert signer.get(old) is not None


async def test_watch_tells_a_problem_once_and_recovers(signer, folder, event_log):
    """Not twice a second for as long as it lasts."""
    async with watching(signer):
        await until(lambda: signer._told)
        folder.path.chmod(0o755)
        folder.manifest_path.touch()
        await until(lambda: not signer.signing_ready)
        await asyncio.sleep(0.03)
        folder.path.chmod(0o700)
        await until(lambda: signer.signing_ready)
    (problem,) = event_log.named(Event.KEY_RING_PROBLEM)
    assert "mode 0755" in problem["reason"]


async def test_two_servers_follow_one_rotation(folder, policy, clock, changes):
    """Both publish and both sign with the new key."""
    signers = [Signer.open(folder, policy, issuer=ISSUER, clock=clock) for _ in range(2)]
    async with watching(signers[0]), watching(signers[1]):
        clock.advance(400)
        change = await asyncio.to_thread(
            lambda: changes.rotate(seen_active=changes.folder.read()[0].active.kid, reports=())
        )
        await until(lambda: {signer.ring.generation for signer in signers} == {change.after.generation})
        assert {header(signer.sign(claims(clock.now)))["kid"] for signer in signers} == {change.after.active.kid}
        assert len({signer.jwks().etag for signer in signers}) == 1


def test_no_secret_shows_in_events_or_reprs(signer, changes, clock, event_log):
    """Neither PEM nor private numbers appear anywhere an operator looks."""
    clock.advance(400)
    changes.rotate(seen_active=signer.ring.active.kid, reports=())
    secret = str(signer._held.private.private_numbers().d)
    shown = event_log.text + repr(signer) + repr(changes) + repr(signer.ring)
    assert "PRIVATE" not in shown
    assert secret not in shown


def test_changes_name_their_events(changes, clock, event_log):
    """One event for each key that changed its state, with kid and generation; a refusal says what is missing."""
    seen = changes.folder.read()[0].active.kid
    with pytest.raises(AppError):
        changes.rotate(seen_active=seen, reports=())
    clock.advance(400)
    changes.rotate(seen_active=seen, reports=())
    changes.revoke(changes.folder.read()[0].active.kid)
    names = [line["event"] for line in event_log.lines]
    assert names == [
        "key_rotation_refused",
        "key_prepared", "key_activated", "key_retired",
        "key_prepared", "key_activated", "key_revoked",
    ]  # fmt: skip
    assert "verifiers may hold a key set without it" in event_log.lines[0]["reason"]


def test_emergency_also_drops_a_key_that_a_planned_rotation_just_retired(changes, clock):
    """The operator distrusts that key, active or not; a second emergency then finds nothing to do."""
    seen = changes.folder.read()[0].active.kid
    clock.advance(400)
    heir = changes.rotate(seen_active=seen, reports=()).after.active.kid
    dropped = changes.rotate_in_emergency(seen_active=seen)
    assert dropped.after.find(seen).compromised
    assert dropped.after.active.kid == heir
    assert changes.rotate_in_emergency(seen_active=seen).overtaken


def test_ring_changes_takes_larger_keys(folder, policy, clock):
    """3072 bits where an operator asks for them."""
    made = RingChanges(folder, policy, clock, n_bits=3072).prepare().moved_to(KeyState.STANDBY)
    assert [key.n_bits for key in made] == [3072]
