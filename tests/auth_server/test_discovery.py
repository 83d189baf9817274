"""What the server publishes about itself: keys, metadata, health, metrics, descriptions."""

import json

import pytest

from shared.scopes import is_known
from tests.auth_server.serving import serving

JWKS = "/.well-known/jwks.json"
METADATA = "/.well-known/oauth-authorization-server"


async def test_the_key_set_has_public_members_only_and_may_be_cached(server):
    """An active and a standby key; the cache headers of the contract."""
    answer = await server.http.get(JWKS)
    keys = answer.json()["keys"]
    assert len(keys) == 2
    assert all(set(key) == {"kty", "n", "e", "use", "alg", "kid"} for key in keys)
    assert answer.headers["cache-control"] == "public, max-age=300, stale-while-revalidate=30"
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["etag"].startswith('"')


@pytest.mark.parametrize("path", [JWKS, METADATA, "/openapi.json", "/docs"])
async def test_who_holds_the_document_already_gets_304(server, path):
    """If-None-Match: the tag, weak, in a list, a star (RFC 9110 section 13.1.2)."""
    etag = (await server.http.get(path)).headers["etag"]
    for held in (etag, f"W/{etag}", f'"x", {etag}', "*"):
        answer = await server.http.get(path, headers={"if-none-match": held})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
        assert "max-age" in answer.headers["cache-control"]
    for other in ('"x"', etag.strip('"'), ""):
        assert (await server.http.get(path, headers={"if-none-match": other})).status_code == 200


@pytest.mark.parametrize("path", [JWKS, METADATA, "/docs"])
async def test_head_has_the_headers_of_get_and_no_body(server, path):
    """The length included."""
    got, head = await server.http.get(path), await server.http.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == got.headers["content-length"] == str(len(got.content))
    assert head.headers["etag"] == got.headers["etag"]


async def test_the_key_set_changes_its_tag_with_a_rotation(server, settings, clock):
    """A cache that asks again after a rotation gets the new set."""
    from auth_server.app import ring_policy
    from auth_server.keyring.changes import RingChanges
    from auth_server.keyring.folder import KeysFolder
    from auth_server.keyring.signer import Signer

    before = Signer.open(KeysFolder(settings.keys_dir), ring_policy(settings), issuer=settings.issuer, clock=clock)
    first = before.jwks().etag
    RingChanges(KeysFolder(settings.keys_dir), ring_policy(settings), clock).prepare()
    before.refresh()
    assert before.jwks().etag != first


async def test_the_metadata_offers_only_what_is_there(server):
    """RFC 8414: every address answers, every grant and method works, and nothing else is claimed."""
    metadata = (await server.http.get(METADATA)).json()
    assert metadata["issuer"] == server.settings.issuer
    assert metadata["grant_types_supported"] == ["client_credentials"]
    assert metadata["token_endpoint_auth_methods_supported"] == ["client_secret_basic", "client_secret_post"]
    assert metadata["response_types_supported"] == []
    assert all(is_known(scope) for scope in metadata["scopes_supported"])
    assert not {"authorization_endpoint", "registration_endpoint", "id_token_signing_alg_values_supported"} & set(
        metadata
    )
    for name in ("revocation", "introspection"):
        methods = metadata[f"{name}_endpoint_auth_methods_supported"]
        assert methods == metadata["token_endpoint_auth_methods_supported"]
        address = metadata[f"{name}_endpoint"].removeprefix(server.settings.issuer)
        assert (await server.http.post(address, data={"token": "x"})).status_code == 401
    for name in ("jwks_uri", "service_documentation"):
        path = metadata[name].removeprefix(server.settings.issuer)
        assert (await server.http.get(path)).status_code == 200
    assert (await server.http.post(metadata["token_endpoint"].removeprefix(server.settings.issuer))).status_code == 400


async def test_the_openid_address_serves_the_same_metadata(server):
    """An alias for clients that look there; it claims no OpenID."""
    alias = await server.http.get("/.well-known/openid-configuration")
    assert alias.content == (await server.http.get(METADATA)).content


async def test_every_described_address_answers(server):
    """The OpenAPI document is no wish list."""
    described = (await server.http.get("/openapi.json")).json()
    assert described["openapi"].startswith("3.1")
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            expected = {401} if {"bearer"} in map(set, operation["security"]) else {200, 400}
            expected = {404} if "{list_id}" in path else expected
            assert (await server.http.request(method, path)).status_code in expected


async def test_the_description_says_what_the_admin_api_takes(server):
    """Bodies and parameters, as its handlers read them; summaries are written for callers."""
    paths = (await server.http.get("/openapi.json")).json()["paths"]
    body = paths["/admin/v1/keys/activate"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["properties"]) == {"kid", "force"}
    revocation = paths["/admin/v1/revocations"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert revocation["required"] == ["kind", "value"]
    assert "signing_key" in revocation["properties"]["kind"]["enum"]
    parameters = [each["name"] for each in paths["/admin/v1/usage"]["get"]["parameters"]]
    assert parameters[:2] == ["client", "attribute"]
    for path, operations in paths.items():
        for operation in operations.values():
            assert not {"``", "Raises"} & set(operation["summary"].split()), path
            assert "``" not in operation["summary"], path


async def test_the_page_for_people_loads_nothing_from_elsewhere(server):
    """No script, no foreign address, and a policy that would stop them."""
    page = await server.http.get("/docs")
    assert "<script" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.text.count("http") == page.text.count(server.settings.issuer)


async def test_the_page_for_people_has_every_described_address(server):
    """With the parameters and the scope that each takes."""
    page = (await server.http.get("/docs")).text
    paths = (await server.http.get("/openapi.json")).json()["paths"]
    for path, operations in paths.items():
        for method in operations:
            assert f"<code>{method.upper()} {path}</code>" in page
    for said in ("<code>authorization_details</code>", "scope <code>keys:manage</code>", "<code>by_day</code>"):
        assert said in page


async def test_health_says_live_and_ready(server):
    """Neither may be cached."""
    for path, status in (("/health/live", "live"), ("/health/ready", "ready")):
        answer = await server.http.get(path)
        assert (answer.status_code, answer.json(), answer.headers["cache-control"]) == (
            200,
            {"status": status},
            "no-store",
        )


async def test_the_store_is_not_asked_for_every_look_at_readiness(server, clock):
    """At most once a second, however often an orchestrator asks."""
    from shared.store import connect

    store = connect(server.settings)

    async def pings():
        return (await store.info("commandstats")).get("cmdstat_ping", {"calls": 0})["calls"]

    before = await pings()
    for _ in range(20):
        await server.http.get("/health/ready")
    assert await pings() - before <= 1
    clock.advance(2)
    await server.http.get("/health/ready")
    assert await pings() - before <= 2
    await store.aclose()


async def test_metrics_answer_the_loopback_and_nobody_else(settings, clock):
    """403 for a stranger, with no word about what is there."""
    async with serving(settings, clock) as server:
        await server.token(await server.register())
        metrics = await server.http.get("/metrics")
        assert 'flex_tokens_issued_total{grant_type="client_credentials"}' in metrics.text
    async with serving(settings, clock, client=("203.0.113.9", 1)) as server:
        assert (await server.http.get("/metrics")).status_code == 403


async def test_an_unknown_address_is_404_and_another_method_405(server):
    """Problem JSON, as everywhere but at the token endpoint."""
    assert (await server.http.get("/oauth2/authorize")).status_code == 404
    answer = await server.http.post(JWKS)
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
    assert json.loads(answer.content)["type"] == "urn:flex:error:method_not_allowed"
