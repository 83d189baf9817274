"""The token endpoint: what it issues, to whom, and for which resource (RFC 6749, 8707, 9068)."""

import asyncio
from dataclasses import replace

from auth_server.records import ClientSecret
from auth_server.stores.client_secrets import load_pepper, new_secret
from shared.access_token import StaticKeySet, verify_access_token
from shared.key_sets import parse_key_set
from shared.store import connect
from shared.token_ids import issued_ms
from tests.auth_server.serving import FORM, TOKEN, basic, demo, serving

ISSUER = "http://127.0.0.1:9000"
RESOURCE = "http://127.0.0.1:8000"


async def verified(server, answer, clock, audience=RESOURCE):
    """Verify an issued token with the published keys, as the model server does."""
    body = (await server.http.get("/.well-known/jwks.json")).content
    keys = StaticKeySet(parse_key_set(body, ISSUER))
    raw_token = answer.json()["access_token"]
    return verify_access_token(raw_token, keys, issuer=ISSUER, audience=audience, now=clock())


async def test_a_client_gets_a_token_that_verifies(server, clock):
    """Every claim of RFC 9068 is there and says what was asked."""
    made = await server.register()
    answer = await server.token(made, scope="predict:grit")
    token = await verified(server, answer, clock)
    assert answer.status_code == 200
    assert (token.subject, token.client_id) == (made.client.client_id, made.client.client_id)
    assert (token.scopes, token.audiences) == (frozenset({"predict:grit"}), (RESOURCE,))
    assert (token.issued_at, token.expires_at) == (clock(), clock() + 900)


async def test_the_answer_has_the_form_of_the_rfc_and_may_not_be_kept(server):
    """RFC 6749 section 5.1: members, no-store and no-cache."""
    answer = await server.token(await server.register())
    body = answer.json()
    assert set(body) == {"access_token", "token_type", "expires_in", "scope"}
    assert (body["token_type"], body["expires_in"], body["scope"]) == ("Bearer", 900, "predict:grit explain:grit")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["pragma"] == "no-cache"
    assert answer.headers["content-type"] == "application/json"


async def test_the_secret_may_also_stand_in_the_body(server):
    """client_secret_post."""
    made = await server.register()
    form = {"grant_type": "client_credentials", "client_id": made.client.client_id}
    answer = await server.http.post(TOKEN, data={**form, "client_secret": made.secret.reveal()})
    assert answer.status_code == 200


async def test_credentials_in_the_header_are_form_encoded_inside(server):
    """RFC 6749 section 2.3.1: percent escapes are undone, for the id and the secret."""
    made = await server.register()
    escaped = "".join(f"%{byte:02x}" for byte in made.secret.reveal().encode())
    header = basic(made.client.client_id.replace("-", "%2D"), escaped)
    answer = await server.http.post(
        TOKEN, data={"grant_type": "client_credentials"}, headers={"authorization": header.replace("Basic", "bAsIc")}
    )
    assert answer.status_code == 200


async def test_no_two_tokens_have_the_same_id(server, clock):
    """Fifty clients at once each get their own."""
    made = await server.register()
    answers = await asyncio.gather(*(server.token(made) for _ in range(50)))
    assert {answer.status_code for answer in answers} == {200}
    ids = {(await verified(server, answer, clock)).token_id for answer in answers}
    assert len(ids) == 50


async def test_an_empty_scope_is_as_good_as_none(server):
    """RFC 6749 section 3.2: a parameter without a value counts as omitted."""
    answer = await server.token(await server.register(), scope="")
    assert answer.json()["scope"] == "predict:grit explain:grit"


async def test_a_wildcard_grant_covers_one_attribute_and_no_other_action(server):
    """Scope narrowing, and its refusals."""
    made = await server.register("predict:*")
    assert (await server.token(made, scope="predict:calm")).json()["scope"] == "predict:calm"
    for scope in ("explain:calm", "predict:calm explain:calm", "admin", "predict:CALM", "predict:calm  predict:grit"):
        refused = await server.token(made, scope=scope)
        assert (refused.status_code, refused.json()["error"]) == (400, "invalid_scope")


