"""Whatever bytes arrive, in whatever pieces: an answer that HTTP allows, or a closed connection; never an accident."""

import asyncio
import random

import pytest
from starlette.types import Receive, Scope, Send

from shared.events import Event
from tests.raw_http import RawServer, serving

N_CASES = 400
SEEDS = [
    b"GET /v1/attributes?x=1 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer abc.def.ghi\r\n\r\n",
    b"POST /p HTTP/1.1\r\nHost: a:1\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: v\r\n\r\n",
    b"POST /u HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabc",
    b"HEAD / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nExpect: 100-continue\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\nOrigin: null\r\n\r\n",
]
BITS = [
    b"\r\n",
    b"\n",
    b"\0",
    b"\xff",
    b": ",
    b"0\r\n\r\n",
    b"Host: b\r\n",
    b"Content-Length: 9\r\n",
    b" ",
    b"a" * 9000,
]
EXPECTED = {200, 400, 408, 414, 429, 431}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Read everything, answer 200."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        if not message["more_body"]:
            break
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def mutated(chance: random.Random) -> bytes:
    """One to four requests with a few bytes changed, cut out or put in."""
    raw = bytearray(b"".join(chance.choice(SEEDS) for _ in range(chance.randint(1, 4))))
    for _ in range(chance.choice([0, 1, 1, 2, 5])):
        at = chance.randrange(len(raw) + 1)
        change = chance.randrange(3)
        if change == 0:
            raw[at:at] = chance.choice(BITS)
        elif change == 1:
            del raw[at : at + chance.randint(1, 20)]
        else:
            raw[at : at + 1] = bytes([chance.randrange(256)])
    return bytes(raw)


async def one_case(server: RawServer, chance: random.Random) -> None:
    raw = mutated(chance)
    client = await server.connect()
    sent = 0
    while sent < len(raw):
        size = chance.choice([1, 7, 100, 20_000])
        client.writer.write(raw[sent : sent + size])
        sent += size
        await asyncio.sleep(0)
    client.writer.write_eof()
    async with asyncio.timeout(5):
        answers = await client.reader.read()
    statuses = {int(line[9:12]) for line in answers.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")}
    assert statuses <= EXPECTED | {100}, raw


@pytest.mark.parametrize("seed", range(4))
async def test_mutated_requests_have_no_accident(seed: int, event_log) -> None:
    """No 500, no unfinished task, no error in the event loop, no connection left."""
    loop, accidents = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, context: accidents.append(context))
    chance = random.Random(seed)
    async with serving(app) as server:
        for _ in range(N_CASES // 4):
            try:
                await one_case(server, chance)
            except (OSError, RuntimeError):  # the second is uvloop's word for the first
                continue  # reset after a refusal
        await server.settled()
        assert not server.state.tasks
    assert not accidents
    assert not event_log.named(Event.INTERNAL_ERROR)
