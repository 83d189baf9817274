"""What needs no token: the RFC 9728 document, health, metrics, OpenAPI and its page."""

import re

import httpx
import pytest

from model_server.app import build_app
from model_server.endpoints.discovery import document_paths, document_url
from model_server.remote_keys import RemoteKeys
from shared.access_token import StaticKeySet
from tests.model_server.serving import PREDICT, serving
from tests.tokens import AUDIENCE, ISSUER

OPEN = ["/.well-known/oauth-protected-resource", "/health/live", "/health/ready", "/metrics", "/openapi.json", "/docs"]


@pytest.mark.parametrize("path", OPEN)
async def test_the_open_addresses_need_no_token_and_take_only_get(api, path):
    """200 without any header; HEAD too; POST is 405 and a bad token is not even looked at."""
    assert (await api.http.get(path)).status_code == 200
    assert (await api.http.head(path)).status_code == 200
    assert (await api.http.get(path, headers={"authorization": "Bearer x"})).status_code == 200
    assert (await api.http.post(path)).status_code == 405


async def test_the_resource_says_where_tokens_come_from(api):
    """RFC 9728 section 2, for anybody's browser too."""
    answer = await api.http.get("/.well-known/oauth-protected-resource")
    document = answer.json()
    assert document["resource"] == AUDIENCE
    assert document["authorization_servers"] == [ISSUER]
    assert document["bearer_methods_supported"] == ["header"]
    assert {"predict:grit", "explain:grit", "predict:*", "explain:*", "admin"} <= set(document["scopes_supported"])
    assert answer.headers["access-control-allow-origin"] == "*"


def test_a_resource_with_a_path_has_its_document_behind_the_well_known_path():
    """RFC 9728 section 3.1."""
    assert (
        document_url("https://api.example/models") == "https://api.example/.well-known/oauth-protected-resource/models"
    )
    assert "/.well-known/oauth-protected-resource/models" in document_paths("https://api.example/models")
    assert len(document_paths(AUDIENCE)) == 1


async def test_the_challenge_leads_to_the_document(api):
    """A client that knows nothing but the address finds the issuer."""
    challenge = (await api.http.get("/v1/attributes")).headers["www-authenticate"]
    (url,) = re.findall(r'resource_metadata="([^"]+)"', challenge)
    assert (await api.http.get(url)).json()["authorization_servers"] == [ISSUER]


async def test_ready_means_models_and_keys(settings, attributes, issuer, clock, tmp_path):
    """503 naming what is missing, until nothing is; live all the while."""
    waiting = RemoteKeys(ISSUER, file=tmp_path / "k", soft_max_age_s=1, max_stale_s=1, clock=clock)
    good = StaticKeySet({issuer.kid: issuer.key})
    for models, keys, missing in ((attributes, waiting, "keys"), ({}, good, "attribute")):
        app = build_app(settings, models, keys, clock=clock)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=AUDIENCE) as http:
            answer = await http.get("/health/ready")
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert missing in answer.json()["detail"]
            assert (await http.get("/health/live")).status_code == 200


async def test_a_draining_server_is_not_ready(app):
    """The balancer is told before connections are closed."""
    messages = []

    async def send(message):
        messages.append(message)

    scope = {"type": "http", "method": "GET", "path": "/health/ready", "headers": [], "state": {"draining": True}}
    await app(scope, None, send)
    assert messages[0]["status"] == 503


async def test_metrics_are_for_the_loopback_and_named_networks(settings, attributes, issuer, clock):
    """403 for anybody else, or for a peer without an address."""
    app = build_app(settings, attributes, StaticKeySet({issuer.kid: issuer.key}), clock=clock)
    for peer, status in ((("127.0.0.1", 1), 200), (("192.0.2.1", 1), 403), (None, 403)):
        transport = httpx.ASGITransport(app, client=peer)
        async with httpx.AsyncClient(transport=transport, base_url=AUDIENCE) as http:
            assert (await http.get("/metrics")).status_code == status


async def test_metrics_count_scores_and_refusals(api):
    """By attribute, by outcome and by reason; routes by their template."""
    await api.post(PREDICT, api.example())
    await api.post(PREDICT, {"features": {}})
    await api.post(PREDICT, {"features": []})
    await api.http.get("/v1/attributes", headers={"authorization": "Bearer x"})
    text = (await api.http.get("/metrics")).text
    for line in (
        'flex_scores_total{attribute="grit",outcome="scored"}',
        'flex_scores_total{attribute="grit",outcome="insufficient_data"}',
        'flex_records_refused_total{attribute="grit"}',
        'flex_bearer_refused_total{reason="malformed"}',
        'http_route="/v1/attributes/{id}/predict"',
    ):
        assert line in text


