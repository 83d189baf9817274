"""The bounded protocol, on real sockets: what it refuses, what that costs, and what it serves."""

import asyncio
import contextlib
import json
import resource
import tracemalloc
from collections.abc import AsyncIterator

import pytest
from starlette.types import Message, Receive, Scope, Send

from shared.events import Event
from shared.http_limits import Limits
from shared.http_protocol import BoundedHttpProtocol
from tests.raw_http import Answer, Client, RawServer, serving

GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Say what arrived."""
    body, message = b"", {"more_body": True}
    while message.get("more_body"):
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
    seen = {
        "method": scope["method"],
        "path": scope["path"],
        "raw_path": scope["raw_path"].decode(),
        "query": scope["query_string"].decode(),
        "headers": [[name.decode(), value.decode("latin-1")] for name, value in scope["headers"]],
        "body": body.decode("latin-1") if len(body) < 100 else len(body),
    }
    await answer(send, json.dumps(seen).encode())


async def answer(send: Send, body: bytes, status: int = 200, *headers: tuple[bytes, bytes]) -> None:
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [length, *headers]})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
async def server() -> AsyncIterator[RawServer]:
    async with serving(echo) as running:
        yield running


def assert_refused(got: Answer, status: int) -> None:
    """Every refusal has the contract's form and closes the connection."""
    assert got.status == status
    assert got.headers["content-type"] == "application/json"
    assert got.headers["connection"] == "close"
    problem = json.loads(got.body)
    assert problem["status"] == status
    assert problem["error"]
    assert problem["instance"] == got.headers["x-request-id"]


# -- serving -----------------------------------------------------------------------------------------------------


async def test_a_plain_request_is_served(server: RawServer) -> None:
    """Path, query and headers reach the application as ASGI wants them."""
    got = await server.ask(b"GET /a%20b?q=1 HTTP/1.1\r\nHost: a\r\nX-Own: V\r\n\r\n")
    seen = json.loads(got.body)
    assert (got.status, seen["path"], seen["raw_path"], seen["query"]) == (200, "/a b", "/a%20b", "q=1")
    assert ["x-own", "V"] in seen["headers"]


