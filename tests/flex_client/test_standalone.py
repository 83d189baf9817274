"""The client package stands alone."""

import json
import subprocess
import sys

PROGRAM = """
import sys, json
import flex_client
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def test_client_loads_neither_server_nor_anything_but_httpx():
    """What a caller installs is httpx; the servers' packages must not be needed."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True, timeout=30)
    loaded = set(json.loads(done.stdout))
    foreign = {"shared", "auth_server", "model_server", "cli", "msgspec", "starlette", "typer", "pydantic", "authlib"}
    assert "httpx" in loaded
    assert not loaded & foreign
