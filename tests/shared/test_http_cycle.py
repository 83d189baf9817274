"""What an application may do with a request, and what becomes of it when it does it wrong."""

import asyncio
import json

import pytest
from starlette.types import Message, Receive, Scope, Send

from shared.events import Event
from tests.raw_http import Answer, RawServer, serving

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
START: Message = {"type": "http.response.start", "status": 200, "headers": []}


def app_sending(*messages: Message):
    """An application that reads its request and then sends these messages."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        for message in messages:
            await send(message)

    return app


async def answer_of(*messages: Message, request: bytes = GET) -> Answer:
    async with serving(app_sending(*messages)) as server:
        return await server.ask(request)


def body(content: bytes, *, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": content, "more_body": more}


def start(*headers: tuple[bytes, bytes], status: int = 200) -> Message:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


async def test_a_body_of_unknown_length_is_chunked() -> None:
    """Without a content-length the pieces go out as chunks, each at once."""
    got = await answer_of(start(), body(b"one", more=True), body(b"", more=True), body(b"two"))
    assert got.headers["transfer-encoding"] == "chunked"
    assert got.body == b"onetwo"


async def test_an_old_client_gets_the_body_up_to_the_close() -> None:
    """HTTP/1.0 knows no chunks."""
    got = await answer_of(start(), body(b"one", more=True), body(b"two"), request=b"GET / HTTP/1.0\r\n\r\n")
    assert "transfer-encoding" not in got.headers
    assert got.body == b"onetwo"


async def test_head_sends_the_length_and_no_body() -> None:
    """HEAD answers with what GET would say, without its content."""
    async with serving(app_sending(start((b"content-length", b"5")), body(b"hello"))) as server:
        client = await server.connect()
        await client.send(b"HEAD" + GET[3:] + GET)
        assert (await client.answer(head_only=True)).headers["content-length"] == "5"
        assert (await client.answer()).body == b"hello"


@pytest.mark.parametrize("status", [204, 304])
async def test_answers_without_content_are_not_framed(status: int) -> None:
    """204 and 304 have neither length nor chunks (RFC 9110 section 6.4.1)."""
    async with serving(app_sending(start(status=status), body(b""))) as server:
        client = await server.connect()
        await client.send(GET * 2)
        for _ in range(2):
            got = await client.answer(head_only=True)
            assert got.status == status
            assert "transfer-encoding" not in got.headers


@pytest.mark.parametrize(
    "header",
    [(b"x-a", b"1\r\nset-cookie: x"), (b"x-a", b"1\n"), (b"x-a", b"\0"), (b"x a", b"1"), (b"", b"1"), (b"x:", b"1")],
)
async def test_a_header_that_would_split_the_answer_is_an_internal_error(header: tuple[bytes, bytes]) -> None:
    """No line break, NUL or odd name ever reaches the wire; repeated, it does not either."""
    async with serving(app_sending(start(header), body(b"x"))) as server:
        for _ in range(2):
            got = await server.ask(GET)
            assert got.status == 500
            assert json.loads(got.body)["type"] == "urn:flex:error:internal_error"
            assert b"set-cookie" not in got.body


async def test_a_repeated_header_line_is_checked_before_it_is_kept() -> None:
    """The memo of header lines holds good ones only."""
    bad = (b"content-type", b"text/plain\r\nx: y")
    async with serving(app_sending(start(bad), body(b"x"))) as server:
        assert [(await server.ask(GET)).status for _ in range(2)] == [500, 500]


async def test_the_application_does_not_decide_on_framing() -> None:
    """A transfer-encoding of the application is ignored; its wish to close is honoured, once."""
    got = await answer_of(start((b"transfer-encoding", b"gzip"), (b"connection", b"close")), body(b"x"))
    assert got.headers["transfer-encoding"] == "chunked"
    assert got.headers["connection"] == "close"
    assert got.body == b"x"


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [body(b"x")],
        [START, START],
        [start((b"content-length", b"2")), body(b"abc")],
        [start((b"content-length", b"9")), body(b"abc")],
    ],
    ids=["nothing", "body first", "two starts", "too long", "too short"],
)
async def test_an_application_out_of_order_gives_500(messages: list[Message]) -> None:
    """As long as nothing was sent, the client gets a well-formed error."""
    got = await answer_of(*messages)
    assert got.status == 500
    assert json.loads(got.body)["error"]


async def test_an_answer_that_breaks_off_is_cut_not_completed(event_log) -> None:
    """After the first byte only a broken connection tells the truth."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"half", more=True))
        raise ValueError("secret")

    async with serving(app) as server:
        client = await server.connect()
        await client.send(GET)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await client.answer()
    assert "secret" not in event_log.text
    assert event_log.named(Event.INTERNAL_ERROR)


