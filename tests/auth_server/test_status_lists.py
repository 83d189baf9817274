"""Status lists end to end: real tokens, real feed, and a verifier of another maker."""

import math

import jwt
import pytest

from auth_server.endpoints import status_lists
from auth_server.endpoints.token_signing import TokenSigning
from auth_server.keyring.changes import RingChanges
from auth_server.keyring.folder import KeysFolder
from auth_server.keyring.policy import ring_policy
from shared.access_token import StaticKeySet, verify_access_token
from shared.events import Event
from shared.key_sets import parse_key_set
from shared.revocations.entries import client_revoked, signing_key_revoked, subject_revoked, token_revoked
from shared.store import connect
from tests.auth_server.other_verifiers import beside, bit, path, payload
from tests.auth_server.serving import serving

LISTS = "/oauth2/status-lists"


@pytest.fixture
async def site(server, clock):
    """A server with a feed beside it."""
    async with beside(server, clock) as one:
        yield one


def list_path(raw_token) -> str:
    return path(payload(raw_token)["status"]["status_list"]["uri"])


async def test_only_who_asked_for_it_gets_a_status_and_costs_a_row(server, clock):
    """Ordinary tokens say nothing of it; those of the client that opted in still verify as any token does."""
    store = connect(server.settings)
    ordinary, listed = await server.register(), await server.register(status_list=True)
    before = await store.keys("flex:{status}:*")
    said = payload((await server.token(ordinary)).json()["access_token"])
    assert ("status" in said, await store.keys("flex:{status}:*")) == (False, before)
    raw_token = (await server.token(listed)).json()["access_token"]
    entry = payload(raw_token)["status"]["status_list"]
    assert entry["uri"].startswith(f"{server.settings.issuer}{LISTS}/")
    assert set(entry) == {"idx", "uri"}
    keys = StaticKeySet(parse_key_set((await server.http.get("/.well-known/jwks.json")).content, said["iss"]))
    token = verify_access_token(raw_token, keys, issuer=said["iss"], audience=said["aud"], now=clock())
    assert token.client_id == listed.client.client_id
    await store.aclose()


async def test_a_revoked_token_shows_and_its_sister_does_not(site):
    """By jti: one bit, as soon as the list is made again."""
    made = await site.server.register(status_list=True)
    revoked, kept = await site.issue(made), await site.issue(made)
    assert [await site.status(each) for each in (revoked, kept)] == [0, 0]
    await site.revoke(token_revoked(payload(revoked)["jti"], payload(revoked)["exp"]))
    assert [await site.status(each) for each in (revoked, kept)] == [1, 0]


@pytest.mark.parametrize("maker", [client_revoked, subject_revoked])
async def test_a_watermark_shows_in_every_earlier_token(site, clock, maker):
    """Of that client or subject; not in later ones, nor in those of others."""
    made, other = await site.server.register(status_list=True), await site.server.register(status_list=True)
    early = [await site.issue(made) for _ in range(3)]
    foreign = await site.issue(other)
    await site.later(2)
    await site.revoke(maker(made.client.client_id, clock()))
    late = await site.issue(made)
    await site.later(2)
    assert [await site.status(each) for each in early] == [1, 1, 1]
    assert [await site.status(each) for each in (late, foreign)] == [0, 0]


async def test_a_revoked_signing_key_shows_in_all_its_tokens(site):
    """Whoever they belong to."""
    tokens = [await site.issue(await site.server.register(status_list=True)) for _ in range(2)]
    await site.revoke(signing_key_revoked(site.signer.ring.active.kid))
    assert [await site.status(each) for each in tokens] == [1, 1]


async def test_an_index_beyond_the_list_is_no_status(site):
    """All lists have 65,536 entries, however many tokens there are, so a verifier can tell and refuses."""
    raw_token = await site.issue(await site.server.register(status_list=True))
    claims = await site.verified((await site.http.get(list_path(raw_token))).text, "statuslist+jwt")
    assert bit(claims, 65535) == 0
    with pytest.raises(LookupError):
        bit(claims, 65536)


