"""Every row of the contract's error table, with real signed tokens, against the whole application."""

import json
import string

import pytest

from model_server.app import build_app
from shared import base64url
from shared.errors import AppError
from shared.events import Event
from tests.model_server.serving import BATCH, EXPLAIN, PREDICT, Api
from tests.tokens import AUDIENCE, NOW, Issuer, compact

METADATA = f'resource_metadata="{AUDIENCE}/.well-known/oauth-protected-resource"'
ADDRESSES = [
    ("GET", "/v1/attributes"),
    ("GET", "/v1/attributes/grit"),
    ("GET", "/v1/attributes/no_such"),
    ("POST", PREDICT),
    ("POST", BATCH),
    ("POST", EXPLAIN),
    ("POST", "/v1/profile"),
    ("DELETE", PREDICT),
    ("GET", "/v1/nothing"),
    ("POST", "/nothing"),
    ("GET", "/v1/attributes/"),
]


def check_problem(answer, code: str, status: int) -> dict:
    """Hold an answer against the form that all errors have."""
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    problem = answer.json()
    assert list(problem) == ["error", "type", "title", "status", "detail", "instance", "errors"]
    assert problem["type"] == f"urn:flex:error:{code}"
    assert problem["status"] == status
    assert problem["error"] == problem["detail"] != ""
    assert problem["instance"] == answer.headers["x-request-id"]
    return problem


@pytest.mark.parametrize(("method", "path"), ADDRESSES)
async def test_no_token_is_401_without_an_error_code(api, method, path):
    """Everything but the open addresses needs a token, even to learn that there is nothing (RFC 6750 section 3.1)."""
    answer = await api.http.request(method, path)
    check_problem(answer, "unauthenticated", 401)
    assert answer.headers["www-authenticate"] == f"Bearer {METADATA}"


BAD_TOKENS = {
    "malformed": lambda _issuer, _: b"abc",
    "wrong_signature": lambda issuer, other: Issuer(other, issuer.kid).token(),
    "unknown_kid": lambda issuer, _: issuer.token({"kid": "other"}),
    "wrong_alg": lambda issuer, _: issuer.token({"alg": "none"}),
    "wrong_typ": lambda issuer, _: issuer.token({"typ": "JWT"}),
    "wrong_iss": lambda issuer, _: issuer.token(iss="http://other"),
    "wrong_aud": lambda issuer, _: issuer.token(aud="http://other"),
    "expired": lambda issuer, _: issuer.token(exp=NOW - 31),
    "not_yet_valid": lambda issuer, _: issuer.token(nbf=NOW + 31),
    "too_long": lambda issuer, _: issuer.token(pad="x" * 4000),
    "utf16": lambda issuer, _: issuer.sign(compact(issuer.header()), json.dumps(issuer.claims()).encode("utf-16")),
}


@pytest.mark.parametrize("bad", BAD_TOKENS)
@pytest.mark.parametrize(("method", "path"), [("POST", PREDICT), ("GET", "/v1/nothing")])
async def test_every_bad_token_gets_the_same_401(api, other_rsa_key, bad, method, path, event_log):
    """One description for all; the precise reason is in the event only; not a byte of the token comes back."""
    raw_token = BAD_TOKENS[bad](api.issuer, other_rsa_key)
    answer = await api.http.request(method, path, headers={"authorization": "Bearer " + raw_token.decode()})
    problem = check_problem(answer, "invalid_token", 401)
    description = AppError("invalid_token").detail
    assert problem["detail"] == description
    assert answer.headers["www-authenticate"] == (
        f'Bearer error="invalid_token", error_description="{description}", {METADATA}'
    )
    (event,) = event_log.named(Event.BEARER_REFUSED)
    assert event["reason"] not in {"", "invalid_token"}
    assert event["request_id"] == problem["instance"]
    assert raw_token.decode()[-30:] not in event_log.text + answer.text or len(raw_token) < 30


async def test_a_token_without_the_scope_is_403_with_the_scope(api):
    """Visible, but not for this action: every scope that the call needs is named."""
    for path, scope, needed in ((PREDICT, "explain:grit", "predict:grit"), (EXPLAIN, "predict:grit", "explain:grit")):
        answer = await api.post(path, api.example(), scope)
        check_problem(answer, "insufficient_scope", 403)
        assert answer.headers["www-authenticate"].startswith('Bearer error="insufficient_scope", error_description=')
        assert f'scope="{needed}"' in answer.headers["www-authenticate"]
        assert METADATA in answer.headers["www-authenticate"]
    assert (await api.post(BATCH, {"records": [api.example()]}, "explain:grit")).status_code == 403


