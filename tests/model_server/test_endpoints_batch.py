"""Batches: JSON in one piece, NDJSON line by line in both directions; a bad record never fails the others."""

import asyncio
import json

import pytest

from model_server.endpoints import batch as batch_module
from model_server.endpoints import ndjson
from model_server.endpoints.ndjson import MAX_LINE_BYTES, MAX_LINES_AT_ONCE, LineReader
from shared.errors import AppError
from tests.model_server.serving import BATCH, PREDICT

NDJSON = "application/x-ndjson"


def lines_of(answer) -> list[dict]:
    return [json.loads(line) for line in answer.text.splitlines()]


async def test_answers_come_in_order_with_errors_in_their_places(api):
    """Good, wrong, incomplete and good again: four places, the good ones as if asked alone."""
    good = api.example()
    records = [good | {"id": "a"}, {"features": {"ipip_always_prepared": "x"}}, {"features": {}}, good | {"id": "d"}]
    answer = await api.post(BATCH, {"records": records})
    first, wrong, incomplete, last = answer.json()["results"]
    alone = (await api.post(PREDICT, good | {"id": "a"})).json()
    assert answer.status_code == 200
    assert first == alone
    assert (last["id"], last["raw"]) == ("d", alone["raw"])
    assert incomplete["status"] == "insufficient_data"
    assert (wrong["status"], wrong["instance"]) == (422, answer.headers["x-request-id"])
    assert wrong["errors"][0]["pointer"] == "/records/1/features/ipip_always_prepared"


async def test_a_thousand_records_pass_and_one_more_does_not(api):
    """The limit of one JSON batch; beyond it there is NDJSON."""
    assert len((await api.post(BATCH, {"records": [{"features": {}}] * 1000})).json()["results"]) == 1000
    for n_records in (0, 1001):
        answer = await api.post(BATCH, {"records": [{"features": {}}] * n_records})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"] == "/records"


async def test_ndjson_is_answered_line_by_line(api):
    """Blank lines are passed over, bad ones answered in their place, a last line needs no line feed."""
    good = json.dumps(api.example()).encode()
    body = b"\n" + good + b"\r\n  \nnot json\n" + b'{"features":[]}\n' + good
    answer = await api.post(BATCH, body, content_type=NDJSON)
    first, garbage, wrong, last = lines_of(answer)
    assert (answer.status_code, answer.headers["content-type"]) == (200, NDJSON)
    assert first == last == (await api.post(PREDICT, api.example())).json()
    assert garbage["type"] == "urn:flex:error:malformed_json"
    assert wrong["errors"][0]["pointer"] == "/features"


async def test_an_empty_ndjson_body_has_an_empty_answer(api):
    """Nothing asked, nothing answered."""
    answer = await api.post(BATCH, b"\n\n", content_type=NDJSON)
    assert (answer.status_code, answer.content) == (200, b"")


async def test_a_line_that_is_too_long_is_one_error(api):
    """64 KiB a line; what is longer is skipped and answered, and the lines around it are served."""
    good = json.dumps(api.example()).encode()
    body = good + b"\n" + b"x" * (MAX_LINE_BYTES + 1) + b"\n" + good.ljust(MAX_LINE_BYTES) + b"\n" + b"y" * 500_000
    first, too_long, padded, last = lines_of(await api.post(BATCH, body, content_type=NDJSON))
    assert first == padded
    assert (too_long["status"], last["status"]) == (413, 413)


async def test_ndjson_has_no_limit_of_lines_on_the_wire(served):
    """Ten thousand lines over a real socket, in order."""
    line = json.dumps(served.example()["features"])

    async def lines():
        for n in range(10_000):
            yield b'{"id":"%d","features":%s}\n' % (n, line.encode())

    headers = served.authorization("predict:grit") | {"content-type": NDJSON}
    async with served.http.stream("POST", BATCH, content=lines(), headers=headers) as answer:
        ids = [json.loads(line)["id"] async for line in answer.aiter_lines()]
    assert ids == [str(n) for n in range(10_000)]


async def open_stream(served):
    """Begin an NDJSON call on a bare socket; gives reader and a function that sends one chunk."""
    host, port = served.http.base_url.host, served.http.base_url.port
    reader, writer = await asyncio.open_connection(host, port)
    authorization = served.authorization("predict:grit")["authorization"]
    writer.write(
        f"POST {BATCH} HTTP/1.1\r\nhost: x\r\nauthorization: {authorization}\r\n"
        f"content-type: {NDJSON}\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    )

    def send(piece: bytes) -> None:
        writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))

    return reader, writer, send