async def test_openapi_names_exactly_what_is_served(api):
    """Every documented call answers as documented, and every route of ours is documented."""
    document = (await api.http.get("/openapi.json")).json()
    assert document["openapi"] == "3.1.0"
    served = {"/v1/attributes", "/v1/profile", *OPEN}
    for attribute_id in api.attributes:
        served |= {f"/v1/attributes/{attribute_id}{end}" for end in ("", "/predict", "/predict/batch", "/explain")}
    assert set(document["paths"]) == served
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            without = await api.http.request(method.upper(), path)
            needs_token = operation.get("security") != []
            assert without.status_code == (401 if needs_token else 200), path
            answer = await api.http.request(method.upper(), path, headers=api.authorization("admin"))
            assert str(answer.status_code) in operation["responses"], path


async def test_openapi_has_each_attributes_own_schema_and_working_example(api):
    """A concrete path for each attribute, its record's names, its scope, and an example that is accepted."""
    document = (await api.http.get("/openapi.json")).json()
    for attribute_id, attribute in api.attributes.items():
        operation = document["paths"][f"/v1/attributes/{attribute_id}/predict"]["post"]
        content = operation["requestBody"]["content"]["application/json"]
        names = [feature.name for feature in attribute.features]
        record = document["components"]["schemas"][content["schema"]["$ref"].rsplit("/", 1)[1]]
        assert list(record["properties"]["features"]["properties"]) == names
        assert operation["security"] == [{"oauth2": [f"predict:{attribute_id}"]}]
        answer = await api.post(f"/v1/attributes/{attribute_id}/predict", content["example"], "admin")
        assert answer.status_code == 200


async def test_openapi_refers_to_nothing_that_is_not_there(api):
    """Every reference resolves, every scope used is declared."""
    answer = await api.http.get("/openapi.json")
    document = answer.json()
    for reference in set(re.findall(r'"\$ref":\s*"#/([^"]+)"', answer.text)):
        place = document
        for step in reference.split("/"):
            place = place[step]
    declared = document["components"]["securitySchemes"]["oauth2"]["flows"]["clientCredentials"]
    used = set(re.findall(r'"((?:predict|explain):[a-z_]+)"', answer.text))
    assert used <= set(declared["scopes"])
    assert declared["tokenUrl"] == f"{ISSUER}/oauth2/token"


async def test_an_answer_has_the_documented_members(api):
    """The schema's required members are the answer's members, in both forms."""
    schemas = (await api.http.get("/openapi.json")).json()["components"]["schemas"]
    for body, name in ((api.example(), "Answer"), ({"features": {}}, "Insufficient")):
        answer = (await api.post(PREDICT, body)).json()
        assert set(answer) == set(schemas[name]["required"]) == set(schemas[name]["properties"])
    explained = (await api.post("/v1/attributes/grit/explain", api.example())).json()
    assert set(explained) == set(schemas["Explanation"]["properties"])
    unexplained = (await api.post("/v1/attributes/grit/explain", {"features": {}})).json()
    assert set(unexplained) == set(schemas["Unexplained"]["properties"])
    shown = (await api.get("/v1/attributes/grit")).json()
    assert list(shown) == schemas["Attribute"]["required"] == list(schemas["Attribute"]["properties"])
    problem = (await api.post(PREDICT, {})).json()
    assert {*problem, "violated-policies"} == set(schemas["Problem"]["properties"])


async def test_the_page_runs_nothing_and_loads_nothing(api):
    """Plain HTML under a policy that allows its own style and nothing else."""
    answer = await api.http.get("/docs")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "<script" not in answer.text
    assert "http://" not in answer.text.replace(ISSUER, "")
    assert "POST /v1/attributes/grit/predict" in answer.text


async def test_head_has_no_body_on_the_wire(app):
    """The server leaves it out."""
    async with serving(app) as url, httpx.AsyncClient(base_url=url) as http:
        answer = await http.head("/docs")
        assert (answer.status_code, answer.content) == (200, b"")
        assert int(answer.headers["content-length"]) > 1000
