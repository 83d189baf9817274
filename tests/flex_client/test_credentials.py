"""ClientCredentials against a real socket: fetching, refreshing, sharing and retrying."""

import asyncio
import base64
import json
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qs

import httpx
import pytest

from flex_client import ClientCredentials, FlexError, TokenError


def make(upstream, clock=None, **options) -> ClientCredentials:
    """Credentials of the test's server, without jitter."""
    times = {"now": clock} if clock is not None else {}
    return ClientCredentials(upstream.token_endpoint, "c1", "s3cret", jitter=lambda: 0.5, **times, **options)


def bearer(upstream, index=-1) -> str:
    """The token of one call that the server saw."""
    return upstream.calls[index].headers["authorization"]


def test_first_call_fetches_one_token_and_later_calls_reuse_it(upstream, clock):
    """One token request serves many calls."""
    with httpx.Client(auth=make(upstream, clock)) as http:
        for _ in range(3):
            assert http.get(f"{upstream.url}/x").status_code == 200
    assert len(upstream.token_requests) == 1
    assert {seen.headers["authorization"] for seen in upstream.calls} == {"Bearer token-1"}


def test_token_request_is_form_encoded_client_secret_basic(upstream):
    """Id and secret are form-encoded before they are joined (RFC 6749 section 2.3.1)."""
    auth = ClientCredentials(
        upstream.token_endpoint, "a:b c", "p%ä+/", scope="predict:grit explain:grit", resource="https://models.example"
    )
    assert auth.access_token() == "token-1"
    (seen,) = upstream.token_requests
    assert base64.b64decode(seen.headers["authorization"].removeprefix("Basic ")) == b"a%3Ab+c:p%25%C3%A4%2B%2F"
    assert parse_qs(seen.body.decode()) == {
        "grant_type": ["client_credentials"],
        "scope": ["predict:grit explain:grit"],
        "resource": ["https://models.example"],
    }


def test_token_is_refreshed_at_four_fifths_of_its_life_and_not_before(upstream, clock):
    """900 s of life: the old token at 719 s, a new one at 721 s."""
    auth = make(upstream, clock)
    assert auth.access_token() == "token-1"
    clock.advance(719)
    assert auth.access_token() == "token-1"
    clock.advance(2)
    assert auth.access_token() == "token-2"


def test_jitter_spreads_the_refresh_between_three_quarters_and_85_percent(upstream, clock):
    """A fleet that started together does not refresh together."""
    for share, jitter in ((0.75, 0.0), (0.85, 1.0)):
        auth = ClientCredentials(upstream.token_endpoint, "c", "s", now=clock, jitter=lambda jitter=jitter: jitter)
        first = auth.access_token()
        clock.advance(share * 900 - 1)
        assert auth.access_token() == first
        clock.advance(2)
        assert auth.access_token() != first


def test_failed_early_refresh_goes_on_with_the_good_token_and_pauses(upstream, clock):
    """A refusing token endpoint disturbs nobody while the token lives, and is asked again only after a pause."""
    auth = make(upstream, clock)
    auth.access_token()
    upstream.token_status, upstream.token_error = 503, {"error": "temporarily_unavailable"}
    clock.advance(800)
    assert [auth.access_token() for _ in range(5)] == ["token-1"] * 5
    assert len(upstream.token_requests) == 2
    upstream.token_status = 200
    clock.advance(46)
    assert auth.access_token() == "token-2"


async def test_hanging_endpoint_costs_an_early_refresh_little_and_no_call(upstream, clock):
    """Async too: the old token is used after a short wait."""
    auth = make(upstream, clock, timeout_s=0.05)
    assert await auth.access_token_async() == "token-1"
    upstream.hang = True
    clock.advance(800)
    assert await auth.access_token_async() == "token-1"
    assert await auth.access_token_async() == "token-1"
    assert len(upstream.token_requests) == 2


def test_expired_token_is_not_used_when_no_new_one_can_be_had(upstream, clock):
    """After the end of its life there is an error, not a call with a dead token."""
    with httpx.Client(auth=make(upstream, clock)) as http:
        http.get(f"{upstream.url}/x")
        upstream.token_status, upstream.token_error = 503, {"error": "temporarily_unavailable"}
        clock.advance(901)
        with pytest.raises(TokenError):
            http.get(f"{upstream.url}/x")
    assert len(upstream.calls) == 1


def test_missing_life_counts_as_one_minute(upstream, clock):
    """RFC 6749 only recommends expires_in; without it the token is not trusted for long."""
    upstream.life_s = None
    auth = make(upstream, clock)
    auth.access_token()
    clock.advance(61)
    assert auth.access_token() == "token-2"


def test_many_threads_share_one_flight(upstream):
    """16 threads that start together cause one token request."""
    upstream.hang = True
    auth = make(upstream)
    with ThreadPoolExecutor(16) as pool:
        waiting = [pool.submit(auth.access_token) for _ in range(16)]
        assert upstream.token_asked.wait(5)
        upstream.go_on.set()
        assert {each.result(5) for each in waiting} == {"token-1"}
    assert len(upstream.token_requests) == 1


