"""Limits on a whole model server with a real store: what is charged, what is told, what is refused."""

import asyncio
import contextlib
import json

import httpx
import pytest

from model_server.app import build_app
from model_server.settings import ModelSettings
from shared.access_token import StaticKeySet
from shared.embedded_store import EmbeddedStore
from shared.rate_limit.headers import QUOTA_EXCEEDED
from shared.settings import SettingsError
from tests.model_server.serving import BATCH, EXPLAIN, PREDICT, Api, serving
from tests.tokens import AUDIENCE

BUDGET = {"type": "model_call", "attributes": ["grit"], "rows": 10, "period": "hour"}
NDJSON = "application/x-ndjson"


class LimitedApi(Api):
    """Calls with tokens that carry limits; ``claims`` go into each token."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.claims = {}

    def authorization(self, scope):
        return {} if scope is None else self.issuer.authorization(scope=scope, **self.claims)


@pytest.fixture(scope="module")
def store_dir(tmp_path_factory):
    """The var folder of one embedded store."""
    folder = tmp_path_factory.mktemp("limits")
    with EmbeddedStore(folder):
        yield folder


@pytest.fixture
def running(store_dir, attributes, issuer, clock):
    """Serve with these settings; ``client`` makes every test's client another one."""

    @contextlib.asynccontextmanager
    async def run(client: str, claims: dict | None = None, **settings):
        settings = ModelSettings(**({"var_dir": store_dir, "resource": AUDIENCE} | settings))
        app = build_app(settings, attributes, StaticKeySet({issuer.kid: issuer.key}), clock=clock)
        async with serving(app) as url, httpx.AsyncClient(base_url=url, timeout=20) as http:
            api = LimitedApi(http, issuer, attributes)
            api.claims = {"client_id": client, "sub": client} | (claims or {})
            yield api

    return run


def left(answer) -> dict[str, int]:
    """What RateLimit says is left, by policy."""
    pairs = [item.strip().split(";") for item in answer.headers["ratelimit"].split(",")]
    return {name.strip('"'): int(rest[0][2:]) for name, *rest in pairs}


async def test_a_hundred_an_hour_is_a_hundred(running):
    """The 101st call is told so, when to come back, and by which policy; every answer tells what is left."""
    async with running("hundred", rate_limit_per_hour=100) as api:
        answers = [await api.post(PREDICT, api.example()) for _ in range(103)]
    assert [answer.status_code for answer in answers] == [200] * 100 + [429] * 3
    assert [left(answer)["hour"] for answer in answers[:100]] == list(range(99, -1, -1))
    refused = answers[100]
    assert refused.headers["ratelimit-policy"] == answers[0].headers["ratelimit-policy"] == '"hour";q=100;w=3600'
    assert refused.json()["type"] == QUOTA_EXCEEDED
    assert refused.json()["violated-policies"] == ["hour"]
    assert 30 <= int(refused.headers["retry-after"]) <= 37


async def test_the_tokens_own_limit_replaces_the_default(running):
    """Three for this client, whatever the installation gives others."""
    async with running("three", {"calls_per_hour": 3}) as api:
        statuses = [(await api.post(PREDICT, api.example())).status_code for _ in range(4)]
        api.claims = {"client_id": "other", "sub": "other"}
        statuses.append((await api.post(PREDICT, api.example())).status_code)
    assert statuses == [200, 200, 200, 429, 200]


async def test_what_is_refused_before_costs_nothing_and_a_bad_body_costs_a_call(running):
    """401, 403, 404 and 415 are free and say nothing of limits; 422 and 400 are charged and do."""
    async with running("bodies", {"calls_per_hour": 5}) as api:
        free = [
            await api.post(PREDICT, api.example(), None),
            await api.post(EXPLAIN, api.example(), "predict:grit"),
            await api.post(PREDICT, api.example(), "predict:calm"),
            await api.post(PREDICT, api.example(), content_type="text/plain"),
        ]
        charged = [await api.post(PREDICT, {"features": {"ipip_mood_swings": "often"}}), await api.post(PREDICT, b"{")]
        good = await api.post(PREDICT, api.example())
    assert [answer.status_code for answer in free] == [401, 403, 404, 415]
    assert not any("ratelimit" in answer.headers for answer in free)
    assert [answer.status_code for answer in charged] == [422, 400]
    assert [left(answer)["hour"] for answer in (*charged, good)] == [4, 3, 2]


