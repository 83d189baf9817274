"""FlexClient and AsyncFlexClient against a real socket: what is sent, what is read, what is refused."""

import dataclasses
import json

import pytest

import flex_client
from flex_client import (
    AsyncFlexClient,
    ClientCredentials,
    FieldProblem,
    FlexClient,
    FlexError,
    Prediction,
    Record,
    RecordError,
)
from flex_client.calls import PIECE_BYTES

MODEL = {"version": "1", "sha256": "ab" * 32, "future": 1}
ANSWER = {
    "id": "p-17",
    "attribute": "grit",
    "score": 61.25,
    "raw": 61.25,
    "unit": "pomp_0_100",
    "interval80": [46.0, 76.5],
    "percentile": 64,
    "band": "typical",
    "coverage": 0.94,
    "missing": ["ipip_mood_swings"],
    "warnings": [],
    "model": MODEL,
    "not_for": ["hiring"],
    "a_member_of_the_future": {"x": 1},
}
INSUFFICIENT = {
    "id": None,
    "attribute": "grit",
    "status": "insufficient_data",
    "coverage": 0.2,
    "missing": ["a"],
    "warnings": [],
    "model": MODEL,
    "not_for": [],
}
PROBLEM = {
    "error": "The record has fields that this attribute can't take.",
    "type": "urn:flex:error:invalid_record",
    "title": "Invalid record",
    "status": 422,
    "detail": "The record has fields that this attribute can't take.",
    "instance": "r-1",
    "errors": [{"pointer": "/features/x", "code": "below_minimum", "message": "At least 1.", "feature": "x"}, 7],
}


@pytest.fixture
def client(upstream):
    """A sync client of the test's server."""
    with FlexClient(upstream.url, ClientCredentials(upstream.token_endpoint, "c", "s")) as client:
        yield client


@pytest.fixture
async def async_client(upstream):
    """An async client of the test's server."""
    async with AsyncFlexClient(upstream.url, ClientCredentials(upstream.token_endpoint, "c", "s")) as client:
        yield client


def sent(upstream) -> object:
    """The JSON body of the last call."""
    return json.loads(upstream.calls[-1].body)


def test_prediction_is_typed_and_unknown_members_are_tolerated(upstream, client):
    """A newer server's answer is read by today's client."""
    upstream.answer = lambda _: (200, ANSWER)
    prediction = client.predict("grit", {"ipip_mood_swings": None, "hours": 4.5}, "p-17")
    assert (prediction.score, prediction.interval80, prediction.band) == (61.25, (46.0, 76.5), "typical")
    assert (prediction.status, prediction.missing, prediction.model.version) == ("ok", ("ipip_mood_swings",), "1")
    assert sent(upstream) == {"id": "p-17", "features": {"ipip_mood_swings": None, "hours": 4.5}}
    assert upstream.calls[-1].path == "/v1/attributes/grit/predict"
    with pytest.raises(dataclasses.FrozenInstanceError):
        prediction.score = 99


def test_too_little_data_is_a_status_and_no_score(upstream, client):
    """Below 50 % coverage there is no number to misread."""
    upstream.answer = lambda _: (200, INSUFFICIENT)
    prediction = client.predict("grit", {})
    assert (prediction.status, prediction.score, prediction.interval80) == ("insufficient_data", None, None)
    assert sent(upstream) == {"features": {}}


def test_attribute_id_can_not_leave_its_place_in_the_path(upstream, client):
    """An id with slashes or dots is quoted."""
    upstream.answer = lambda _: (404, {"title": "Not found"})
    with pytest.raises(FlexError):
        client.predict("../../admin?x=1", {})
    assert upstream.calls[-1].path == "/v1/attributes/..%2F..%2Fadmin%3Fx%3D1/predict"


def test_batch_keeps_order_and_gives_errors_in_their_places(upstream, client):
    """A bad record is a RecordError between Predictions."""
    upstream.answer = lambda _: (200, {"results": [ANSWER, {**PROBLEM, "id": "b"}, INSUFFICIENT]})
    results = client.predict_batch("grit", [{"x": 1}, Record({"x": 0}, id="b"), {}])
    assert [type(result) for result in results] == [Prediction, RecordError, Prediction]
    assert (results[1].id, results[1].status) == ("b", 422)
    assert results[1].errors == (FieldProblem("/features/x", "below_minimum", "At least 1.", "x"),)
    assert sent(upstream) == {"records": [{"features": {"x": 1}}, {"id": "b", "features": {"x": 0}}, {"features": {}}]}


