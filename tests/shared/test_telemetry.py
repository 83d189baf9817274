"""Metrics: who may read them, and that they add up over workers."""

import os
import subprocess
import sys

import pytest

from shared import telemetry


@pytest.mark.parametrize(
    ("address", "networks", "allowed"),
    [
        ("127.0.0.1", (), True),
        ("::1", (), True),
        ("10.0.0.5", (), False),
        ("10.0.0.5", ("10.0.0.0/8",), True),
        ("192.168.1.1", ("10.0.0.0/8",), False),
        (None, (), False),
        ("not an address", ("0.0.0.0/0",), False),
    ],
)
def test_only_the_loopback_and_configured_networks_may_read(address, networks, allowed):
    """Metrics tell much about a system."""
    assert telemetry.may_read(address, networks) is allowed


def test_rendered_metrics_are_in_the_prometheus_text_format():
    """Our own families are there with their help."""
    telemetry.TOKENS_ISSUED.labels("client_credentials").inc()
    body, media_type = telemetry.render()
    assert b'flex_tokens_issued_total{grant_type="client_credentials"}' in body
    assert media_type.startswith("text/plain")


def test_the_workers_of_one_server_are_summed(tmp_path):
    """Two processes count; one scrape sees both."""
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    count = "from shared import telemetry as t; t.TOKENS_ISSUED.labels('g').inc(2)"
    for _ in range(2):
        subprocess.run([sys.executable, "-c", count], check=True, env=environment)
    show = "from shared import telemetry as t; print(t.render()[0].decode())"
    seen = subprocess.run([sys.executable, "-c", show], check=True, env=environment, capture_output=True, text=True)
    assert 'flex_tokens_issued_total{grant_type="g"} 4.0' in seen.stdout
