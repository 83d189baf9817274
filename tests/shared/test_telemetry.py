"""Metrics: who may read them, and that they add up over workers."""

import asyncio
import os
import subprocess
import sys

import pytest
from prometheus_client import CollectorRegistry, Histogram

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


def test_gathered_request_times_are_what_the_histogram_would_have_counted():
    """Handing over several observations at once uses two inner names of the library: this holds them."""
    direct = Histogram("direct_seconds", "x", ["m", "r", "s"], buckets=telemetry.BUCKETS, registry=CollectorRegistry())
    gathered = Histogram(
        "gathered_seconds", "x", ["m", "r", "s"], buckets=telemetry.BUCKETS, registry=CollectorRegistry()
    )
    times = telemetry.RequestTimes(gathered)
    for seconds in (0.0, 0.0001, 0.00025, 0.003, 0.01, 4.0, 60.0):
        direct.labels("GET", "/x", "200").observe(seconds)
        times.note("GET", "/x", 200, seconds)
    times.settle()

    def samples(histogram):
        (family,) = histogram.collect()
        return {
            (sample.name.split("_", 1)[1], sample.labels.get("le")): sample.value
            for sample in family.samples
            if not sample.name.endswith("_created")
        }

    assert samples(gathered) == samples(direct)


async def test_request_times_are_handed_over_by_themselves():
    """Within a quarter of a second where a loop runs; a scrape does not wait even for that."""
    histogram = Histogram("soon_seconds", "x", ["m", "r", "s"], registry=CollectorRegistry(), buckets=telemetry.BUCKETS)
    times = telemetry.RequestTimes(histogram, settle_after_s=0.0)
    times.note("BREW", "/x", 200, 0.1)
    async with asyncio.timeout(5):
        while not any(sample.name.endswith("_count") and sample.value for sample in histogram.collect()[0].samples):
            await asyncio.sleep(0.01)
    assert {sample.labels["m"] for sample in histogram.collect()[0].samples} == {"other"}