def test_batch_with_a_result_too_few_is_refused(upstream, client):
    """A result must never be taken for another record's."""
    upstream.answer = lambda _: (200, {"results": [ANSWER]})
    with pytest.raises(FlexError, match="Unexpected answer"):
        client.predict_batch("grit", [{}, {}])


def echo_lines(seen):
    """Answer each NDJSON line with its own id."""
    lines = [json.loads(line) for line in seen.body.splitlines()]
    return 200, b"".join(json.dumps({**ANSWER, "id": line["id"]}).encode() + b"\n" for line in lines)


def test_stream_takes_any_number_in_small_pieces_and_keeps_order(upstream, client):
    """5,000 records travel as NDJSON requests of bounded size."""
    upstream.answer = echo_lines
    records = (Record({"some_feature_of_the_record": float(n)}, id=str(n)) for n in range(5000))
    assert [result.id for result in client.stream("grit", records)] == [str(n) for n in range(5000)]
    assert len(upstream.calls) > 4
    assert max(len(seen.body) for seen in upstream.calls) <= PIECE_BYTES + 200
    assert {seen.headers["content-type"] for seen in upstream.calls} == {"application/x-ndjson"}


def test_stream_reads_its_records_only_as_they_are_needed(upstream, client):
    """An endless source is fine."""

    def endless():
        n = 0
        while True:
            n += 1
            yield Record({"x": 1.0}, id=str(n))

    upstream.answer = echo_lines
    stream = client.stream("grit", endless())
    assert [next(stream).id for _ in range(3)] == ["1", "2", "3"]
    assert len(upstream.calls) == 1


async def test_async_stream_survives_a_401_in_the_middle(upstream, async_client):
    """Each piece can be sent again, so a token that is refused half-way costs nothing."""
    upstream.answer = echo_lines
    seen = []
    async for result in async_client.stream("grit", [Record({"x": 1.0}, id=str(n)) for n in range(2500)]):
        seen.append(result.id)
        if len(seen) == 1:
            upstream.refused = {"token-1"}
    assert seen == [str(n) for n in range(2500)]
    assert len(upstream.token_requests) == 2


def test_explanation_is_typed(upstream, client):
    """Contributions, reasons and the answer that would help most."""
    upstream.answer = lambda _: (
        200,
        {
            **ANSWER,
            "points_of": "raw",
            "base_value": 54.0,
            "contributions": [{"feature": "x", "label": "X", "value": None, "points": 7.25}],
            "reasons": ["Much higher because X."],
            "would_narrow_most": {"feature": "y", "label": "Y", "message": "Y would help.", "narrows_by": 1.5},
        },
    )
    explanation = client.explain("grit", {"x": None})
    assert explanation.base_value + sum(each.points for each in explanation.contributions) == explanation.raw
    assert explanation.reasons == ("Much higher because X.",)
    assert explanation.would_narrow_most.message == "Y would help."
    upstream.answer = lambda _: (200, {**INSUFFICIENT, "would_narrow_most": None})
    assert client.explain("grit", {}).contributions == ()


async def test_lists_descriptions_and_profiles_are_typed(upstream, async_client):
    """The remaining calls, through the async client."""
    upstream.answer = lambda _: (
        200,
        {"attributes": [{"id": "grit", "title": "Grit", "version": "1", "endpoints": {"predict": "/p"}}]},
    )
    (summary,) = await async_client.attributes()
    assert (summary.id, summary.endpoints) == ("grit", {"predict": "/p"})
    upstream.answer = lambda _: (
        200,
        {"id": "grit", "title": "Grit", "version": "1", "card": "# Grit", "schema": {"type": "object"}, "example": {}},
    )
    assert (await async_client.attribute("grit")).card == "# Grit"
    upstream.answer = lambda _: (200, {"id": None, "attributes": [ANSWER, {"attribute": "calm", **PROBLEM}]})
    profile = await async_client.profile({"x": 1})
    assert [type(result) for result in profile.attributes] == [Prediction, RecordError]
    assert [result.attribute for result in profile.attributes] == ["grit", "calm"]


