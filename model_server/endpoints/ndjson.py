"""Reading lines from a request that may never end, in bounded memory and bounded time."""

import asyncio
from collections import deque

from starlette.types import Receive

from shared.errors import AppError

MAX_LINE_BYTES = 64 * 1024
MAX_LINES_AT_ONCE = 256
LINE_TIMEOUT_S = 20.0


class LineReader:
    """Complete, non-blank lines of a body as they arrive; None stands for a line of more than 64 KiB.

    What is held is at most one unfinished line and what one read of the server brought.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._lines: deque[bytes | None] = deque()
        self._unfinished = bytearray()
        self._too_long = False
        self._more = True

    async def next_lines(self) -> list[bytes | None]:
        """Give the lines that are there, 1 to 256 of them; an empty list at the end of the body.

        Waits for one complete line. Raises AppError ``request_timeout`` when that takes longer than the time-out
        (however many bytes came meanwhile) or when the client is gone.
        """
        try:
            async with asyncio.timeout(LINE_TIMEOUT_S):
                while not self._lines and self._more:
                    await self._read()
        except TimeoutError:
            raise AppError("request_timeout", reason="no_line_in_time") from None
        n_lines = min(len(self._lines), MAX_LINES_AT_ONCE)
        return [self._lines.popleft() for _ in range(n_lines)]

    async def _read(self) -> None:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise AppError("request_timeout", reason="client_disconnected")
        self._more = message.get("more_body", False)
        *finished, rest = message.get("body", b"").split(b"\n")
        for piece in finished:
            self._extend(piece)
            self._finish()
        self._extend(rest)
        if not self._more:
            self._finish()

    def _extend(self, piece: bytes) -> None:
        if len(self._unfinished) + len(piece) > MAX_LINE_BYTES:
            self._too_long = True
            self._unfinished.clear()
        elif not self._too_long:
            self._unfinished += piece

    def _finish(self) -> None:
        if self._too_long:
            self._lines.append(None)
        elif line := bytes(self._unfinished.strip()):
            self._lines.append(line)
        self._unfinished.clear()
        self._too_long = False
