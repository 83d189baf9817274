"""Prometheus metrics of both servers. Labels are bounded: never an id that a caller chose, never a raw path.

With several workers the values live in files that ``prometheus_client`` shares between them: ``shared.serve`` sets
``PROMETHEUS_MULTIPROC_DIR`` before this module is imported.
"""

import ipaddress
import os
from collections.abc import Sequence

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client import REGISTRY as DEFAULT_REGISTRY
from prometheus_client.multiprocess import MultiProcessCollector

BUCKETS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

REQUEST_SECONDS = Histogram(
    "http_server_request_duration_seconds",
    "Time to answer a request",
    ["http_request_method", "http_route", "http_response_status_code"],
    buckets=BUCKETS,
)
TOKENS_ISSUED = Counter("flex_tokens_issued_total", "Access tokens issued", ["grant_type"])
TOKENS_REFUSED = Counter("flex_token_requests_refused_total", "Token requests refused", ["error"])
SIGNING_QUEUE = Gauge("flex_signing_queue_length", "Tokens that wait for their signature", multiprocess_mode="livesum")
BEARER_REFUSED = Counter("flex_bearer_refused_total", "Bearer tokens refused", ["reason"])
KEY_SET_AGE = Gauge("flex_key_set_age_seconds", "Age of the key set in use", multiprocess_mode="livemax")
KEY_SET_FETCHES = Counter("flex_key_set_fetches_total", "Fetches of the issuer's key set", ["result"])
UNKNOWN_KIDS = Counter("flex_unknown_kid_total", "Tokens whose kid is in no key set")
SCORES = Counter("flex_scores_total", "Records scored", ["attribute", "outcome"])
RECORDS_REFUSED = Counter("flex_records_refused_total", "Records refused", ["attribute"])


def render() -> tuple[bytes, str]:
    """Give all metrics in the Prometheus text format, summed over the workers of this server, and its media type."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry), CONTENT_TYPE_LATEST
    return generate_latest(DEFAULT_REGISTRY), CONTENT_TYPE_LATEST


def may_read(address: str | None, networks: Sequence[str]) -> bool:
    """Whether a peer address may read the metrics: the loopback, or one of the configured CIDR networks."""
    if address is None:
        return False
    try:
        peer = ipaddress.ip_address(address)
    except ValueError:
        return False
    return peer.is_loopback or any(peer in ipaddress.ip_network(network, strict=False) for network in networks)