async def test_many_tasks_share_one_flight(upstream):
    """50 tasks that start together cause one token request."""
    auth = make(upstream)
    async with httpx.AsyncClient(auth=auth) as http:
        answers = await asyncio.gather(*(http.get(f"{upstream.url}/x") for _ in range(50)))
    assert {answer.status_code for answer in answers} == {200}
    assert len(upstream.token_requests) == 1


async def test_threads_and_tasks_of_several_loops_share_one_flight(upstream):
    """One object serves sync threads, this loop and another loop at once."""
    upstream.hang = True
    auth = make(upstream)
    task = asyncio.create_task(auth.access_token_async())
    await asyncio.to_thread(upstream.token_asked.wait, 5)
    others = [
        asyncio.create_task(asyncio.to_thread(auth.access_token)),
        asyncio.create_task(asyncio.to_thread(asyncio.run, auth.access_token_async())),
    ]
    await asyncio.sleep(0.02)
    upstream.go_on.set()
    assert await asyncio.gather(task, *others) == ["token-1"] * 3
    assert len(upstream.token_requests) == 1


async def test_cancelled_leader_leaves_the_flight_to_a_follower(upstream):
    """The task that was fetching is cancelled; the one that waited fetches itself."""
    upstream.hang = True
    auth = make(upstream)
    leader = asyncio.create_task(auth.access_token_async())
    await asyncio.to_thread(upstream.token_asked.wait, 5)
    follower = asyncio.create_task(auth.access_token_async())
    await asyncio.sleep(0)
    leader.cancel()
    upstream.hang = False
    assert await follower in {"token-1", "token-2"}
    with pytest.raises(asyncio.CancelledError):
        await leader


async def test_cancelled_follower_takes_nobody_with_it(upstream):
    """Who stops waiting does not end the fetch for the others."""
    upstream.hang = True
    auth = make(upstream)
    leader = asyncio.create_task(auth.access_token_async())
    await asyncio.to_thread(upstream.token_asked.wait, 5)
    follower = asyncio.create_task(auth.access_token_async())
    await asyncio.sleep(0)
    follower.cancel()
    await asyncio.sleep(0)
    upstream.go_on.set()
    assert await leader == "token-1"
    assert follower.cancelled()


def test_a_401_is_retried_once_with_a_new_token(upstream):
    """The caller sees the answer to the second try."""
    upstream.refused = {"token-1"}
    with httpx.Client(auth=make(upstream)) as http:
        assert http.post(f"{upstream.url}/x", json={"a": 1}).status_code == 200
    assert [seen.headers["authorization"] for seen in upstream.calls] == ["Bearer token-1", "Bearer token-2"]
    assert [json.loads(seen.body) for seen in upstream.calls] == [{"a": 1}] * 2


async def test_a_401_is_retried_once_by_the_async_client_too(upstream):
    """The same in an event loop."""
    upstream.refused = {"token-1"}
    async with httpx.AsyncClient(auth=make(upstream)) as http:
        assert (await http.get(f"{upstream.url}/x")).status_code == 200
    assert len(upstream.calls) == 2


def test_a_second_401_stands(upstream, clock):
    """Never more than one retry, and a resource that refuses everything causes no storm of token requests."""
    upstream.refused = {"*"}
    with httpx.Client(auth=make(upstream, clock)) as http:
        assert http.get(f"{upstream.url}/x").status_code == 401
        assert len(upstream.calls) == 2
        assert [http.get(f"{upstream.url}/x").status_code for _ in range(5)] == [401] * 5
        assert len(upstream.token_requests) == 2
        clock.advance(1.1)
        http.get(f"{upstream.url}/x")
    assert len(upstream.token_requests) == 3


def test_a_401_uses_the_token_that_another_caller_already_refreshed(upstream):
    """Two calls are refused with the same token: one new token serves both retries."""
    auth = make(upstream)
    first, second = (httpx.Request("GET", f"{upstream.url}/x") for _ in range(2))
    flows = [auth.sync_auth_flow(first), auth.sync_auth_flow(second)]
    signed = [next(flow) for flow in flows]
    assert [request.headers["authorization"] for request in signed] == ["Bearer token-1"] * 2
    repeats = [flow.send(httpx.Response(401, request=request)) for flow, request in zip(flows, signed, strict=True)]
    assert [request.headers["authorization"] for request in repeats] == ["Bearer token-2"] * 2
    assert len(upstream.token_requests) == 2


def test_a_401_stands_when_no_new_token_can_be_had(upstream, clock):
    """The resource's own answer reaches the caller, and the failing endpoint is left alone for a second."""
    upstream.refused = {"token-1"}
    with httpx.Client(auth=make(upstream, clock)) as http:
        http.get(f"{upstream.url}/x")
        upstream.refused = {"*"}
        upstream.token_status, upstream.token_error = 500, b"oops"
        clock.advance(2)
        assert [http.get(f"{upstream.url}/x").status_code for _ in range(3)] == [401] * 3
    assert len(upstream.token_requests) == 3


