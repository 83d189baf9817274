"""The HTTP edge: ids, headers, errors and bounds on every answer."""

import asyncio
import json

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.routing import Route, Router

from shared import http
from shared.errors import AppError, FieldError
from shared.events import Event
from shared.http import HotRoute, HttpEdge


async def not_found(scope, receive, send):
    """What the router does where there is nothing."""
    raise AppError("not_found")


def client(endpoint, **options):
    """An in-process client of an edge whose hot path POST /hot is ``endpoint``."""

    async def hello(request):
        return PlainTextResponse("hello")

    router = Router([Route("/hello", hello, methods=["GET"])], default=not_found, redirect_slashes=False)
    edge = HttpEdge(router, hot={("POST", "/hot"): HotRoute(endpoint, "/hot")}, **options)
    return httpx.AsyncClient(transport=httpx.ASGITransport(edge, raise_app_exceptions=False), base_url="http://test")


async def echo(scope, receive, send):
    """Answer with the length of the body."""
    body = await http.read_body(scope, receive, limit=100, timeout_s=0.2)
    await http.send_json(send, 200, b'{"length":%d}' % len(body))


def raising(error):
    """An endpoint that fails."""

    async def endpoint(scope, receive, send):
        raise error

    return endpoint


async def test_every_answer_has_an_id_and_is_not_sniffed():
    """Hot and routed answers alike; ids differ."""
    async with client(echo) as caller:
        answers = [await caller.post("/hot", content=b"x"), await caller.get("/hello")]
    ids = {answer.headers["x-request-id"] for answer in answers}
    assert len(ids) == 2
    assert all(answer.headers["x-content-type-options"] == "nosniff" for answer in answers)


async def test_a_hot_answer_may_not_be_cached():
    """Scores and tokens are nobody's to keep."""
    async with client(echo) as caller:
        assert (await caller.post("/hot")).headers["cache-control"] == "no-store"


async def test_an_error_has_all_members_of_the_contract_and_one_event(event_log):
    """RFC 9457 members, the protocol's ``error``, and the id that the log knows."""
    wrong = FieldError("/features/x", "not_a_number", "Send a number.", feature="x")
    async with client(raising(AppError("invalid_record", errors=[wrong], reason="secret reason"))) as caller:
        answer = await caller.post("/hot")
    body = answer.json()
    assert answer.status_code == body["status"] == 422
    assert answer.headers["content-type"] == "application/json"
    assert set(body) == {"error", "type", "title", "status", "detail", "instance", "errors"}
    assert body["errors"] == [
        {"pointer": "/features/x", "code": "not_a_number", "message": "Send a number.", "feature": "x"}
    ]
    assert body["instance"] == answer.headers["x-request-id"]
    assert "secret reason" not in answer.text
    (line,) = event_log.named(Event.HTTP_REQUEST)
    assert (line["status"], line["route"], line["request_id"]) == (422, "/hot", body["instance"])


async def test_a_defect_is_an_opaque_500_whose_place_is_in_the_log(event_log):
    """Never a traceback, never the exception's text."""
    async with client(raising(RuntimeError("the password is hunter2"))) as caller:
        answer = await caller.post("/hot")
    assert answer.status_code == 500
    assert "hunter2" not in answer.text + event_log.text
    (line,) = event_log.named(Event.INTERNAL_ERROR)
    assert line["where"].startswith("test_http.py:")


@pytest.mark.parametrize(
    ("error", "challenge"),
    [
        (AppError("unauthenticated"), "Bearer m=1"),
        (
            AppError("invalid_token"),
            'Bearer error="invalid_token", error_description="The access token is not valid for this service.", m=1',
        ),
        (
            AppError("insufficient_scope", scopes=["explain:grit", "predict:grit"]),
            'Bearer error="insufficient_scope", error_description="The token lacks a scope that this call needs.", scope="explain:grit predict:grit", m=1',
        ),
    ],
)
async def test_bearer_refusals_carry_their_challenge(error, challenge):
    """RFC 6750 section 3: no error code without a token; 403 lists every scope the call needs."""
    async with client(raising(error), challenge="m=1") as caller:
        answer = await caller.post("/hot")
    assert answer.headers["www-authenticate"] == challenge


