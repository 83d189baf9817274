"""An issuer that only counts: metadata and a key set over HTTP, with the time of every fetch of the keys."""

import asyncio
import time

import msgspec

_HEADER_END = b"\r\n\r\n"
METADATA = "/.well-known/oauth-authorization-server"
KEYS = "/.well-known/jwks.json"


class CountingIssuer:
    """Serves ``jwks`` on ``port`` of the loopback; ``fetches`` are on the monotonic clock."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.jwks = b""
        self.fetches: list[float] = []
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """Its ``iss``."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Begin to serve."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    def stop(self) -> None:
        """Stop serving."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(_HEADER_END)
                writer.write(self._answer(head.split(b" ", 2)[1].decode()))
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, OSError):
            writer.close()

    def _answer(self, path: str) -> bytes:
        if path == KEYS:
            self.fetches.append(time.monotonic())
            return _spell(200, self.jwks)
        if path == METADATA:
            return _spell(200, msgspec.json.encode({"issuer": self.url, "jwks_uri": self.url + KEYS}))
        return _spell(404, b"{}")


def _spell(status: int, body: bytes) -> bytes:
    # Held for an hour: then every fetch in a flood is one that the flood caused.
    head = f"HTTP/1.1 {status} -\r\ncontent-type: application/json\r\ncache-control: max-age=3600\r\n"
    return head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body