@pytest.mark.parametrize("action", ["", "/predict", "/predict/batch", "/explain"])
async def test_unknown_and_invisible_attributes_are_the_same_404(api, action):
    """The answers differ in nothing but the request id."""
    seen = []
    for attribute_id in ("no_such", "empathy"):
        path = f"/v1/attributes/{attribute_id}{action}"
        answer = await (api.post(path, api.example("empathy")) if action else api.get(path))
        problem = check_problem(answer, "not_found", 404)
        seen.append((problem | {"instance": ""}, sorted(set(answer.headers) - {"x-request-id"})))
    assert seen[0] == seen[1]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/v1/attributes", "GET, HEAD"),
        ("GET", PREDICT, "POST"),
        ("PUT", BATCH, "POST"),
        ("GET", "/v1/profile", "POST"),
        ("POST", "/health/live", "GET, HEAD"),
    ],
)
async def test_a_wrong_method_is_405_and_names_the_right_ones(api, method, path, allowed):
    """RFC 9110 section 15.5.6."""
    answer = await api.http.request(method, path, headers=api.authorization("predict:grit"))
    check_problem(answer, "method_not_allowed", 405)
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize("path", [PREDICT, EXPLAIN, "/v1/profile"])
async def test_a_body_over_64_kib_is_413(api, path):
    """One byte too many is refused, before it is parsed; the limit itself is not."""
    fits = json.dumps(api.example()).encode().ljust(64 * 1024)
    assert (await api.post(path, fits)).status_code == 200
    answer = await api.post(path, fits + b" ")
    check_problem(answer, "payload_too_large", 413)
    assert answer.headers["connection"] == "close"


async def test_a_batch_over_1_mib_is_413(api):
    """The same for JSON batches, at their own limit."""
    fits = json.dumps({"records": [api.example()]}).encode().ljust(1024 * 1024)
    assert (await api.post(BATCH, fits)).status_code == 200
    check_problem(await api.post(BATCH, fits + b" "), "payload_too_large", 413)


BAD_JSON = {
    "nothing": b"",
    "not JSON": b"features=1",
    "cut": b'{"features": {',
    "two documents": b"{}{}",
    "NaN": b'{"features": {"ipip_always_prepared": NaN}}',
    "Infinity": b'{"features": {"ipip_always_prepared": -Infinity}}',
    "UTF-16": '{"features": {}}'.encode("utf-16"),
    "Latin-1": '{"id": "é", "features": {}}'.encode("latin-1"),
    "too deep": b'{"features": ' + b'{"a":' * 500 + b"1" + b"}" * 500 + b"}",
    "very deep": b"[" * 60_000,
}


@pytest.mark.parametrize("bad", BAD_JSON)
@pytest.mark.parametrize("path", [PREDICT, BATCH, EXPLAIN, "/v1/profile"])
async def test_what_is_not_json_is_400(api, path, bad):
    """Cut, foreign, too deep, NaN and infinities: 400, never 500, nothing echoed."""
    check_problem(await api.post(path, BAD_JSON[bad]), "malformed_json", 400)


BAD_RECORDS = {
    "a list": ([], ""),
    "no features": ({}, "/features"),
    "features a list": ({"features": []}, "/features"),
    "a string": ({"features": {"ipip_always_prepared": "4"}}, "/features/ipip_always_prepared"),
    "true": ({"features": {"ipip_always_prepared": True}}, "/features/ipip_always_prepared"),
    "a list inside": ({"features": {"ipip_always_prepared": [4]}}, "/features/ipip_always_prepared"),
    "out of range": ({"features": {"ipip_always_prepared": 6}}, "/features/ipip_always_prepared"),
    "id a number": ({"id": 7, "features": {}}, "/id"),
    "an unknown member": ({"features": {}, "extra": 1}, "/extra"),
}


@pytest.mark.parametrize("bad", BAD_RECORDS)
@pytest.mark.parametrize("path", [PREDICT, EXPLAIN])
async def test_a_wrong_record_is_422_with_a_pointer(api, path, bad):
    """Wrong types and ranges: one entry for each field, saying where, why and what to do."""
    body, pointer = BAD_RECORDS[bad]
    problem = check_problem(await api.post(path, body), "invalid_record", 422)
    (error,) = problem["errors"]
    assert error["pointer"] == pointer
    assert error["code"]
    assert error["message"]
    assert pointer.startswith("/features/") == ("feature" in error)


