"""Many records of one attribute: a JSON document of up to 1,000, or NDJSON streamed in and out without an end.

A bad record gives one error in its place and never fails the others; order is kept.
"""

import asyncio
from collections.abc import Sequence
from functools import partial

from starlette.types import ASGIApp, Receive, Scope, Send

from model_server.accounts import Tab
from model_server.attribute import Attribute
from model_server.bearer import Bearer
from model_server.endpoints.attributes import open_tab
from model_server.endpoints.charging import Till
from model_server.endpoints.media_types import NDJSON, wants_ndjson
from model_server.endpoints.ndjson import MAX_LINE_BYTES, LineReader
from model_server.endpoints.places import count, place
from model_server.endpoints.work_pool import WorkPool
from model_server.metering import ROWS
from model_server.records import Record
from model_server.scoring import score_batch
from shared.errors import AppError
from shared.http import NO_STORE, problem_body, read_body, send_json

MAX_BATCH_BYTES = 1024 * 1024
SEND_TIMEOUT_S = 60.0


def batch(attribute: Attribute, bearer: Bearer, till: Till, pool: WorkPool) -> ASGIApp:
    """``POST /v1/attributes/{id}/predict/batch``: ``{"records": […]}`` → ``{"results": […]}``, or line by line."""

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        caller = bearer.authenticate(scope)
        tab = open_tab(caller, attribute.id, scope)
        caller.require_predict(attribute.id)
        ndjson = wants_ndjson(scope)
        async with till.charged(scope, tab.key_set):
            if ndjson:
                await _Stream(attribute, pool, till, tab, scope=scope, send=send).run(LineReader(receive))
                return
            body = await read_body(scope, receive, MAX_BATCH_BYTES)
            if tab.counts_rows:  # how many there are is known once they are read
                records = await pool.run(lambda: attribute.decoder.decode_batch(body))
                await till.charge_rows(scope, tab.key_set, len(records) - 1)
                job = partial(_scored, attribute, records, scope["flex.request_id"])
            else:
                job = partial(_read_and_scored, attribute, body, scope["flex.request_id"])
            answer, n_answered = await pool.run(job)
            tab.tally.add(ROWS, n_answered)
            await send_json(send, 200, answer)

    return handle


def _read_and_scored(attribute: Attribute, body: bytes, request_id: str) -> tuple[bytes, int]:
    return _scored(attribute, attribute.decoder.decode_batch(body), request_id)


def _scored(attribute: Attribute, records: Sequence[Record | AppError], request_id: str) -> tuple[bytes, int]:
    results = score_batch(attribute, records)
    n_answered = count(attribute.id, results)
    return b'{"results":[' + b",".join([place(result, request_id) for result in results]) + b"]}", n_answered


class _Stream:
    """One NDJSON call. The answer begins with the first lines, so that an error before it keeps its own status.

    Rows are charged as they come; where the budget ends, so does the answer, with the refusal as its last line.
    """

    def __init__(self, attribute: Attribute, pool: WorkPool, till: Till, tab: Tab, *, scope: Scope, send: Send) -> None:
        self._attribute = attribute
        self._pool = pool
        self._till = till
        self._tab = tab
        self._scope = scope
        self._request_id = scope["flex.request_id"]
        self._send = send
        self._begun = False
        self._n_paid = 1  # the call itself pays for its first row

    async def run(self, reader: LineReader) -> None:
        """Answer lines until they end; a failure of the whole call after the beginning is the last line."""
        try:
            while lines := await reader.next_lines():
                n_charged, refusal = await self._charge(len(lines))
                if n_charged:
                    job = partial(self._answers, lines[:n_charged])
                    answers, n_answered = await self._pool.run(job, patient=True)
                    self._tab.tally.add(ROWS, n_answered)
                    await self._write(answers)
                if refusal is not None:
                    raise refusal
        except AppError as error:
            if not self._begun:
                raise
            if error.reason == "client_disconnected":
                return
            await self._write(problem_body(error, self._request_id) + b"\n")
        await self._write(b"", more=False)

    async def _charge(self, n_lines: int) -> tuple[int, AppError | None]:
        """Give how many of the lines may be answered, and the refusal of the next."""
        if not self._tab.counts_rows:
            return n_lines, None
        n_paid, self._n_paid = self._n_paid, 0
        n_charged, refusal = await self._till.charge_some_rows(self._scope, self._tab.key_set, n_lines - n_paid)
        return n_paid + n_charged, refusal

    def _answers(self, lines: list[bytes | None]) -> tuple[bytes, int]:
        """Read and score one chunk; runs in the pool."""
        results = score_batch(self._attribute, [self._read(line) for line in lines])
        n_answered = count(self._attribute.id, results)
        return b"".join([place(result, self._request_id) + b"\n" for result in results]), n_answered

    def _read(self, line: bytes | None) -> Record | AppError:
        if line is None:
            return AppError("payload_too_large", f"A line may have at most {MAX_LINE_BYTES} bytes.")
        try:
            return self._attribute.decoder.decode(line)
        except AppError as error:
            return error

    async def _write(self, body: bytes, *, more: bool = True) -> None:
        """Send one piece; waits while the client does not read, but not for ever."""
        async with asyncio.timeout(SEND_TIMEOUT_S):
            if not self._begun:
                self._begun = True
                headers = [(b"content-type", NDJSON), NO_STORE]
                await self._send({"type": "http.response.start", "status": 200, "headers": headers})
            await self._send({"type": "http.response.body", "body": body, "more_body": more})
