"""A token endpoint and a resource of our own, behind one real socket, that count and misbehave on request."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


@dataclass
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Upstream:
    """What the server does, and what it saw. ``answer`` maps a request to (status, JSON or bytes)."""

    url: str = ""
    seen: list[Seen] = field(default_factory=list)
    life_s: float = 900.0
    token_status: int = 200
    token_error: object = None
    hang: bool = False
    refused: set[str] = field(default_factory=set)
    answer: Callable[[Seen], tuple[int, object]] = lambda _: (200, {"ok": True})
    go_on: threading.Event = field(default_factory=threading.Event)
    token_asked: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    n_tokens: int = 0
    extra_headers: dict[str, str] = field(default_factory=dict)

    @property
    def token_endpoint(self) -> str:
        return f"{self.url}/oauth2/token"

    @property
    def token_requests(self) -> list[Seen]:
        return [seen for seen in self.seen if seen.path == "/oauth2/token"]

    @property
    def calls(self) -> list[Seen]:
        return [seen for seen in self.seen if seen.path != "/oauth2/token"]

    def respond(self, seen: Seen) -> tuple[int, object]:
        with self.lock:
            self.seen.append(seen)
        return self.token() if seen.path == "/oauth2/token" else self.resource(seen)

    def token(self) -> tuple[int, object]:
        self.token_asked.set()
        if self.hang:
            self.go_on.wait(20)
        if self.token_status != 200:
            return self.token_status, self.token_error
        with self.lock:
            self.n_tokens += 1
            number = self.n_tokens
        return 200, {"access_token": f"token-{number}", "token_type": "Bearer", "expires_in": self.life_s}

    def resource(self, seen: Seen) -> tuple[int, object]:
        token = seen.headers.get("authorization", "").removeprefix("Bearer ")
        if token in self.refused or "*" in self.refused:
            return 401, {"title": "Invalid token", "status": 401, "detail": "The access token is not valid."}
        return self.answer(seen)


def _handler(upstream: Upstream) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _read(self) -> bytes:
            if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def _serve(self) -> None:
            names = {name.lower(): value for name, value in self.headers.items()}
            status, answer = upstream.respond(Seen(self.command, self.path, names, self._read()))
            raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            try:
                self.send_response(status)
                for name, value in upstream.extra_headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)
            except OSError:
                self.close_connection = True  # the client gave up waiting: that is what some tests are about

        do_GET = do_POST = _serve  # noqa: N815 - the names that http.server looks for

        def log_message(self, *_: object) -> None:
            """Keep the test output quiet."""

    return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """A fresh server on a free port."""
    upstream = Upstream()
    server = _Server(("127.0.0.1", 0), _handler(upstream))
    upstream.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield upstream
    upstream.go_on.set()
    server.shutdown()
    thread.join()
    server.server_close()
