"""The admin API's base: who gets in, what is refused in which form, and what a handler may rely on."""

import pytest

from shared.events import Event
from tests.auth_server.test_introspect import silenced_feed, until_beaten
from tests.auth_server.test_revoke import issued, send

PATH = "/admin/v1/revocations"


async def call(server, token, method="GET", path=PATH, scheme="Bearer", **request):
    """One call with a token."""
    headers = {"authorization": f"{scheme} {token}"} if token is not None else {}
    return await server.http.request(method, path, headers=headers | request.pop("headers", {}), **request)


def assert_problem(answer, status, code):
    """The form of every error that is not OAuth's own."""
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:flex:error:{code}")
    assert answer.headers["cache-control"] == "no-store"


async def test_a_token_of_this_issuer_with_the_scope_gets_in(server):
    """Also one that holds all scopes, and in any case of the scheme."""
    for scope in ("tokens:revoke", "admin"):
        token = await issued(server, await server.register(scope))
        assert (await call(server, token)).status_code == 200
        assert (await call(server, token, scheme="bEARER")).status_code == 200


async def test_no_token_is_401_without_a_code(server):
    """RFC 6750 section 3.1."""
    for answer in (await call(server, None), await call(server, "abc", scheme="Basic")):
        assert_problem(answer, 401, "unauthenticated")
        assert "error=" not in answer.headers["www-authenticate"]


async def test_whatever_is_wrong_with_a_token_is_one_answer(server, clock, event_log):
    """Damaged, for another audience, expired, revoked, two at once; the log knows which."""
    made, client = await server.register("tokens:revoke"), await server.register()
    good, other, ended = [await issued(server, each) for each in (made, client, made)]
    damaged = good.rpartition(".")[0] + "." + other.rpartition(".")[2]
    assert (await send(server, made, ended)).status_code == 200
    answers = [await call(server, bad) for bad in (damaged, other, ended, "x" * 5000)]
    two = [("authorization", f"Bearer {good}")] * 2
    answers.append(await server.http.get(PATH, headers=two))
    clock.advance(931)
    answers.append(await call(server, good))
    for answer in answers:
        assert_problem(answer, 401, "invalid_token")
    assert len({answer.json()["detail"] for answer in answers}) == 1
    reasons = [line["reason"] for line in event_log.named(Event.BEARER_REFUSED)]
    assert reasons == ["bad_signature", "wrong_audience", "token_revoked", "too_long", "two_headers", "expired"]


async def test_a_token_without_the_scope_is_told_which(server):
    """403 and the scope."""
    answer = await call(server, await issued(server, await server.register("keys:manage")))
    assert_problem(answer, 403, "insufficient_scope")
    assert 'scope="tokens:revoke"' in answer.headers["www-authenticate"]


async def test_stale_knowledge_is_503_and_never_401(server, clock):
    """Bounded at a minute for everything that manages."""
    made = await server.register("tokens:revoke")
    token = await issued(server, made)
    async with silenced_feed(server.settings):
        clock.advance(61)
        answer = await call(server, token)
        assert_problem(answer, 503, "revocations_stale")
        assert answer.headers["retry-after"] == "1"
    await until_beaten(server, made)
    assert (await call(server, token)).status_code == 200


async def test_other_methods_and_addresses(server):
    """405 with what is allowed, 404."""
    token = await issued(server, await server.register("admin"))
    refused = await call(server, token, "DELETE")
    assert_problem(refused, 405, "method_not_allowed")
    assert refused.headers["allow"] == "POST, GET"
    assert_problem(await call(server, token, path="/admin/v1/nothing"), 404, "not_found")
    assert_problem(await call(server, token, path=PATH + "/"), 404, "not_found")


@pytest.mark.parametrize(
    ("content", "media_type", "status", "code"),
    [
        (b"", "application/json", 400, "invalid_request"),
        (b"{", "application/json", 400, "malformed_json"),
        (b"[]", "application/json", 400, "malformed_json"),
        (b'{"kind": "jti", "kind": "client", "value": "x"}', "application/json", 400, "malformed_json"),
        (b'{"kind": "jti", "value": "x"}', "text/plain", 415, "unsupported_media_type"),
        (b" " * 70_000, "application/json", 413, "payload_too_large"),
    ],
)
async def test_bodies_are_strict_json(server, content, media_type, status, code):
    """One object, no name twice, bounded."""
    token = await issued(server, await server.register("tokens:revoke"))
    answer = await call(server, token, "POST", content=content, headers={"content-type": media_type})
    assert_problem(answer, status, code)


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "limit=x", "limit=1&limit=2", "limit", "%ff=1", "limit=\u0661"]
)
async def test_queries_are_strict(server, query):
    """A number in range, each parameter once."""
    token = await issued(server, await server.register("tokens:revoke"))
    assert_problem(await call(server, token, path=f"{PATH}?{query}"), 400, "invalid_request")


async def test_every_change_is_an_event(server, event_log):
    """Who, what; a look is none, nor is a refusal."""
    made = await server.register("tokens:revoke")
    token = await issued(server, made)
    await call(server, token)
    await call(server, token, "POST", json={"kind": "nonsense", "value": "x"})
    assert (await call(server, token, "POST", json={"kind": "jti", "value": "x"})).status_code == 200
    assert {line["route"] for line in event_log.named(Event.HTTP_REQUEST)} == {"/oauth2/token", PATH}
    (line,) = event_log.named(Event.ADMIN_CHANGE)
    assert (line["client_id"], line["method"], line["route"]) == (made.client.client_id, "POST", PATH)