async def test_a_list_says_how_long_it_may_be_used(site, clock):
    """``ttl`` and the cache agree; ``exp`` is later; the aggregation is named."""
    raw_token = await site.issue(await site.server.register(status_list=True))
    answer = await site.http.get(list_path(raw_token))
    claims = await site.verified(answer.text, "statuslist+jwt")
    assert answer.headers["cache-control"] == f"public, max-age={claims['ttl']}"
    assert (claims["iat"], claims["ttl"], claims["exp"]) == (clock(), 30, clock() + 300)
    assert path(claims["status_list"]["aggregation_uri"]) == LISTS


async def test_who_holds_the_list_gets_304_until_it_says_something_else(site):
    """A strong tag of the very bytes; a list that says the same is signed again in time, well before its end."""
    made = await site.server.register(status_list=True)
    raw_token = await site.issue(made)
    first = await site.http.get(list_path(raw_token))
    held = {"if-none-match": first.headers["etag"]}
    await site.issue(made)  # one more token changes nothing that verifiers see
    await site.later(2)
    same = await site.http.get(list_path(raw_token), headers=held)
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", first.headers["etag"])
    await site.revoke(token_revoked(payload(raw_token)["jti"], payload(raw_token)["exp"]))
    changed = await site.http.get(list_path(raw_token), headers=held)
    assert changed.status_code == 200
    assert changed.headers["etag"] != first.headers["etag"]
    for _ in range(4):
        await site.later(40)
    again = await site.http.get(list_path(raw_token), headers={"if-none-match": changed.headers["etag"]})
    assert again.status_code == 200
    assert payload(again.text)["status_list"] == payload(changed.text)["status_list"]
    head = await site.http.head(list_path(raw_token))
    assert (head.content, head.headers["etag"]) == (b"", again.headers["etag"])


async def test_knowledge_that_is_too_old_is_never_stated(site, clock):
    """503 with Retry-After beyond a minute, also to who asks whether its list is still the same; good again after."""
    raw_token = await site.issue(await site.server.register(status_list=True))
    held = {"if-none-match": (await site.http.get(list_path(raw_token))).headers["etag"]}
    clock.advance(60)
    assert (await site.http.get(list_path(raw_token))).status_code == 200
    clock.advance(1)
    for headers in ({}, held):
        refused = await site.http.get(list_path(raw_token), headers=headers)
        assert (refused.status_code, refused.json()["type"]) == (503, "urn:flex:error:store_unavailable")
        assert refused.headers["retry-after"] == "1"
        assert refused.headers["cache-control"] == "no-store"
    await site.later(0)
    assert (await site.http.get(list_path(raw_token))).status_code == 200


@pytest.mark.parametrize("limit_s", [0, 10])
async def test_the_operators_bound_can_only_be_tighter(server, clock, limit_s):
    """0 asks for no feed where tokens are verified; what is stated still needs one."""
    age = [0.0]
    async with beside(server, clock, staleness=lambda: age[0], limit_s=limit_s) as site:
        raw_token = await site.issue(await server.register(status_list=True))
        for age_s, status in ((limit_s or 60, 200), ((limit_s or 60) + 1, 503), (math.inf, 503), (math.nan, 503)):
            age[0] = age_s
            assert (await site.http.get(list_path(raw_token))).status_code == status


async def test_what_is_no_list_is_not_found(site):
    """Unknown, malformed, at another time; another method is refused."""
    raw_token = await site.issue(await site.server.register(status_list=True))
    there = list_path(raw_token)
    wrong = [f"{LISTS}/{'0' * 16}", f"{LISTS}/x", f"{there}0", f"{there}/", f"{LISTS}/{'A' * 16}", f"{there}?time=1"]
    for address in wrong:
        assert (await site.http.get(address)).status_code == 404, address
    refused = await site.http.post(there)
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")