def test_a_401_to_a_body_that_cant_be_sent_twice_stands(upstream):
    """A streamed upload is not repeated: its bytes are gone."""

    def body() -> Iterator[bytes]:
        yield b"one"
        yield b"two"

    upstream.refused = {"token-1"}
    with httpx.Client(auth=make(upstream)) as http:
        assert http.post(f"{upstream.url}/x", content=body()).status_code == 401
    assert [seen.body for seen in upstream.calls] == [b"onetwo"]


async def test_a_401_to_an_async_stream_stands(upstream):
    """The same for an async upload."""

    async def body() -> AsyncIterator[bytes]:
        yield b"one"

    upstream.refused = {"token-1"}
    async with httpx.AsyncClient(auth=make(upstream)) as http:
        assert (await http.post(f"{upstream.url}/x", content=body())).status_code == 401
    assert len(upstream.calls) == 1


def test_a_401_of_another_host_is_not_retried(upstream):
    """Only the server that was called can refuse its token; a redirect's target can't ask for a fresh one."""
    flow = make(upstream).sync_auth_flow(httpx.Request("GET", "http://models.example/x"))
    next(flow)
    with pytest.raises(StopIteration):
        flow.send(httpx.Response(401, request=httpx.Request("GET", "http://elsewhere.example/x")))


@pytest.mark.parametrize("status", [400, 403, 404, 429, 500, 503])
def test_no_other_refusal_is_retried(upstream, status):
    """Only a 401 says that the token is at fault."""
    upstream.answer = lambda _: (status, {})
    with httpx.Client(auth=make(upstream)) as http:
        assert http.get(f"{upstream.url}/x").status_code == status
    assert len(upstream.calls) == 1


def test_refusal_of_the_token_endpoint_is_a_token_error_with_its_code(upstream):
    """Error code, status and Retry-After are there for the caller to act on."""
    upstream.token_status = 401
    upstream.token_error = {"error": "invalid_client", "error_description": "Client authentication failed."}
    upstream.extra_headers = {"Retry-After": "7"}
    with pytest.raises(TokenError, match=r"invalid_client.*authentication failed") as caught:
        make(upstream).access_token()
    assert (caught.value.error, caught.value.status, caught.value.retry_after_s) == ("invalid_client", 401, 7)
    assert isinstance(caught.value, FlexError)


def test_neither_repr_nor_errors_show_the_secret_or_the_token(upstream):
    """Even where a token endpoint repeats the secret."""
    auth = make(upstream)
    auth.access_token()
    assert "s3cret" not in repr(auth)
    assert "token-1" not in repr(auth) + repr(vars(auth))
    upstream.token_status, upstream.token_error = 401, {"error": "x", "error_description": "no s3cret here"}
    with pytest.raises(TokenError) as caught:
        make(upstream).access_token()
    assert "s3cret" not in str(caught.value) + repr(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"[]",
        b"nonsense",
        b"[" * 100_000,
        b"{}",
        {"access_token": 5, "token_type": "Bearer"},
        {"access_token": "t\n", "token_type": "Bearer"},
        {"access_token": "t", "token_type": "mac"},
    ],
)
def test_an_answer_without_a_bearer_token_is_refused(upstream, answer):
    """Whatever comes back with a 200, the caller gets a token or a TokenError."""
    upstream.token = lambda: (200, answer)
    with pytest.raises(TokenError) as caught:
        make(upstream).access_token()
    assert caught.value.error == "invalid_response"


async def test_unreachable_token_endpoint_is_a_token_error(upstream):
    """Connection refused, time-out and an impossible address, sync and async."""
    upstream.hang = True
    for url in ("http://127.0.0.1:1/t", upstream.token_endpoint, "http://[::bad/t", "ftp://x/t"):
        auth = ClientCredentials(url, "c", "s", timeout_s=0.05)
        with pytest.raises(TokenError) as caught:
            await asyncio.to_thread(auth.access_token)
        assert (caught.value.error, caught.value.status) == ("unreachable", None)
        with pytest.raises(TokenError):
            await auth.access_token_async()


def test_follower_gives_up_when_the_leader_hangs(upstream):
    """A wait for somebody else's token request is bounded too."""
    upstream.hang = True
    auth = make(upstream, timeout_s=5.0)
    auth._flight._patience_s = 0.05
    leader = threading.Thread(target=auth.access_token)
    leader.start()
    assert upstream.token_asked.wait(5)
    with pytest.raises(TokenError, match="does not end"):
        auth.access_token()
    upstream.go_on.set()
    leader.join()


def test_credentials_come_from_the_demo_file(upstream, tmp_path):
    """The file that a development server writes is enough."""
    path = tmp_path / "demo-client.json"
    members = {"client_id": "d", "client_secret": "s", "token_endpoint": upstream.token_endpoint, "new": 1}
    path.write_text(json.dumps({**members, "scope": "predict:*", "resource": "http://r"}))
    assert ClientCredentials.from_file(path).access_token() == "token-1"
    assert parse_qs(upstream.token_requests[0].body.decode())["scope"] == ["predict:*"]
    path.write_text(json.dumps({"client_id": "d"}))
    with pytest.raises(ValueError, match="does not hold"):
        ClientCredentials.from_file(path)
