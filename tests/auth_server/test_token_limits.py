"""Limits and budgets in tokens (RFC 9396), and networks that fail too often."""

import json
from dataclasses import replace

import pytest

from shared import base64url
from tests.auth_server.serving import FORM, TOKEN, basic, serving

BUDGET = {"type": "model_call", "attributes": ["grit"], "rows": 500, "period": "hour"}


def claims(answer) -> dict:
    return json.loads(base64url.decode(answer.json()["access_token"].split(".")[1].encode()))


async def test_an_ordinary_token_says_nothing_of_limits(server):
    """Tokens stay small."""
    answer = await server.token(await server.register())
    assert not {"calls_per_hour", "authorization_details"} & claims(answer).keys()
    assert "authorization_details" not in answer.json()


async def test_what_a_client_has_is_in_its_tokens(server):
    """Its limit and its budgets, and the answer says what was granted."""
    made = await server.register(calls_per_hour=42, budgets=[json.dumps(BUDGET)])
    answer = await server.token(made)
    assert claims(answer)["calls_per_hour"] == 42
    assert claims(answer)["authorization_details"] == answer.json()["authorization_details"] == [BUDGET]


async def test_a_client_may_ask_for_less(server):
    """What it has comes along as a ceiling, so that many small tokens are not more than one large."""
    made = await server.register(budgets=[json.dumps(BUDGET | {"attributes": ["grit", "calm"]})])
    asked = BUDGET | {"rows": 5, "period": "minute"}
    answer = await server.token(made, authorization_details=json.dumps([asked]))
    ceiling = BUDGET | {"attributes": ["calm", "grit"], "ceiling": True}
    assert claims(answer)["authorization_details"] == [asked, ceiling]


async def test_a_client_without_budgets_may_bind_its_token(server):
    """Any budget is less than none."""
    answer = await server.token(await server.register(), authorization_details=json.dumps([BUDGET]))
    assert claims(answer)["authorization_details"] == [BUDGET]


@pytest.mark.parametrize(
    "asked",
    [
        [BUDGET | {"rows": 501}],
        [BUDGET | {"rows": 100, "period": "minute"}],
        [BUDGET | {"attributes": ["calm"]}],
        [BUDGET | {"attributes": ["*"]}],
        [BUDGET, BUDGET | {"attributes": ["calm"]}],
        [BUDGET | {"ceiling": True}],
        [{"type": "payment"}],
        [],
        {},
        "nonsense",
    ],
)
async def test_more_than_it_may_have_is_refused(server, asked):
    """By the code of RFC 9396 section 5; the text that came is not repeated."""
    made = await server.register(budgets=[json.dumps(BUDGET)])
    answer = await server.token(made, authorization_details=json.dumps(asked))
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_authorization_details")
    assert "nonsense" not in answer.text


@pytest.mark.parametrize("text", ["{", '[],"more":1', "[" * 5000, '[{"type":"model_call","type":"x"}]', "é"])
async def test_what_is_no_json_array_is_refused(server, text):
    """Also what would break out of the array, or stands twice."""
    answer = await server.token(await server.register(), authorization_details=text)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_authorization_details")


async def test_the_metadata_names_the_type(server):
    """RFC 9396 section 10."""
    answer = await server.http.get("/.well-known/oauth-authorization-server")
    assert answer.json()["authorization_details_types_supported"] == ["model_call"]


async def test_a_network_with_too_many_failed_logins_waits(settings, clock):
    """Nobody is looked up for it any more; a client that proves itself from memory still gets its token."""
    async with serving(replace(settings, failed_clients_per_minute=3), clock) as server:
        good = await server.register()
        assert (await server.token(good)).status_code == 200
        failed = []
        for _ in range(5):
            headers = {**FORM, "authorization": basic(good.client.client_id, "wrong")}
            failed.append(await server.http.post(TOKEN, content="grant_type=client_credentials", headers=headers))
        assert [answer.status_code for answer in failed] == [401] * 3 + [429] * 2
        assert failed[4].json()["error"] == "temporarily_unavailable"
        assert int(failed[4].headers["retry-after"]) >= 1
        assert (await server.token(good)).status_code == 200
        headers = {**FORM, "authorization": basic("nobody-0123456789ab", "wrong")}
        answer = await server.http.post(TOKEN, content="grant_type=client_credentials", headers=headers)
        assert answer.status_code == 429
