"""All revocations in one signed document, for who may read them."""

import base64
import hashlib

import pytest

from shared.revocations.entries import (
    api_key_revoked,
    client_revoked,
    grant_revoked,
    signing_key_revoked,
    subject_revoked,
    token_revoked,
)
from tests.auth_server.other_verifiers import beside, payload

SNAPSHOT = "/oauth2/revocations"


@pytest.fixture
async def site(server, clock):
    """A server with a feed beside it."""
    async with beside(server, clock) as one:
        yield one


async def reader(site, scope="audit:read") -> dict[str, str]:
    """Headers of a client that may read, with a token for the issuer itself."""
    issuer = site.server.settings.issuer
    made = await site.server.register(scope, resources=(issuer,))
    return {"authorization": "Bearer " + await site.issue(made, resource=issuer)}


async def test_everything_that_is_revoked_is_there(site, clock):
    """Each kind under its name, signed, with the moment for which it is true."""
    now, now_ms = clock(), round(clock() * 1000)
    listed, foreign = "0" * 31 + "a", "an id of another maker"
    for revocation in (
        token_revoked(listed, now + 900),
        token_revoked(foreign, now + 900),
        client_revoked("svc-1", now),
        subject_revoked("user-1", now),
        grant_revoked("grant-1", now),
        api_key_revoked("key-1", now),
        signing_key_revoked("kid-1"),
    ):
        await site.revoke(revocation)
    answer = await site.http.get(SNAPSHOT, headers=await reader(site))
    assert answer.headers["content-type"] == "application/revocations+jwt"
    claims = await site.verified(answer.text, "revocations+jwt")
    assert (claims["iss"], claims["sub"]) == ("http://127.0.0.1:9000", "http://127.0.0.1:9000/oauth2/revocations")
    assert now < claims["as_of"] <= claims["iat"] == clock()
    assert claims["exp"] == clock() + 300
    live = claims["revocations"]
    ((until, keys),) = live.pop("tokens").items()
    assert now + 900 + 35 < int(until) <= now + 900 + 35 + 60
    expected = bytes.fromhex(listed) + hashlib.blake2b(foreign.encode(), digest_size=16).digest()
    assert base64.urlsafe_b64decode(keys + "==") == expected
    assert live == {
        "clients": {"svc-1": now_ms},
        "subjects": {"user-1": now_ms},
        "grants": {"grant-1": now_ms},
        "api_keys": {"key-1": now_ms},
        "signing_keys": ["kid-1"],
    }


async def test_nothing_revoked_is_a_document_too(site):
    """So that a verifier can tell it from a failure."""
    answer = await site.http.get(SNAPSHOT, headers=await reader(site, "tokens:revoke"))
    assert payload(answer.text)["revocations"]["tokens"] == {}


async def test_who_holds_it_gets_304_until_something_is_revoked(site, clock):
    """The tag follows the content; the document is renewed before it ends."""
    headers = await reader(site)
    first = await site.http.get(SNAPSHOT, headers=headers)
    assert first.headers["cache-control"] == "private, no-cache"
    held = headers | {"if-none-match": first.headers["etag"]}
    await site.later(5)
    assert (await site.http.get(SNAPSHOT, headers=held)).status_code == 304
    await site.revoke(client_revoked("svc-1", clock()))
    assert (await site.http.get(SNAPSHOT, headers=held)).status_code == 200
    await site.later(160)
    renewed = await site.http.get(SNAPSHOT, headers=headers)
    assert payload(renewed.text)["iat"] == clock()
    assert payload(renewed.text)["as_of"] > payload(first.text)["as_of"]


async def test_it_is_for_readers_with_the_scope_only(site):
    """No token 401, no scope 403, a token for another audience 401."""
    assert (await site.http.get(SNAPSHOT)).status_code == 401
    refused = await site.http.get(SNAPSHOT, headers=await reader(site, "usage:read"))
    assert (refused.status_code, refused.json()["type"]) == (403, "urn:flex:error:insufficient_scope")
    assert 'scope="audit:read"' in refused.headers["www-authenticate"]
    elsewhere = await site.server.register("audit:read", resources=("https://a.example",))
    raw_token = await site.issue(elsewhere, resource="https://a.example")
    assert (await site.http.get(SNAPSHOT, headers={"authorization": f"Bearer {raw_token}"})).status_code == 401
    assert (await site.http.get(SNAPSHOT, headers=await reader(site, "admin"))).status_code == 200


async def test_knowledge_that_is_too_old_is_never_stated(site, clock):
    """503, also to who only asks whether it has changed."""
    headers = await reader(site)
    etag = (await site.http.get(SNAPSHOT, headers=headers)).headers["etag"]
    clock.advance(61)
    for more in ({}, {"if-none-match": etag}):
        refused = await site.http.get(SNAPSHOT, headers=headers | more)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")


async def test_the_server_serves_it_to_nobody_without_a_token(server):
    """As it is wired, and another method is refused."""
    assert (await server.http.get(SNAPSHOT)).status_code == 401
    assert (await server.http.post(SNAPSHOT)).status_code == 405
