"""``POST /oauth2/revoke`` (RFC 7009): who may end which token, and what is answered to everything else."""

import asyncio
import random

import pytest

from auth_server.stores.client_secrets import new_secret
from shared.events import Event
from tests.auth_server.serving import FORM, basic, serving
from tests.auth_server.test_token_refusals import assert_refused

REVOKE, INTROSPECT = "/oauth2/revoke", "/oauth2/introspect"


async def issued(server, made, **form):
    """A token of a client."""
    return (await server.token(made, **form)).json()["access_token"]


async def send(server, made, token, path=REVOKE, **form):
    """Revoke (or introspect) a token as a client."""
    login = {"authorization": basic(made.client.client_id, made.secret)}
    return await server.http.post(path, data={"token": token, **form}, headers=login)


async def active(server, made, token):
    """Whether introspection calls a token active."""
    return (await send(server, made, token, INTROSPECT)).json()["active"]


async def test_a_client_ends_its_own_token_and_no_other(server):
    """200 without a body; introspection says so at once, and a second token goes on."""
    made = await server.register()
    token, other = await issued(server, made), await issued(server, made)
    answer = await send(server, made, token)
    assert (answer.status_code, answer.content, answer.headers["cache-control"]) == (200, b"", "no-store")
    assert [await active(server, made, each) for each in (token, other)] == [False, True]
    assert (await send(server, made, token)).status_code == 200


async def test_a_foreign_token_may_be_revoked_by_who_may_revoke_any(server):
    """``unauthorized_client`` for another client, and the token goes on; with ``tokens:revoke`` or ``admin`` it ends."""
    made, stranger = await server.register(), await server.register()
    token = await issued(server, made)
    assert_refused(await send(server, stranger, token), 400, "unauthorized_client")
    assert await active(server, made, token)
    for scope in ("tokens:revoke", "admin"):
        token = await issued(server, made)
        assert (await send(server, await server.register(scope), token)).status_code == 200
        assert not await active(server, made, token)


@pytest.mark.parametrize("hint", ["access_token", "refresh_token", "nonsense"])
async def test_a_hint_changes_nothing(server, hint):
    """RFC 7009 section 2.1: the server may ignore it."""
    made = await server.register()
    token = await issued(server, made)
    assert (await send(server, made, token, token_type_hint=hint)).status_code == 200
    assert not await active(server, made, token)


async def test_a_token_that_nobody_takes_needs_no_revocation(server, clock, event_log):
    """Garbage, another signature, too long, expired: 200 (RFC 7009 section 2.2), and nothing is written."""
    made = await server.register()
    token = await issued(server, made)
    head, payload, signature = token.split(".")
    for bad in ("x", "a.b.c", "\u00e9.x.y", f"{head}.{payload}.{signature[::-1]}", "x" * 9000):
        assert (await send(server, made, bad)).status_code == 200
    clock.advance(931)
    assert (await send(server, made, token)).status_code == 200
    assert not event_log.named(Event.REVOCATION_WRITTEN)


async def test_a_token_within_the_leeway_of_verifiers_is_still_revoked(server, clock, event_log):
    """It is expired, but a verifier whose clock is behind takes it."""
    made = await server.register()
    token = await issued(server, made)
    clock.advance(910)
    assert (await send(server, made, token)).status_code == 200
    assert len(event_log.named(Event.REVOCATION_WRITTEN)) == 1


async def test_clients_authenticate_as_at_the_token_endpoint(server, clock):
    """Body or header, one method; each failure the same answer, no sooner than all others."""
    from auth_server.endpoints.client_requests import FAILED_AFTER_S

    made, loop = await server.register(), asyncio.get_running_loop()
    token = await issued(server, made)
    own = {"client_id": made.client.client_id, "client_secret": made.secret.reveal()}
    logins = [basic("nobody-0123456789ab", new_secret()), basic(own["client_id"], new_secret()), "Bearer " + token, ""]
    for path in (REVOKE, INTROSPECT):
        answers = []
        for login in logins:
            started = loop.time()
            headers = {"authorization": login} if login else {}
            answers.append(await server.http.post(path, data={"token": token}, headers=headers))
            assert loop.time() - started >= FAILED_AFTER_S - 0.001
            assert_refused(answers[-1], 401, "invalid_client")
        assert len({answer.content for answer in answers}) == 1
        both = {"authorization": basic(own["client_id"], made.secret)}
        assert_refused(await server.http.post(path, data={"token": token} | own, headers=both), 400, "invalid_request")
        assert (await server.http.post(path, data={"token": token} | own)).status_code == 200
    await server.clients.disable(made.client.client_id, clock())
    async with asyncio.timeout(5):
        while (await send(server, made, token)).status_code != 401:
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("path", [REVOKE, INTROSPECT])
@pytest.mark.parametrize(
    ("body", "query", "content_type"),
    [
        ("", "", FORM["content-type"]),
        ("token=", "", FORM["content-type"]),
        ("token=a&token=b", "", FORM["content-type"]),
        ("token=a", "token=b", FORM["content-type"]),
        ("token=a", "", "application/json"),
        ("token=%zz", "", FORM["content-type"]),
    ],
)
async def test_a_malformed_request_is_refused(server, path, body, query, content_type):
    """RFC 7009 section 2.2.1, RFC 7662 section 2.3; a token in the URI would end in logs."""
    made = await server.register()
    headers = {"authorization": basic(made.client.client_id, made.secret), "content-type": content_type}
    answer = await server.http.post(f"{path}?{query}", content=body, headers=headers)
    assert_refused(answer, 400, "invalid_request")


