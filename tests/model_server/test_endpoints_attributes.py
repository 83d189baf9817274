"""List, card, prediction, explanation and profile, as the contract has them."""

import json

import pytest

from model_server.scoring import score
from tests.model_server.serving import EXPLAIN, PREDICT
from tests.tokens import AUDIENCE

ALL = "predict:* explain:*"


async def test_the_list_has_what_the_token_may_use(api):
    """Only visible attributes, with the addresses that the scopes allow."""
    listed = (await api.get("/v1/attributes", "predict:grit explain:calm")).json()
    assert listed["attributes"] == [
        {
            "id": "calm",
            "title": api.attributes["calm"].title,
            "version": "1",
            "endpoints": {"card": "/v1/attributes/calm", "explain": "/v1/attributes/calm/explain"},
        },
        {
            "id": "grit",
            "title": "Grit",
            "version": "1",
            "endpoints": {
                "card": "/v1/attributes/grit",
                "predict": "/v1/attributes/grit/predict",
                "batch": "/v1/attributes/grit/predict/batch",
            },
        },
    ]


@pytest.mark.parametrize(("scope", "n_listed"), [("", 0), ("models:manage", 0), ("admin", 10), ("predict:*", 10)])
async def test_the_list_follows_the_scopes(api, scope, n_listed):
    """A token without attributes gets an empty list, not an error."""
    assert len((await api.get("/v1/attributes", scope)).json()["attributes"]) == n_listed


async def test_a_card_comes_with_schema_and_an_example_that_works(api):
    """Every shipped attribute: its example fits its schema's names and is accepted as it is, without a warning."""
    for attribute_id in api.attributes:
        shown = (await api.get(f"/v1/attributes/{attribute_id}", ALL)).json()
        assert list(shown) == ["id", "title", "version", "card", "schema", "example"]
        assert shown["card"].startswith("#")
        assert set(shown["example"]["features"]) <= set(shown["schema"]["properties"]["features"]["properties"])
        answer = await api.post(f"/v1/attributes/{attribute_id}/predict", shown["example"], ALL)
        assert answer.status_code == 200
        assert answer.json()["warnings"] == []


async def test_a_card_needs_either_scope_and_hides_from_others(api):
    """Predict or explain is enough; with neither there is no such attribute."""
    assert (await api.get("/v1/attributes/grit", "predict:grit")).status_code == 200
    assert (await api.get("/v1/attributes/grit", "explain:grit")).status_code == 200
    assert (await api.get("/v1/attributes/grit", "predict:calm")).status_code == 404


async def test_a_prediction_is_the_contracts_answer(api):
    """All members, the caller's id, the engine's own number to the last bit, nobody may cache it."""
    body = api.example() | {"id": "p-17"}
    answer = await api.post(PREDICT, body)
    attribute = api.attributes["grit"]
    expected = score(attribute, attribute.decoder.decode(json.dumps(body).encode()))
    assert list(answer.json()) == [
        "id", "attribute", "score", "raw", "unit", "interval80", "percentile", "band",
        "coverage", "missing", "warnings", "model", "not_for",
    ]  # fmt: skip
    assert (answer.json()["id"], answer.json()["raw"]) == ("p-17", expected.raw)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", "APPLICATION/JSON", 'application/json;charset="UTF-8"']
)
async def test_json_is_known_by_all_its_names(api, content_type):
    """Parameters and case do not matter."""
    assert (await api.post(PREDICT, api.example(), content_type=content_type)).status_code == 200


async def test_json_needs_no_name(api):
    """Without a Content-Type the body is taken as JSON."""
    content = json.dumps(api.example()).encode()
    answer = await api.http.post(PREDICT, content=content, headers=api.authorization("predict:grit"))
    assert answer.status_code == 200


async def test_too_little_known_gives_no_number(api):
    """Below half of what the model rests on: a status instead of a score, from both endpoints."""
    for path in (PREDICT, EXPLAIN):
        answer = await api.post(path, {"features": {}})
        assert answer.status_code == 200
        assert answer.json()["status"] == "insufficient_data"
        assert "score" not in answer.json()


async def test_an_explanation_adds_up(api):
    """Contributions and base value make the score; reasons are sentences."""
    explained = (await api.post(EXPLAIN, api.example())).json()
    total = explained["base_value"] + sum(part["points"] for part in explained["contributions"])
    assert total == pytest.approx(explained["raw"])
    assert explained["reasons"]
    assert explained["raw"] == (await api.post(PREDICT, api.example())).json()["raw"]


async def test_a_profile_answers_for_all_that_the_token_may_predict(api):
    """One record, an answer for each attribute in order of id; a survey record says too little about play."""
    features = api.example("grit")["features"] | api.example("calm")["features"]
    answer = await api.post("/v1/profile", {"id": "p-1", "features": features}, "predict:grit predict:calm explain:*")
    profile = answer.json()
    assert profile["id"] == "p-1"
    assert [place["attribute"] for place in profile["attributes"]] == ["calm", "grit"]
    assert profile["attributes"][1]["raw"] == (await api.post(PREDICT, api.example())).json()["raw"]
    everything = (await api.post("/v1/profile", {"features": features}, "predict:*")).json()["attributes"]
    assert [place["attribute"] for place in everything] == sorted(api.attributes)


async def test_a_profile_has_errors_in_their_places(api):
    """A value that one attribute can't take is that attribute's error; the others answer."""
    name = next(iter(set(api.example("grit")["features"]) - set(api.example("calm")["features"])))
    features = api.example("grit")["features"] | api.example("calm")["features"] | {name: "often"}
    places = (await api.post("/v1/profile", {"features": features}, "predict:grit predict:calm")).json()["attributes"]
    assert [place["attribute"] for place in places] == ["calm", "grit"]
    assert "score" in places[0]
    assert (places[1]["status"], places[1]["errors"][0]["pointer"]) == (422, f"/features/{name}")


async def test_a_profile_is_served_to_admins_and_refused_without_any_prediction(api):
    """Admin covers all; explain alone predicts nothing."""
    assert len((await api.post("/v1/profile", {"features": {}}, "admin")).json()["attributes"]) == len(api.attributes)
    refused = await api.post("/v1/profile", {"features": {}}, "explain:*")
    assert refused.status_code == 403
    assert 'scope="predict:*"' in refused.headers["www-authenticate"]


async def test_the_audience_is_this_server(api):
    """A token for another resource is no token here."""
    headers = api.issuer.authorization(aud="https://elsewhere")
    assert (await api.http.get("/v1/attributes", headers=headers)).status_code == 401
    assert (
        await api.http.get("/v1/attributes", headers=api.issuer.authorization(aud=[AUDIENCE, "x"]))
    ).status_code == 200