@pytest.mark.parametrize("code", ["keys_unavailable", "overloaded", "store_unavailable"])
async def test_every_503_says_when_to_come_back(code):
    """Retry-After is there even when the code that raised forgot it."""
    async with client(raising(AppError(code))) as caller:
        answer = await caller.post("/hot")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


async def test_unknown_paths_and_wrong_methods_are_json_too():
    """404 and 405 in the same form, 405 with Allow."""
    async with client(echo) as caller:
        missing, wrong = await caller.get("/nowhere"), await caller.delete("/hello")
    assert (missing.status_code, missing.json()["status"]) == (404, 404)
    assert wrong.status_code == 405
    assert "GET" in wrong.headers["allow"]


async def test_a_body_within_the_limit_is_read_and_one_byte_more_is_refused():
    """The bound is exact, and the connection closes after a cut body."""
    async with client(echo) as caller:
        assert (await caller.post("/hot", content=b"x" * 100)).json() == {"length": 100}
        refused = await caller.post("/hot", content=b"x" * 101)
    assert (refused.status_code, refused.headers["connection"]) == (413, "close")


async def test_a_streamed_body_is_cut_at_the_limit_without_being_gathered():
    """A lying or absent length does not help: reading stops at the bound."""
    given = 0

    async def chunks():
        nonlocal given
        for _ in range(1000):
            given += 50
            yield b"x" * 50

    async with client(echo) as caller:
        refused = await caller.post("/hot", content=chunks())
    assert refused.status_code == 413
    assert given <= 300


async def test_a_declared_length_beyond_the_limit_is_refused_before_reading():
    """413 comes before the body does."""
    messages = [{"type": "http.request", "body": b"x", "more_body": True}]

    async def receive():
        return messages.pop()

    scope = {"type": "http", "headers": [(b"content-length", b"5000000")]}
    with pytest.raises(AppError) as refused:
        await http.read_body(scope, receive, limit=100)
    assert refused.value.code == "payload_too_large"


async def test_a_body_that_stops_arriving_times_out():
    """A slow sender gets 408, not a worker for ever."""
    first = [{"type": "http.request", "body": b"x", "more_body": True}]

    async def receive():
        if first:
            return first.pop()
        await asyncio.sleep(3600)

    with pytest.raises(AppError) as refused:
        await http.read_body({"type": "http", "headers": []}, receive, limit=100, timeout_s=0.01)
    assert refused.value.code == "request_timeout"


async def test_a_failure_after_the_answer_began_closes_the_connection(event_log):
    """Half an answer can't be turned into an error."""

    async def endpoint(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("late")

    edge = HttpEdge(not_found, hot={("POST", "/hot"): HotRoute(endpoint, "/hot")})
    sent = []

    async def send(message):
        sent.append(message)

    with pytest.raises(RuntimeError):
        await edge({"type": "http", "method": "POST", "path": "/hot", "headers": []}, None, send)
    assert len(sent) == 1
    assert event_log.named(Event.INTERNAL_ERROR)


def test_problem_bodies_are_json_for_every_code():
    """No row of the catalogue breaks the form."""
    from shared.error_catalogue import CATALOGUE

    for code in CATALOGUE:
        body = json.loads(http.problem_body(AppError(code), "r-1"))
        assert body["status"] >= 400
        assert body["error"] == body["detail"]


async def test_the_access_line_can_be_switched_off(event_log):
    """For those whose proxy writes it already."""
    async with client(echo, log_access=False) as caller:
        await caller.post("/hot")
    assert event_log.named(Event.HTTP_REQUEST) == []


@pytest.mark.parametrize(("staleness_s", "shown"), [(900.01, "901"), (float("inf"), "unknown")])
async def test_an_answer_for_want_of_revocations_says_how_old_they_are(staleness_s, shown):
    """Rounded up, so that it is never within the bound; no other answer has the header."""
    async with client(raising(AppError("revocations_stale", retry_after_s=5, staleness_s=staleness_s))) as caller:
        answer = await caller.post("/hot")
        other = await caller.get("/hello")
    assert (answer.status_code, answer.headers["flex-revocation-staleness"]) == (503, shown)
    assert "flex-revocation-staleness" not in other.headers
