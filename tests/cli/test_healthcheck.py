"""The containers' health check."""

import http.server
import threading
from collections.abc import Iterator

import pytest

from cli.healthcheck import main


class _Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/good" else 503)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), _Answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_only_200_is_healthy(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A server that is not ready, or not there, is not healthy."""
    assert main([f"{url}/good"]) == 0
    assert main([f"{url}/bad"]) == 1
    assert "503" in capsys.readouterr().err
    assert main(["http://127.0.0.1:1/"]) == 1


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["file:///etc/passwd"]])
def test_wrong_usage_is_2(arguments: list[str]) -> None:
    """Only one http address is taken."""
    assert main(arguments) == 2