async def test_an_explanation_weighs_more(running):
    """Ten calls by default; never more than a whole limit, so that it can be had at all."""
    async with running("explains", {"calls_per_hour": 25}) as api:
        answers = [await api.post(EXPLAIN, api.example()) for _ in range(3)]
        api.claims = {"client_id": "poor", "sub": "poor", "calls_per_hour": 4}
        answers += [await api.post(EXPLAIN, api.example()) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200, 429, 200, 429]
    assert left(answers[1]) == {"hour": 5}


async def test_an_attribute_may_have_its_own_limit(running):
    """Two calls of each client to grit; calm is free of it."""
    async with running("attribute", attribute_limits=(("grit", 2),)) as api:
        calm = PREDICT.replace("grit", "calm")
        statuses = [(await api.post(PREDICT, api.example())).status_code for _ in range(3)]
        statuses.append((await api.post(calm, api.example("calm"), "predict:*")).status_code)
    assert statuses == [200, 200, 429, 200]


async def test_a_budget_counts_rows_of_whatever_call(running):
    """A batch of 6, one call of 1: of 10 rows 3 are left, so that a batch of 4 is refused and 3 calls pass."""
    async with running("rows", {"authorization_details": [BUDGET]}) as api:
        six = await api.post(BATCH, {"records": [api.example()] * 6})
        one = await api.post(PREDICT, api.example())
        four = await api.post(BATCH, {"records": [api.example()] * 4})
        more = [(await api.post(PREDICT, api.example())).status_code for _ in range(3)]
    assert [six.status_code, one.status_code, four.status_code] == [200, 200, 429]
    assert left(six)["rows-hour"] == 4
    assert left(one)["rows-hour"] == 3
    assert four.json()["violated-policies"] == ["rows-hour"]
    assert more == [200, 200, 429]  # the refused batch had paid for the row that every call pays for


async def test_a_stream_is_answered_to_the_last_row_of_the_budget(running):
    """Then comes the refusal, as the last line."""
    async with running("stream", {"authorization_details": [BUDGET]}) as api:
        lines = b"\n".join([json.dumps(api.example()).encode()] * 14)
        answer = await api.post(BATCH, lines, content_type=NDJSON)
        later = await api.post(BATCH, lines, content_type=NDJSON)
    answers = [json.loads(line) for line in answer.text.splitlines()]
    assert ["score" in each for each in answers] == [True] * 10 + [False]
    assert answers[-1]["type"] == QUOTA_EXCEEDED
    assert (answer.status_code, later.status_code) == (200, 429)


async def test_a_budget_opens_its_attributes_only(running):
    """For the rest of the scope the token is as good as none; the narrower of limit and budget wins."""
    details = [BUDGET | {"rows": 2}, BUDGET | {"rows": 50, "ceiling": True, "attributes": ["*"]}]
    async with running("narrow", {"calls_per_hour": 100, "authorization_details": details}) as api:
        calm = await api.post(PREDICT.replace("grit", "calm"), api.example("calm"), "predict:*")
        grit = [await api.post(PREDICT, api.example(), "predict:*") for _ in range(3)]
        listed = await api.get("/v1/attributes", "predict:*")
    assert calm.status_code == 404
    assert [answer.status_code for answer in grit] == [200, 200, 429]
    assert grit[2].json()["violated-policies"] == ["rows-hour"]
    assert [each["id"] for each in listed.json()["attributes"]] == ["grit"]


async def test_a_profile_is_one_call_and_a_row_of_each_attribute(running):
    """A budget of two attributes pays two rows, one of a single attribute one."""
    details = [BUDGET | {"attributes": ["grit", "calm"]}, BUDGET]
    async with running("profile", {"calls_per_hour": 9, "authorization_details": details}) as api:
        answers = [await api.post("/v1/profile", api.example(), "predict:*") for _ in range(6)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429]
    assert left(answers[0]) == {"hour": 8, "rows-hour": 8, "rows2-hour": 9}
    assert len(answers[0].json()["attributes"]) == 2