@pytest.mark.parametrize("path", [REVOKE, INTROSPECT])
async def test_other_methods_are_not_allowed(server, path):
    """A token never stands in an address."""
    answer = await server.http.get(path)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


async def test_without_the_store_nothing_is_promised(own_store, clock):
    """503 with Retry-After while it is away; the same call afterwards is done."""
    store, settings = own_store
    async with serving(settings, clock) as server:
        made = await server.register()
        token = await issued(server, made)
        store.release()
        async with asyncio.timeout(5):
            while (answer := await send(server, made, token)).status_code == 200:
                await asyncio.sleep(0.01)
        assert_refused(answer, 503, "temporarily_unavailable")
        assert answer.headers["retry-after"] == "1"
        store.attach()
        async with asyncio.timeout(10):
            while (await send(server, made, token)).status_code != 200:
                await asyncio.sleep(0.02)
        assert not await active(server, made, token)


async def test_every_worker_knows_what_one_was_told(settings, clock):
    """Two servers on one store: revoked at one, not active at the other within milliseconds."""
    async with serving(settings, clock) as first, serving(settings, clock) as second:
        made = await first.register()
        token = await issued(first, made)
        assert await active(second, made, token)
        assert (await send(first, made, token)).status_code == 200
        async with asyncio.timeout(10):
            while await active(second, made, token):
                await asyncio.sleep(0.001)


async def test_a_revocation_outlives_a_restart(settings, clock):
    """The feed in the store is the whole truth."""
    async with serving(settings, clock) as before:
        made = await before.register()
        token = await issued(before, made)
        assert (await send(before, made, token)).status_code == 200
    async with serving(settings, clock) as after:
        assert not await active(after, made, token)


@pytest.mark.parametrize("path", [REVOKE, INTROSPECT])
async def test_no_input_makes_the_server_fail(server, path):
    """Two hundred damaged requests: never a 500, never anything but the RFC's forms."""
    chance = random.Random(20261125)
    made = await server.register()
    token = await issued(server, made)
    login = FORM | {"authorization": basic(made.client.client_id, made.secret)}
    for _ in range(200):
        body = bytearray(f"token={token}&token_type_hint=access_token".encode())
        for _ in range(chance.randint(0, 4)):
            body[chance.randrange(len(body))] = chance.randrange(256)
        answer = await server.http.post(path, content=bytes(body), headers=login)
        assert answer.status_code in {200, 400}
        expected = set() if path == REVOKE else {"active"}
        said = answer.json() if answer.content else {}
        assert set(said) >= (expected if answer.status_code == 200 else {"error", "error_description"})


async def test_no_token_and_no_secret_reaches_an_event_or_an_answer(server, event_log):
    """Who revoked what is there by ids."""
    made, operator = await server.register(), await server.register("tokens:revoke")
    token = await issued(server, made)
    login = {"authorization": f"Bearer {await issued(server, operator)}"}
    body = {"kind": "token", "value": token, "reason": "leaked"}
    answers = [await send(server, made, token, INTROSPECT)]
    jti = answers[0].json()["jti"]
    answers += [await send(server, operator, token)]
    answers += [await server.http.post("/admin/v1/revocations", json=body, headers=login)]
    answers += [await send(server, made, "x" + token)]
    said = event_log.text + "".join(answer.text for answer in answers)
    for secret in (token, token.rpartition(".")[2], token.split(".")[1], made.secret.reveal()):
        assert secret not in said
    first, second = event_log.named(Event.REVOCATION_WRITTEN)
    assert (first["kind"], first["key"], first["by"]) == ("token", jti, operator.client.client_id)
    assert (second["key"], second["reason"]) == (jti, "leaked")