async def test_many_requests_go_over_one_connection(server: RawServer) -> None:
    """A kept connection serves request after request, with bodies of all framings."""
    client = await server.connect()
    for _ in range(3):
        await client.send(GET)
        assert (await client.answer()).status == 200
        await client.send(b"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
        assert json.loads((await client.answer()).body)["body"] == "abc"
        await client.send(
            b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x=y\r\nc\r\n0\r\n\r\n"
        )
        assert json.loads((await client.answer()).body)["body"] == "abc"
    assert server.state.total_requests == 9


async def test_a_request_in_single_bytes_is_served(server: RawServer) -> None:
    """However the bytes are cut, the request is the same."""
    client = await server.connect()
    client.writer.get_extra_info("socket").setsockopt(6, 1, 1)
    for byte in b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nabcd":
        client.writer.write(bytes([byte]))
        await asyncio.sleep(0)
    assert json.loads((await client.answer()).body)["body"] == "abcd"


async def test_a_large_body_arrives_whole(server: RawServer) -> None:
    """A body far above the bounds of a head is no head."""
    size = 3_000_000
    got = await server.ask(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size + b"z" * size)
    assert json.loads(got.body)["body"] == size


async def test_pipelined_requests_are_answered_in_order(server: RawServer) -> None:
    """Several requests in one packet, with a head cut in two at the end."""
    client = await server.connect()
    body = b"POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
    await client.send(b"".join(body % number for number in range(10)) + GET[:9], GET[9:])
    paths = [json.loads((await client.answer()).body)["path"] for _ in range(11)]
    assert paths == [f"/{number}" for number in range(10)] + ["/a"]


async def test_a_bad_request_behind_a_good_one_waits_for_its_turn(server: RawServer) -> None:
    """The refusal never mixes with an answer that is still due."""
    client = await server.connect()
    await client.send(GET + b"GET /b HTTP/1.1\r\n\r\n")
    assert json.loads((await client.answer()).body)["path"] == "/a"
    assert_refused(await client.answer(), 400)
    assert await client.is_closed()


async def test_upgrades_are_ignored_with_their_bodies(server: RawServer) -> None:
    """`Upgrade: h2c` (Java's client sends it) is an ordinary request, and its body is no second request."""
    client = await server.connect()
    upgrade = b"POST /u HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 4\r\n\r\n"
    await client.send(upgrade + b"GET " + GET)
    assert json.loads((await client.answer()).body)["body"] == "GET "
    assert json.loads((await client.answer()).body)["path"] == "/a"
    await client.send(upgrade, b"bo", b"dy" + GET)
    assert json.loads((await client.answer()).body)["body"] == "body"
    assert (await client.answer()).status == 200


async def test_expect_continue_is_answered_when_the_body_is_wanted(server: RawServer) -> None:
    """100 Continue comes when the application asks for the body (RFC 9110 section 10.1.1)."""
    client = await server.connect()
    await client.send(b"POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert (await client.answer(head_only=True)).status == 100
    await client.send(b"ok")
    assert json.loads((await client.answer()).body)["body"] == "ok"


async def test_http_1_0_gets_an_answer_and_a_close(server: RawServer) -> None:
    """An old client needs no Host and no keep-alive."""
    client = await server.connect()
    await client.send(b"GET /old HTTP/1.0\r\n\r\n")
    assert (await client.answer()).status == 200
    assert await client.is_closed()


# -- refusing ----------------------------------------------------------------------------------------------------

POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
MALFORMED = {
    "length beside coding": POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding beside length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "a list of lengths": POST + b"Content-Length: 3, 3\r\n\r\nabc",
    "a signed length": POST + b"Content-Length: +3\r\n\r\nabc",
    "an endless length": POST + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "an unknown coding": POST + b"Transfer-Encoding: gzip\r\n\r\nabc",
    "a coding twice": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a coding in HTTP/1.0": b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a bad chunk size": POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a chunk without CR": POST + b"Transfer-Encoding: chunked\r\n\r\n3\nabc\n0\n\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "an empty host": b"GET / HTTP/1.1\r\nHost:\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    "a host with a space": b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    "a host with a path": b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "two hosts in HTTP/1.0": b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
    "a NUL in a value": b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
    "a control character": b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x01b\r\n\r\n",
    "a folded line": b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
    "bare line feeds": b"GET / HTTP/1.1\nHost: a\n\n",
    "a space before the colon": b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    "a header without name": b"GET / HTTP/1.1\r\nHost: a\r\n: a\r\n\r\n",
    "bytes above ASCII in the path": b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
    "a control character in the path": b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n",
    "HTTP/2 without its preface": b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
    "the HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "an unknown version": b"GET / HTTP/1.2\r\nHost: a\r\n\r\n",
    "CONNECT": b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
    "a method in small letters": b"get / HTTP/1.1\r\nHost: a\r\n\r\n",
    "a TLS handshake": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "an upgrade with a chunked body": POST
    + b"Connection: upgrade\r\nUpgrade: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED.keys())
async def test_malformed_requests_get_400(server: RawServer, raw: bytes) -> None:
    """What two parsers could read differently is refused, always, before the application sees anything."""
    client = await server.connect()
    await client.send(raw)
    assert_refused(await client.answer(), 400)
    assert await client.is_closed()
    assert server.state.total_requests == 0


@pytest.mark.parametrize("cut", [1, 2])
async def test_the_corpus_is_refused_in_pieces_too(server: RawServer, cut: int) -> None:
    """Cutting the bytes in half, or in thirds, changes nothing."""
    for raw in MALFORMED.values():
        size = len(raw) // (cut + 1) + 1
        client = await server.connect()
        await client.send(*(raw[start : start + size] for start in range(0, len(raw), size)))
        assert_refused(await client.answer(), 400)


def head_of(n_bytes: int) -> bytes:
    """A whole request of exactly that size, all of it head."""
    start, end = b"GET / HTTP/1.1\r\nHost: a\r\nX-Fill: ", b"\r\n\r\n"
    return start + b"x" * (n_bytes - len(start) - len(end)) + end


async def test_a_head_at_the_bound_is_served_and_one_above_gets_431(server: RawServer) -> None:
    """16 KiB is 16 KiB, in one piece and in several."""
    bound = Limits().max_head_bytes
    assert (await server.ask(head_of(bound))).status == 200
    assert_refused(await server.ask(head_of(bound + 200)), 431)
    for cut in (1, 5000, bound - 1):
        assert_refused(await server.ask(head_of(bound + 200)[:cut], head_of(bound + 200)[cut:]), 431)


async def test_a_long_head_behind_a_body_gets_431(server: RawServer) -> None:
    """The bound holds where a head does not begin at the start of what was read."""
    client = await server.connect()
    await client.send(POST + b"Content-Length: 2\r\n\r\nhi" + head_of(40_000))
    assert (await client.answer()).status == 200
    assert_refused(await client.answer(), 431)


async def test_thirty_megabytes_of_header_cost_no_memory(server: RawServer) -> None:
    """A 30 MB Authorization header gets 431 and costs less than 1 MiB, in Python objects and in the process."""
    client = await server.connect()
    megabyte = b"a" * 1_000_000
    await server.ask(head_of(40_000))
    tracemalloc.start()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ")
    for _ in range(30):
        client.writer.write(megabyte)
        await client.writer.drain()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert_refused(await client.answer(), 431)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert peak < 2_500_000  # our own two buffers of 1 MB on the sending side among it
    assert grown_kib < 6_000
    held = sum(len(name) + len(value) for connection in server.connections for name, value in connection.headers or ())
    assert held < 20_000


async def test_trailers_and_chunk_extensions_are_bounded(server: RawServer) -> None:
    """A chunked body can't bring endless bytes that are no content."""
    start = POST + b"Transfer-Encoding: chunked\r\n\r\n"
    assert_refused(await server.ask(start, b"1;" + b"x" * 40_000), 431)
    assert_refused(await server.ask(start, b"1\r\na\r\n0\r\nT: " + b"x" * 40_000), 431)
    got = await server.ask(start, b"1\r\na\r\n0\r\nT: x\r\n\r\n")
    assert json.loads(got.body)["headers"] == [["host", "a"], ["transfer-encoding", "chunked"]]


async def test_a_hundred_headers_are_served_and_more_get_431(server: RawServer) -> None:
    """Many small headers are bounded too."""
    many = b"".join(b"X-%d: 1\r\n" % number for number in range(99))
    assert (await server.ask(b"GET / HTTP/1.1\r\nHost: a\r\n" + many + b"\r\n")).status == 200
    assert_refused(await server.ask(b"GET / HTTP/1.1\r\nHost: a\r\n" + many + b"Y: 1\r\n\r\n"), 431)


async def test_a_long_address_gets_414(server: RawServer) -> None:
    """8 KiB of address are served, more are not, whether or not the head ends within its bound."""
    bound = Limits().max_url_bytes
    assert (await server.ask(b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"p" * (bound - 1)))).status == 200
    assert_refused(await server.ask(b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"p" * bound)), 414)
    assert_refused(await server.ask(b"GET /" + b"p" * 50_000), 414)


async def test_connections_above_the_cap_get_503() -> None:
    """A process takes a bounded number of connections, says so to some more, and cuts the rest off."""

    class Four(BoundedHttpProtocol):
        limits = Limits(max_connections=4)

    async with serving(echo, Four) as server:
        first, *_rest = [await server.connect() for _ in range(4)]
        refused = await (await server.connect()).answer()
        assert_refused(refused, 503)
        assert refused.headers["retry-after"] == "1"
        cut = Client(*await asyncio.open_connection("127.0.0.1", server.port))
        server.clients.append(cut)
        with contextlib.suppress(ConnectionResetError):
            assert await cut.is_closed()
        await first.send(GET)
        assert (await first.answer()).status == 200


async def test_a_refusal_is_in_the_log_with_its_request_id(server: RawServer, event_log) -> None:
    """The id in the answer leads to a line that says why; nothing of the request is in it."""
    got = await server.ask(b"GET /secret HTTP/1.1\r\nAuthorization: Bearer secret\r\n\r\n")
    (line,) = event_log.named(Event.HTTP_REQUEST)
    assert (line["request_id"], line["status"], line["reason"]) == (got.headers["x-request-id"], 400, "invalid_request")
    assert "secret" not in event_log.text


async def test_too_many_pipelined_requests_are_cut_off(server: RawServer) -> None:
    """The queue of one connection is bounded: 33 are answered, the rest get one refusal."""
    client = await server.connect()
    await client.send(GET * 200)
    statuses = [(await client.answer()).status for _ in range(34)]
    assert statuses == [200] * 33 + [429]
    assert await client.is_closed()


# -- time --------------------------------------------------------------------------------------------------------


async def test_a_silent_connection_is_closed_after_20_s(server: RawServer) -> None:
    """A client that says nothing is not waited for; 19 s are still fine."""
    client = await server.connect()
    server.wait_for(19)
    assert server.connections
    server.wait_for(2)
    assert await client.is_closed()


async def test_slow_headers_get_408_however_they_drip(server: RawServer) -> None:
    """The head must be complete 10 s after its first byte; more bytes buy no time."""
    client = await server.connect()
    await client.send(b"GET / HTTP/1.1\r\n")
    await server.settled()
    server.wait_for(9)
    await client.send(b"Host: a\r\n")
    await server.settled()
    server.wait_for(2)
    assert_refused(await client.answer(), 408)
    assert await client.is_closed()


async def test_a_slow_body_gets_408_but_a_moving_one_does_not(server: RawServer) -> None:
    """20 s without a byte of the body end the request; each byte starts them again."""
    client = await server.connect()
    await client.send(POST + b"Content-Length: 10\r\n\r\n")
    for _ in range(3):
        await client.send(b"a")
        await server.settled()
        server.wait_for(19)
    server.wait_for(2)
    assert_refused(await client.answer(), 408)


async def test_an_idle_connection_is_kept_75_s(server: RawServer) -> None:
    """Between two requests a client may be silent for 75 s."""
    client = await server.connect()
    await client.send(GET)
    await client.answer()
    server.wait_for(74)
    await client.send(GET)
    assert (await client.answer()).status == 200
    server.wait_for(76)
    assert await client.is_closed()


async def test_a_slow_application_is_not_the_clients_fault() -> None:
    """While an answer is made there is no deadline for the client."""
    release = asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await release.wait()
        await answer(send, b"late")

    async with serving(slow) as server:
        client = await server.connect()
        await client.send(GET)
        await server.settled()
        server.wait_for(1000)
        release.set()
        assert (await client.answer()).body == b"late"


async def test_a_client_that_does_not_read_is_cut_off() -> None:
    """An answer that nobody takes holds its connection for a minute, not for ever."""

    async def flood(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(200):
            await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})

    async with serving(flood) as server:
        client = await server.connect()
        await client.send(GET)
        await asyncio.sleep(0.1)
        server.wait_for(59)
        assert server.connections
        server.wait_for(2)
        await server.settled()
        assert not server.connections


async def test_a_refused_client_may_go_on_for_5_s_only(server: RawServer) -> None:
    """After a refusal what still comes is thrown away, and then the connection ends."""
    client = await server.connect()
    await client.send(b"nonsense\r\n")
    assert_refused(await client.answer(), 400)
    await client.send(b"more nonsense")
    server.wait_for(6)
    await server.settled()
    assert not server.connections


async def test_a_disconnected_client_is_told_to_every_request() -> None:
    """The running request and the queued ones learn that nobody waits any more."""
    seen: list[Message] = []

    async def waits(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        seen.append(await receive())

    async with serving(waits) as server:
        client = await server.connect()
        await client.send(GET * 3)
        await server.settled()
        client.writer.close()
        await server.settled()
        assert seen == [{"type": "http.disconnect"}]
        assert not server.state.tasks