async def read_chunk(reader) -> bytes:
    size = int(await reader.readline(), 16)
    return (await reader.readexactly(size + 2))[:-2]


async def test_ndjson_is_answered_while_the_request_still_runs(served):
    """Each line gets its answer before the next one is sent: both directions at once, on one connection."""
    reader, writer, send = await open_stream(served)
    async with asyncio.timeout(10):
        for n in range(3):
            send(json.dumps(served.example() | {"id": str(n)}).encode() + b"\n")
            if n == 0:
                assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
            assert json.loads(await read_chunk(reader))["id"] == str(n)
        writer.write(b"0\r\n\r\n")
        assert await read_chunk(reader) == b""
    writer.close()


async def test_a_line_that_does_not_come_to_its_end_ends_the_call(served, monkeypatch):
    """Bytes that trickle in are no progress; the lines before are answered and the last one says why it ended."""
    monkeypatch.setattr(ndjson, "LINE_TIMEOUT_S", 0.2)
    reader, writer, send = await open_stream(served)
    async with asyncio.timeout(10):
        send(json.dumps(served.example()).encode() + b"\n")
        await reader.readuntil(b"\r\n\r\n")
        assert "score" in json.loads(await read_chunk(reader))
        ended = asyncio.create_task(read_chunk(reader))
        while not ended.done():
            send(b" ")
            await asyncio.sleep(0.02)
        assert json.loads(await ended)["type"] == "urn:flex:error:request_timeout"
    writer.close()


async def test_a_first_line_that_never_comes_is_408(served, monkeypatch):
    """Before the answer has begun, it still has its own status."""
    monkeypatch.setattr(ndjson, "LINE_TIMEOUT_S", 0.1)
    reader, writer, _ = await open_stream(served)
    async with asyncio.timeout(10):
        assert b" 408 " in await reader.readuntil(b"\r\n\r\n")
    writer.close()


async def test_a_client_that_does_not_read_is_not_served_for_ever(served, monkeypatch):
    """Answers are not piled up in memory: we wait for the reader, and hang up when nobody reads."""
    monkeypatch.setattr(batch_module, "SEND_TIMEOUT_S", 0.3)
    _, writer, send = await open_stream(served)
    writer.transport.pause_reading()
    lines = (json.dumps(served.example()).encode() + b"\n") * 200

    async def send_for_ever():
        while True:
            send(lines)
            await writer.drain()

    async with asyncio.timeout(30):
        with pytest.raises(ConnectionError):
            await send_for_ever()
    writer.close()


async def test_a_client_that_leaves_is_noticed(served, event_log):
    """An aborted stream is no defect of ours."""
    reader, writer, send = await open_stream(served)
    send(json.dumps(served.example()).encode() + b"\n")
    async with asyncio.timeout(10):
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()
        while not event_log.named("http_request"):
            await asyncio.sleep(0.01)
    assert not event_log.named("internal_error")


def source(*pieces: bytes):
    """Receive function of a body in given pieces."""
    messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    messages[-1]["more_body"] = False

    async def receive():
        return messages.pop(0)

    return receive


async def all_lines(reader) -> list:
    found = []
    while lines := await reader.next_lines():
        assert len(lines) <= MAX_LINES_AT_ONCE
        found += lines
    return found


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
async def test_lines_do_not_depend_on_how_the_bytes_arrive(size):
    """The same lines from pieces of any size."""
    body = b"one\n\n two \r\nthree\n   \nfour"
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    assert await all_lines(LineReader(source(*pieces))) == [b"one", b"two", b"three", b"four"]


async def test_chunks_are_bounded():
    """A thousand lines at once come as chunks of at most 256."""
    reader = LineReader(source(b"x\n" * 1000))
    assert [len(await reader.next_lines()) for _ in range(5)] == [256, 256, 256, 232, 0]


async def test_an_endless_line_costs_no_memory():
    """Beyond the limit bytes are dropped as they come."""
    reader = LineReader(source(*[b"x" * 60_000] * 50, b"\nok\n"))
    assert await reader.next_lines() == [None, b"ok"]
    assert len(reader._unfinished) == 0


async def test_a_client_that_is_gone_is_told_apart():
    """The disconnect is not taken for the end of the body."""

    async def receive():
        return {"type": "http.disconnect"}

    with pytest.raises(AppError) as error:
        await LineReader(receive).next_lines()
    assert error.value.reason == "client_disconnected"