async def test_a_body_in_pieces_is_received_in_pieces() -> None:
    """`receive` gives what there is, says when there is more, and then waits for the end of the connection."""
    seen: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend([await receive(), await receive()])
        await send(start((b"content-length", b"0")))
        await send(body(b""))
        seen.append(await receive())

    async with serving(app) as server:
        client = await server.connect()
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab", b"cd")
        await client.answer()
    assert seen == [
        {"type": "http.request", "body": b"ab", "more_body": True},
        {"type": "http.request", "body": b"cd", "more_body": False},
        {"type": "http.disconnect"},
    ]


async def test_a_client_is_held_back_while_its_body_waits() -> None:
    """An application that does not read makes the client wait, instead of filling the memory."""
    go = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await go.wait()
        size = 0
        while True:
            message = await receive()
            size += len(message["body"])
            if not message["more_body"]:
                break
        content = b"%d" % size
        await send(start((b"content-length", b"%d" % len(content))))
        await send(body(content))

    async with serving(app) as server:
        client = await server.connect()
        size = 20_000_000
        client.writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
        await asyncio.sleep(0.1)
        (connection,) = server.connections
        assert connection._active is not None
        assert len(connection._active.body) < 600_000
        server.wait_for(100)  # and its time-out waits too: it is not the client who is slow
        go.set()
        assert (await client.answer()).body == b"20000000"


async def test_a_refusal_before_the_end_of_the_body_can_be_read() -> None:
    """413 while the client still sends: it gets the answer, not a reset connection."""
    async with serving(app_sending(start((b"content-length", b"2"), status=413), body(b"no"))) as server:
        client = await server.connect()
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n")
        for _ in range(9):
            await client.send(b"x" * 1_000_000)
        got = await client.answer()
        assert (got.status, got.headers["connection"], got.body) == (413, "close", b"no")
        assert await client.is_closed()


async def test_a_stopped_server_answers_what_it_has_and_closes() -> None:
    """`shutdown` closes idle connections at once and busy ones after their answer."""
    go = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await go.wait()
        await send(start((b"content-length", b"2")))
        await send(body(b"ok"))

    async with serving(app) as server:
        idle, busy = await server.connect(), await server.connect()
        await busy.send(GET)
        await server.settled()
        for connection in list(server.connections):
            connection.shutdown()
        assert await idle.is_closed()
        go.set()
        got = await busy.answer()
        assert (got.body, got.headers["connection"]) == (b"ok", "close")
        assert await busy.is_closed()


async def test_a_cancelled_request_says_503() -> None:
    """A request that outlasts the stop is cancelled, and its client is told to come again."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(3600)

    async with serving(app) as server:
        client = await server.connect()
        await client.send(GET)
        await server.settled()
        for task in list(server.state.tasks):
            task.cancel()
        got = await client.answer()
        assert (got.status, got.headers["retry-after"]) == (503, "1")


async def test_a_running_server_state_counts_every_answer(server_count: RawServer) -> None:
    """The server's own count of requests stays right."""
    await server_count.ask(GET)
    await server_count.ask(GET)
    assert server_count.state.total_requests == 2


@pytest.fixture
async def server_count():
    async with serving(app_sending(start((b"content-length", b"0")), body(b""))) as running:
        yield running