async def test_a_token_with_limits_that_are_not_understood_is_refused(running):
    """It might be a restriction."""
    odd = (
        {"calls_per_hour": 0},
        {"calls_per_hour": "5"},
        {"calls_per_hour": True},
        {"authorization_details": {}},
        {"authorization_details": []},
        {"authorization_details": [{"type": "payment"}]},
        {"authorization_details": [BUDGET | {"extra": 1}]},
        {"authorization_details": [BUDGET | {"ceiling": False}]},
    )
    async with running("odd") as api:
        for claims in odd:
            api.claims = claims
            assert (await api.post(PREDICT, api.example())).status_code == 401


async def test_without_any_store_each_worker_keeps_to_its_share(running, tmp_path):
    """An installation that needs no revocations needs no store either: limits hold, refusals are quotas."""
    alone = {"var_dir": tmp_path, "require_fresh_revocations_s": 0, "rate_limit_per_hour": 6, "workers": 2}
    async with running("alone", **alone) as api:
        answers = [await api.post(PREDICT, api.example()) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert [left(answer)["hour"] for answer in answers] == [2, 1, 0, 0]


async def test_a_lost_store_leaves_the_share_and_then_a_lack_of_capacity(running, tmp_path):
    """Model calls go on; who used up the share is told 503, since the quota may still be there."""
    async with running("lost", var_dir=tmp_path, rate_limit_per_hour=3) as api:
        answers = [await api.post(PREDICT, api.example()) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 503]
    assert int(answers[3].headers["retry-after"]) >= 1
    assert "ratelimit-policy" in answers[3].headers


async def test_a_network_of_bad_tokens_is_shed_before_they_are_verified(running):
    """Its new tokens get 429 after so many refused ones; a token known before goes on."""
    async with running("shed", refused_per_minute=90) as api:  # two seconds' worth is three
        known = api.authorization("predict:grit")["authorization"]
        assert (await api.post(PREDICT, api.example(), authorization=known)).status_code == 200
        bad = [(await api.post(PREDICT, api.example(), authorization=f"Bearer x{n}.y.z")).status_code for n in range(4)]
        new = await api.post(PREDICT, api.example(), "predict:*")
        assert (await api.post(PREDICT, api.example(), authorization=known)).status_code == 200
    assert bad == [401, 401, 401, 429]
    assert new.status_code == 429
    assert int(new.headers["retry-after"]) >= 1


async def test_a_flood_of_bad_tokens_waits_and_good_calls_overtake_it(running):
    """What is shed is answered late, so few connections can't keep the worker busy; nobody else waits for it."""
    async with running("flood", refused_per_minute=30) as api:
        known = api.authorization("predict:grit")["authorization"]
        assert (await api.post(PREDICT, api.example(), authorization=known)).status_code == 200
        assert (await api.post(PREDICT, api.example(), authorization="Bearer a.b.c")).status_code == 401
        order = []

        async def call(authorization):
            order.append((await api.post(PREDICT, api.example(), authorization=authorization)).status_code)

        bad = ["Bearer x.y.z", "Bearer a.b", "Bearer " + "x" * 5000, "Bearer a.b.c", "Bearer -"]
        await asyncio.gather(*(call(one) for one in bad), *(call(known) for _ in range(5)))
    assert order == [200] * 5 + [429] * 5


@pytest.mark.parametrize("text", ["grit", "grit=", "grit=0", "grit=x", "=5", "Grit=5", "grit=5,grit=6"])
def test_attribute_limits_are_read_strictly(text):
    """``attribute=calls`` pairs, each attribute once."""
    assert ModelSettings.read({"FLEX_ATTRIBUTE_LIMITS_PER_HOUR": "grit=50, calm=20"}).attribute_limits == (
        ("grit", 50),
        ("calm", 20),
    )
    with pytest.raises(SettingsError, match="FLEX_ATTRIBUTE_LIMITS_PER_HOUR"):
        ModelSettings.read({"FLEX_ATTRIBUTE_LIMITS_PER_HOUR": text})