async def test_a_token_never_outgrows_what_verifiers_take(server):
    """Scope text beyond what fits into 4 KiB is refused instead of issued."""
    made = await server.register("predict:*")
    fits = " ".join(f"predict:{'a' * 50}{n:02}" for n in range(19))
    assert len((await server.token(made, scope=fits)).json()["access_token"]) < 4096
    refused = await server.token(made, scope=fits + " " + " ".join(f"predict:b{n}" for n in range(20)))
    assert refused.json()["error"] == "invalid_scope"


async def test_the_audience_is_the_resource_that_was_asked_for(server, clock):
    """RFC 8707: one, several, one twice; a bare origin with or without its slash."""
    made = await server.register(resources=("https://a.example", "https://b.example/api"))
    for asked, expected in (
        ([], ("https://a.example",)),
        (["https://b.example/api"], ("https://b.example/api",)),
        (["https://a.example/"], ("https://a.example",)),
        (["https://a.example", "https://b.example/api", "https://a.example"], made.client.resources),
    ):
        answer = await server.token(made, resource=asked)
        token = await verified(server, answer, clock, audience=expected[0])
        assert token.audiences == expected


async def test_management_scopes_are_for_the_issuer(server, clock):
    """Alone, beside attributes, all of them; and narrowed to attributes, the issuer is left out."""
    made = await server.register("predict:grit tokens:revoke keys:manage")
    admin = await server.register("admin")
    for client, scope, expected in (
        (made, "tokens:revoke keys:manage", (ISSUER,)),
        (made, "predict:grit tokens:revoke", (RESOURCE, ISSUER)),
        (made, "", (RESOURCE, ISSUER)),
        (made, "predict:grit", (RESOURCE,)),
        (admin, "", (RESOURCE, ISSUER)),
        (admin, "usage:read", (ISSUER,)),
    ):
        token = await verified(server, await server.token(client, scope=scope), clock, audience=expected[0])
        assert token.audiences == expected


async def test_the_issuer_may_be_asked_for_by_who_manages_something(server, clock):
    """``resource`` of the issuer, alone or beside another; refused to everybody else."""
    made, other = await server.register("tokens:revoke predict:grit"), await server.register()
    for asked, expected in (([ISSUER], (ISSUER,)), ([RESOURCE, ISSUER + "/"], (RESOURCE, ISSUER))):
        token = await verified(server, await server.token(made, resource=asked), clock, audience=expected[0])
        assert token.audiences == expected
    assert (await server.token(other, resource=[ISSUER])).json()["error"] == "invalid_target"


async def test_a_token_is_for_four_resources_at_most(server):
    """More would not fit into the 4 KiB that verifiers take."""
    resources = tuple(f"https://{letter}.example" for letter in "abcd")
    made = await server.register("tokens:revoke predict:grit", resources=resources)
    assert (await server.token(made, resource=resources)).status_code == 200
    assert (await server.token(made, resource=[*resources, ISSUER])).json()["error"] == "invalid_target"


async def test_the_id_says_the_millisecond_of_issue(server, clock):
    """``iat`` in whole seconds, the rest in a UUIDv7."""
    made = await server.register()
    clock.now = 1_800_000_000.4567
    token = await verified(server, await server.token(made), clock)
    assert (token.issued_at, issued_ms(token.token_id)) == (1_800_000_000, 1_800_000_000_457)


async def test_another_resource_is_an_invalid_target(server):
    """Unknown, relative, with a fragment, the client's own id: none becomes an audience."""
    made = await server.register()
    wrong = [f"{RESOURCE}#x", "https://evil.example", "/relative", made.client.client_id, f"{RESOURCE}/v1/"]
    for resource in wrong:
        refused = await server.token(made, resource=[RESOURCE, resource])
        assert (refused.status_code, refused.json()["error"]) == (400, "invalid_target")


async def test_a_client_may_have_its_own_token_life(server, clock):
    """``expires_in`` and ``exp`` agree, and it may be longer than the installation's."""
    answer = await server.token(await server.register(token_ttl_s=3600))
    assert answer.json()["expires_in"] == 3600
    assert (await verified(server, answer, clock)).expires_at == clock() + 3600