async def test_the_aggregation_names_every_list(site, server):
    """The address is in the metadata."""
    metadata = (await server.http.get("/.well-known/oauth-authorization-server")).json()
    aggregation = path(metadata["status_list_aggregation_endpoint"])
    assert (await site.http.get(aggregation)).json() == {"status_lists": []}
    raw_token = await site.issue(await server.register(status_list=True))
    named = (await site.http.get(aggregation)).json()["status_lists"]
    assert named == [payload(raw_token)["status"]["status_list"]["uri"]]
    assert (await server.http.get(aggregation)).json()["status_lists"] == named
    assert (await server.http.get(path(named[0]))).status_code in {200, 503}  # it is there; 503 without a feed


async def test_a_list_is_signed_again_when_the_key_changes(site, server, clock):
    """A verifier that dropped the old key can go on; the old tokens are still judged by their own key."""
    raw_token = await site.issue(await server.register(status_list=True))
    first = await site.http.get(list_path(raw_token))
    old = site.signer.ring.active.kid
    RingChanges(KeysFolder(server.settings.keys_dir), ring_policy(server.settings), clock).rotate_in_emergency(
        seen_active=old
    )
    site.signer.refresh()
    await site.later(2)
    second = await site.http.get(list_path(raw_token))
    kids = [jwt.get_unverified_header(each.text)["kid"] for each in (first, second)]
    assert kids == [old, site.signer.ring.active.kid]
    assert second.headers["etag"] != first.headers["etag"]
    assert payload(second.text)["status_list"] == payload(first.text)["status_list"]
    await site.revoke(signing_key_revoked(old))
    assert await site.status(raw_token) == 1


async def test_a_key_that_changes_during_the_signature_gives_the_token_a_new_place(site, server, clock):
    """What is kept of a token always names the key that signed it."""
    listed = (await server.register(status_list=True)).client
    from auth_server.keyring.signing_queue import SigningQueue
    from auth_server.oauth.claims import access_token_claims

    old = site.signer.ring.active.kid
    changes = RingChanges(KeysFolder(server.settings.keys_dir), ring_policy(server.settings), clock)
    lists = status_lists_of(site)
    signing = TokenSigning(SigningQueue(site.signer), site.signer, lists, clock=clock)
    unsigned = access_token_claims(
        listed, issuer=server.settings.issuer, aud="x", scopes=["predict:grit"], ttl_s=900, now=clock()
    )
    changes.rotate_in_emergency(seen_active=old)  # the signer has not looked yet
    raw_token = await signing.sign(unsigned)
    await site.revoke(signing_key_revoked(old))
    assert await site.status(raw_token) == 0
    await site.revoke(signing_key_revoked(site.signer.ring.active.kid))
    assert await site.status(raw_token) == 1


def status_lists_of(site):
    """Places on the site's store."""
    from auth_server.stores.status_lists import StatusLists
    from shared.revocations.feed_key import load_or_create_feed_key

    feed_key = load_or_create_feed_key(site.server.settings.feed_key_file)
    return StatusLists(site.store, feed_key, max_token_life_s=3600, leeway_s=30)


async def test_a_record_that_we_did_not_write_makes_its_list_unknown(site, event_log):
    """Nobody who can write to the store gives a revoked token a good name."""
    raw_token = await site.issue(await site.server.register(status_list=True))
    records = next(key for key in await site.store.keys("*") if b"records" in key)
    raw = await site.store.lindex(records, 0)
    await site.store.lset(records, 0, raw[:-1] + bytes([raw[-1] ^ 1]))
    refused = await site.http.get(list_path(raw_token))
    assert refused.status_code == 503
    assert event_log.named(Event.STATUS_LIST_PROBLEM)[0]["reason"] == "record_not_authentic"
    await site.store.lset(records, 0, raw)
    assert (await site.http.get(list_path(raw_token))).status_code == 200


