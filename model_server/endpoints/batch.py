"""Many records of one attribute: a JSON document of up to 1,000, or NDJSON streamed in and out without an end.

A bad record gives one error in its place and never fails the others; order is kept.
"""

import asyncio

from starlette.types import ASGIApp, Receive, Scope, Send

from model_server.attribute import Attribute
from model_server.bearer import Bearer
from model_server.endpoints.media_types import NDJSON, wants_ndjson
from model_server.endpoints.ndjson import MAX_LINE_BYTES, LineReader
from model_server.endpoints.places import count, place
from model_server.endpoints.work_pool import WorkPool
from model_server.records import Record
from model_server.scoring import score_batch
from shared.errors import AppError
from shared.http import NO_STORE, problem_body, read_body, send_json

MAX_BATCH_BYTES = 1024 * 1024
SEND_TIMEOUT_S = 60.0


def batch(attribute: Attribute, bearer: Bearer, pool: WorkPool) -> ASGIApp:
    """``POST /v1/attributes/{id}/predict/batch``: ``{"records": […]}`` → ``{"results": […]}``, or line by line."""

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        bearer.authenticate(scope).require_predict(attribute.id)
        request_id = scope["flex.request_id"]
        if wants_ndjson(scope):
            await _Stream(attribute, pool, request_id, send).run(LineReader(receive))
            return
        body = await read_body(scope, receive, MAX_BATCH_BYTES)
        await send_json(send, 200, await pool.run(lambda: _scored(attribute, body, request_id)))

    return handle


def _scored(attribute: Attribute, body: bytes, request_id: str) -> bytes:
    results = score_batch(attribute, attribute.decoder.decode_batch(body))
    count(attribute.id, results)
    return b'{"results":[' + b",".join([place(result, request_id) for result in results]) + b"]}"


class _Stream:
    """One NDJSON call. The answer begins with the first lines, so that an error before it keeps its own status."""

    def __init__(self, attribute: Attribute, pool: WorkPool, request_id: str, send: Send) -> None:
        self._attribute = attribute
        self._pool = pool
        self._request_id = request_id
        self._send = send
        self._begun = False

    async def run(self, reader: LineReader) -> None:
        """Answer lines until they end; a failure of the whole call after the beginning is the last line."""
        try:
            while lines := await reader.next_lines():
                await self._write(await self._pool.run(lambda lines=lines: self._answers(lines), patient=True))  # type: ignore[misc]
        except AppError as error:
            if not self._begun:
                raise
            if error.reason == "client_disconnected":
                return
            await self._write(problem_body(error, self._request_id) + b"\n")
        await self._write(b"", more=False)

    def _answers(self, lines: list[bytes | None]) -> bytes:
        """Read and score one chunk; runs in the pool."""
        results = score_batch(self._attribute, [self._read(line) for line in lines])
        count(self._attribute.id, results)
        return b"".join([place(result, self._request_id) + b"\n" for result in results])

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