def test_refusal_has_everything_the_server_said(upstream, client):
    """Status, title, detail, request id, wrong fields and Retry-After."""
    upstream.answer = lambda _: (422, PROBLEM)
    with pytest.raises(
        FlexError, match=r"422 Invalid record: The record has fields.*/features/x: At least 1"
    ) as caught:
        client.predict("grit", {"x": 0})
    assert (caught.value.status, caught.value.request_id) == (422, "r-1")
    assert caught.value.errors == (FieldProblem("/features/x", "below_minimum", "At least 1.", "x"),)
    upstream.answer = lambda _: (503, {"title": "Overloaded"})
    upstream.extra_headers = {"Retry-After": "3"}
    with pytest.raises(FlexError) as caught:
        client.predict("grit", {})
    assert (caught.value.status, caught.value.retry_after_s) == (503, 3.0)


@pytest.mark.parametrize("answer", [b"", b"<html>", b"[1]", b"[" * 100_000, {}, {**ANSWER, "coverage": "much"}])
@pytest.mark.parametrize("status", [200, 500])
def test_any_nonsense_from_the_server_is_a_flex_error(upstream, client, answer, status):
    """A proxy's error page or a wrong shape is never a KeyError."""
    upstream.answer = lambda _: (status, answer)
    with pytest.raises(FlexError) as caught:
        client.predict("grit", {})
    assert caught.value.status == status


async def test_no_answer_is_a_flex_error_without_status(upstream, async_client):
    """Nobody listens there: sync and async say so in the same way."""
    auth = ClientCredentials(upstream.token_endpoint, "c", "s")
    with FlexClient("http://127.0.0.1:1", auth) as client, pytest.raises(FlexError) as caught:
        client.attributes()
    assert caught.value.status is None
    async with AsyncFlexClient("http://127.0.0.1:1", auth) as nowhere:
        with pytest.raises(FlexError, match="No answer"):
            await nowhere.attributes()


def test_nan_is_refused_before_it_is_sent(upstream, client):
    """A missing answer is None; NaN is not JSON."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        client.predict("grit", {"x": float("nan")})
    assert upstream.seen == []


def test_proxy_of_the_environment_is_not_asked_for_this_machine(upstream, monkeypatch):
    """A development server works behind a company's proxy settings; other hosts do go through the proxy."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    upstream.answer = lambda _: (200, {"attributes": []})
    with FlexClient(upstream.url, ClientCredentials(upstream.token_endpoint, "c", "s")) as client:
        assert client.attributes() == []
    auth = ClientCredentials(upstream.token_endpoint, "c", "s")
    with FlexClient("http://models.example", auth) as client, pytest.raises(FlexError, match="No answer"):
        client.attributes()


def test_many_calls_share_one_connection(upstream, client):
    """A new connection for each call would cost more than the call."""
    upstream.answer = lambda _: (200, ANSWER)
    for _ in range(3):
        client.predict("grit", {})
    (pool,) = [client._http._transport._pool]
    assert len(pool.connections) == 1


def test_demo_file_is_enough_for_a_client(upstream, tmp_path):
    """The model server's address is the resource that the file names, unless the caller knows better."""
    path = tmp_path / "demo-client.json"
    members = {"client_id": "c", "client_secret": "s", "token_endpoint": upstream.token_endpoint}
    path.write_text(json.dumps(members))
    with pytest.raises(ValueError, match="names no resource"):
        FlexClient.from_demo(path)
    path.write_text(json.dumps({**members, "resource": upstream.url}))
    upstream.answer = lambda _: (200, {"attributes": []})
    for client in (FlexClient.from_demo(path), FlexClient.from_demo(path, upstream.url + "/")):
        with client:
            assert client.attributes() == []


def test_public_names_are_what_they_say():
    """Everything exported exists, and the package needs httpx and the standard library only."""
    assert sorted(flex_client.__all__) == flex_client.__all__
    assert all(hasattr(flex_client, name) for name in flex_client.__all__)