async def test_records_that_the_store_lost_are_not_forgotten(site, event_log):
    """A process that read them judges them as before, and reads all that is there instead."""
    made = await site.server.register(status_list=True)
    lost, gone = await site.issue(made), await site.issue(made)
    assert await site.status(lost) == 0
    records = next(key for key in await site.store.keys("*") if b"records" in key)
    await site.store.lpop(records, 2)
    new = await site.issue(made)
    for each in (lost, new):
        await site.revoke(token_revoked(payload(each)["jti"], payload(each)["exp"]))
    assert [await site.status(each) for each in (lost, gone, new)] == [1, 0, 1]
    assert [line["reason"] for line in event_log.named(Event.STATUS_LIST_PROBLEM)] == ["records_lost"]


async def test_a_list_of_many_pages_is_read_whole_and_read_on(site):
    """1,200 places are three pages; later ones come on top."""
    made = await site.server.register(status_list=True)
    first = await site.issue(made)
    lists = status_lists_of(site)
    marks = await marks_of(site, first)
    for _ in range(1200):
        await lists.add(marks, payload(first)["exp"], payload(first)["iat"])
    last = await site.issue(made)
    assert list_path(first) == list_path(last)
    await site.revoke(token_revoked(payload(last)["jti"], payload(last)["exp"]))
    assert [await site.status(each) for each in (first, last)] == [0, 1]
    later = await site.issue(made)
    await site.revoke(token_revoked(payload(later)["jti"], payload(later)["exp"]))
    assert [await site.status(each) for each in (first, last, later)] == [0, 1, 1]


async def marks_of(site, raw_token):
    """The marks of a token, as our own verifier works them out."""
    from shared.revocations.entries import marks

    said = payload(raw_token)
    return marks(verify_access_token(raw_token, site.signer, issuer=said["iss"], audience=said["aud"], now=said["iat"]))


async def test_only_so_many_lists_are_held(site, monkeypatch):
    """One that was let go is read again when it is asked for; one that is over is gone."""
    monkeypatch.setattr(status_lists, "MAX_HELD", 1)
    made = await site.server.register(status_list=True, token_ttl_s=3600)
    first = await site.issue(made)
    await site.later(3600)
    second = await site.issue(made)
    await site.revoke(token_revoked(payload(second)["jti"], payload(second)["exp"]))
    assert list_path(first) != list_path(second)
    assert [await site.status(each) for each in (second, first, second)] == [1, 0, 1]
    await site.later(3634)
    assert [(await site.http.get(list_path(each))).status_code for each in (first, second)] == [404, 200]


async def test_without_the_store_who_wants_a_status_gets_no_token(own_store, clock):
    """The ordinary client's token is issued from memory meanwhile."""
    embedded, reached = own_store
    async with serving(reached, clock) as server:
        listed, ordinary = await server.register(status_list=True), await server.register()
        assert [(await server.token(each)).status_code for each in (listed, ordinary)] == [200, 200]
        embedded.release()
        refused = await server.token(listed)
        assert (refused.status_code, refused.json()["error"]) == (503, "temporarily_unavailable")
        assert refused.headers["retry-after"] == "1"
        assert (await server.token(ordinary)).status_code == 200


async def test_the_longest_token_with_a_status_is_still_taken(server, clock):
    """Four audiences of the longest form, 1,200 characters of scope, and the claim: within 4 KiB."""
    resources = tuple(f"https://{letter}.example/".ljust(200, letter) for letter in "abcd")
    scope = " ".join(f"predict:{'a' * 50}{n:02}" for n in range(19))
    made = await server.register(scope, resources=resources, status_list=True)
    answer = await server.token(made, resource=list(resources))
    raw_token = answer.json()["access_token"]
    keys = StaticKeySet(
        parse_key_set((await server.http.get("/.well-known/jwks.json")).content, server.settings.issuer)
    )
    assert len(raw_token) < 4096
    verify_access_token(raw_token, keys, issuer=server.settings.issuer, audience=resources[0], now=clock())