async def test_two_secrets_live_while_one_replaces_the_other(server, clock):
    """Rotation without downtime: both work during the overlap, the old one not a second longer."""
    made = await server.register()
    await server.token(made)  # held in memory from now on
    renewed = replace(made, secret=new_secret())
    await rotate(server, renewed, clock, overlap_s=60)
    assert [(await server.token(each)).status_code for each in (made, renewed)] == [200, 200]
    clock.advance(60)
    assert [(await server.token(each)).status_code for each in (made, renewed)] == [401, 200]


async def test_a_rotation_without_overlap_ends_the_old_secrets_at_once(server, clock):
    """What to do when a secret leaked: also a second one that still overlaps ends."""
    first = await server.register()
    second, third = replace(first, secret=new_secret()), replace(first, secret=new_secret())
    await rotate(server, second, clock, overlap_s=60)
    await rotate(server, third, clock, overlap_s=0)
    await eventually_held_by_nobody(server, first)
    assert [(await server.token(each)).status_code for each in (first, second, third)] == [401, 401, 200]


async def test_a_disabled_client_gets_nothing_until_it_is_enabled(server, clock):
    """In the worker that held it in memory, within milliseconds."""
    made = await server.register()
    assert (await server.token(made)).status_code == 200
    await server.clients.disable(made.client.client_id, clock())
    await eventually_held_by_nobody(server, made)
    refused = await server.token(made)
    assert (refused.status_code, refused.json()["error"]) == (401, "invalid_client")
    await server.clients.enable(made.client.client_id)
    assert (await server.token(made)).status_code == 200


async def test_every_worker_follows_a_change(settings, clock):
    """Two servers on one store: a client disabled through one is refused by the other."""
    async with serving(settings, clock) as first, serving(settings, clock) as second:
        made = await first.register()
        assert [(await each.token(made)).status_code for each in (first, second)] == [200, 200]
        await first.clients.disable(made.client.client_id, clock())
        for each in (first, second):
            await eventually_held_by_nobody(each, made)
            assert (await each.token(made)).status_code == 401


async def test_issuing_costs_no_round_trip_and_no_row(server):
    """Steady state: 30 tokens, no read of a client, no new key in the store."""
    made = await server.register()
    await server.token(made)
    store = connect(server.settings)
    before = await store.dbsize(), (await store.info("commandstats"))["cmdstat_hgetall"]["calls"]
    for _ in range(30):
        assert (await server.token(made)).status_code == 200
    assert (await store.dbsize(), (await store.info("commandstats"))["cmdstat_hgetall"]["calls"]) == before
    await store.aclose()


async def test_a_restart_keeps_the_clients(settings, clock):
    """What was acknowledged is there after the store and the server came back."""
    async with serving(settings, clock) as before:
        made = await before.register()
    async with serving(settings, clock) as after:
        assert (await after.token(made)).status_code == 200


async def test_the_demo_client_works_as_its_file_says(server):
    """The first thing a newcomer does."""
    held = demo(server.settings)
    form = {"grant_type": "client_credentials", "scope": held["scope"], "resource": held["resource"]}
    headers = {"authorization": basic(held["client_id"], held["client_secret"])}
    answer = await server.http.post(TOKEN, data=form, headers=FORM | headers)
    assert (answer.status_code, answer.json()["scope"]) == (200, "predict:* explain:*")


async def rotate(server, renewed, clock, overlap_s):
    """Give a client another secret."""
    secret_hash = load_pepper(server.settings.keys_dir).secret_hash(renewed.secret.reveal())
    secret = ClientSecret(secret_hash=secret_hash, created_at=clock())
    await server.clients.add_secret(renewed.client.client_id, secret, previous_end_at=clock() + overlap_s)


async def eventually_held_by_nobody(server, made):
    """Wait until a change has reached the server: its next answers come from the store."""
    async with asyncio.timeout(5):
        while (await server.token(made)).status_code == 200:
            await asyncio.sleep(0.001)