async def test_numbers_beyond_float64_are_422(api):
    """1e400 is JSON, but no number here."""
    problem = check_problem(
        await api.post(PREDICT, b'{"features":{"ipip_always_prepared":1e400}}'), "invalid_record", 422
    )
    assert problem["errors"][0]["pointer"] == "/features/ipip_always_prepared"


async def test_all_wrong_fields_are_told_at_once(api):
    """Nobody has to send twice to learn both."""
    names = list(api.example()["features"])[:3]
    problem = (await api.post(PREDICT, {"features": dict.fromkeys(names, "x")})).json()
    assert [error["feature"] for error in problem["errors"]] == names


@pytest.mark.parametrize(
    "headers",
    [
        {"content_type": "text/plain"},
        {"content_type": "application/x-www-form-urlencoded"},
        {"content_type": "application/json; charset=utf-16"},
        {"content_type": "multipart/form-data; boundary=x"},
        {"content_encoding": "gzip"},
        {"content_encoding": "br, identity"},
    ],
)
@pytest.mark.parametrize("path", [PREDICT, BATCH, EXPLAIN, "/v1/profile"])
async def test_other_media_types_are_415(api, path, headers):
    """Forms, other charsets and compressed bodies are not inflated, guessed or parsed."""
    check_problem(await api.post(path, api.example(), **headers), "unsupported_media_type", 415)


async def test_ndjson_is_for_batches_only(api):
    """One record is JSON."""
    answer = await api.post(PREDICT, api.example(), content_type="application/x-ndjson")
    assert answer.status_code == 415


async def test_without_any_keys_the_answer_is_503_with_retry_after(settings, attributes, issuer, clock):
    """The key set can't be fetched and nothing good is held: never 401."""

    class NoKeys:
        def get(self, _kid):
            raise AppError("keys_unavailable", retry_after_s=5)

    import httpx

    app = build_app(settings, attributes, NoKeys(), clock=clock)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=AUDIENCE) as http:
        api = Api(http, issuer, attributes)
        for answer in (await api.post(PREDICT, api.example()), await api.get("/v1/nothing")):
            check_problem(answer, "keys_unavailable", 503)
            assert answer.headers["retry-after"] == "5"
            assert "www-authenticate" not in answer.headers
        # A token that is malformed is so without any key.
        assert (await http.get("/v1/attributes", headers={"authorization": "Bearer x"})).status_code == 401


async def test_a_long_token_is_401_and_long_headers_are_431_on_the_wire(served):
    """4 KiB of token and 16 KiB of headers, before anything is parsed."""
    answer = await served.http.get("/v1/attributes", headers={"authorization": "Bearer " + "a" * 5000})
    check_problem(answer, "invalid_token", 401)
    answer = await served.http.get("/v1/attributes", headers={"authorization": "Bearer " + "a" * 17_000})
    assert answer.status_code == 431


async def test_a_body_that_lies_about_its_length_is_413_on_the_wire(served):
    """Refused by the declared length; and a chunked one at the first byte too many."""

    async def chunks():
        for _ in range(70):
            yield b" " * 1024

    headers = served.authorization("predict:grit") | {"content-type": "application/json"}
    assert (await served.http.post(PREDICT, content=b" " * 70_000, headers=headers)).status_code == 413
    assert (await served.http.post(PREDICT, content=chunks(), headers=headers)).status_code == 413


async def test_no_secret_and_no_input_is_ever_logged(api, event_log):
    """Neither tokens nor records stand in any line, whatever went wrong."""
    marked = {"id": "marked-input", "features": {"marked_name": "marked-value"}}
    await api.post(PREDICT, marked)
    await api.post(PREDICT, marked, "explain:grit")
    await api.post("/v1/profile", marked)
    assert "marked" not in event_log.text
    assert not any(part.decode() in event_log.text for part in api.issuer.token().split(b"."))


def test_the_alphabet_of_bad_tokens_is_no_accident():
    """A token part holds base64url only, so a header can't be split by what is in a token."""
    assert set(base64url.encode(bytes(range(256))).decode()) <= set(string.ascii_letters + string.digits + "-_")
