"""``POST /oauth2/introspect`` (RFC 7662): the claims of a token that is good now, and nothing about any other."""

import asyncio
import contextlib

from shared.revocations.entries import client_revoked, signing_key_revoked
from shared.store import connect
from tests.auth_server.test_revoke import INTROSPECT, active, issued, send
from tests.auth_server.test_token_refusals import assert_refused
from tests.tokens import Issuer


async def test_any_client_learns_what_an_active_token_says(server, clock):
    """Also a client whose token it is not."""
    made, stranger = await server.register(), await server.register()
    token = await issued(server, made, scope="predict:grit")
    answer = await send(server, stranger, token, INTROSPECT)
    body = answer.json()
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    assert len(body.pop("jti")) == 32
    assert body == {
        "active": True,
        "scope": "predict:grit",
        "client_id": made.client.client_id,
        "sub": made.client.client_id,
        "aud": "http://127.0.0.1:8000",
        "iss": "http://127.0.0.1:9000",
        "iat": int(clock()),
        "exp": int(clock()) + 900,
        "token_type": "Bearer",
    }


async def test_a_token_for_several_has_them_all(server):
    """``aud`` as a list."""
    admin = await server.register("admin")
    seen = (await send(server, admin, await issued(server, admin), INTROSPECT)).json()
    assert seen["aud"] == ["http://127.0.0.1:8000", "http://127.0.0.1:9000"]


async def test_whatever_is_not_good_is_not_active_and_that_is_all(server, clock, rsa_key):
    """Garbage, damaged, foreign, forged under our kid, expired to the second: one answer."""
    made = await server.register()
    token = await issued(server, made)
    head, payload, signature = token.split(".")
    kid = (await server.http.get("/.well-known/jwks.json")).json()["keys"][0]["kid"]
    forged = [Issuer(rsa_key).token().decode(), Issuer(rsa_key, kid=kid).token().decode()]
    for bad in ("x", "a.b.c", f"{head}.{payload}.{signature[::-1]}", "x" * 9000, *forged):
        answer = await send(server, made, bad, INTROSPECT)
        assert (answer.status_code, answer.json()) == (200, {"active": False})
    clock.advance(899)
    await until_beaten(server, made)
    assert await active(server, made, token)
    clock.advance(1)
    assert not await active(server, made, token)


async def test_a_client_watermark_ends_what_was_issued_and_not_what_comes_after_in_the_same_second(
    server, settings, clock
):
    """The millisecond in the token id tells them apart."""
    made = await server.register()
    clock.now += 0.100
    before = await issued(server, made)
    clock.now += 0.001
    await write(settings, clock, client_revoked(made.client.client_id, clock()))
    clock.now += 0.001
    after = await issued(server, made)
    await until_inactive(server, made, before)
    assert await active(server, made, after)


async def test_a_revoked_signing_key_ends_its_tokens(server, settings, clock):
    """Although the key set still has the key."""
    made = await server.register()
    token = await issued(server, made)
    for key in (await server.http.get("/.well-known/jwks.json")).json()["keys"]:
        await write(settings, clock, signing_key_revoked(key["kid"]))
    await until_inactive(server, made, token)


async def test_what_can_not_be_known_is_not_guessed(server, clock):
    """503 a minute after the feed fell silent; what is certainly revoked or bad stays not active."""
    made = await server.register()
    token, revoked = await issued(server, made), await issued(server, made)
    assert (await send(server, made, revoked)).status_code == 200
    assert await active(server, made, token)
    async with silenced_feed(server.settings):
        clock.advance(61)
        refused = await send(server, made, token, INTROSPECT)
        assert_refused(refused, 503, "temporarily_unavailable")
        assert refused.headers["retry-after"] == "1"
        for bad in (revoked, "x"):
            assert (await send(server, made, bad, INTROSPECT)).json() == {"active": False}
        assert_refused(await send(server, made, token), 503, "temporarily_unavailable")
    await until_beaten(server, made)
    assert await active(server, made, token)


@contextlib.asynccontextmanager
async def silenced_feed(settings):
    """Harm the feed's head, so that no writer says anything and no follower believes anything; mend it afterwards."""
    from shared.revocations.head import HEAD_KEY

    store = connect(settings)
    head = await store.set(HEAD_KEY, b"harmed", get=True)
    await asyncio.sleep(0)
    yield
    await store.set(HEAD_KEY, head)
    await store.aclose()


async def write(settings, clock, revocation):
    """Revoke as another process does."""
    from shared.revocations.feed_key import load_or_create_feed_key
    from shared.revocations.writer import RevocationFeed

    store = connect(settings)
    key = load_or_create_feed_key(settings.feed_key_file)
    await RevocationFeed(store, key, clock=clock, max_token_life_s=3600, leeway_s=30).revoke(revocation)
    await store.aclose()


async def until_beaten(server, made):
    """Wait until the server has heard a heartbeat of the time that it is now."""
    async with asyncio.timeout(5):
        token = await issued(server, made)
        while (await send(server, made, token, INTROSPECT)).status_code != 200:
            await asyncio.sleep(0.01)


async def until_inactive(server, made, token):
    """Wait until a revocation by another process has come."""
    async with asyncio.timeout(10):
        while await active(server, made, token):
            await asyncio.sleep(0.001)
