"""Prometheus metrics of both servers. Labels are bounded: never an id that a caller chose, never a raw path.

With several workers the values live in files that ``prometheus_client`` shares between them: ``shared.serve`` sets
``PROMETHEUS_MULTIPROC_DIR`` before this module is imported.
"""

import asyncio
import ipaddress
import os
from bisect import bisect_left
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
TOKENS_ISSUED_WITHOUT_STORE = Counter(
    "flex_tokens_issued_without_store_total", "Access tokens issued from memory while the store was away"
)
TOKENS_REFUSED = Counter("flex_token_requests_refused_total", "Token requests refused", ["error"])
CLIENT_REQUESTS_REFUSED = Counter(
    "flex_client_requests_refused_total", "Refused revocations and introspections", ["endpoint", "error"]
)
INTROSPECTIONS = Counter("flex_introspections_total", "Tokens introspected", ["active"])
REVOCATIONS_WRITTEN = Counter("flex_revocations_written_total", "Revocations written to the feed", ["kind"])
REVOCATION_NOTICES = Counter("flex_revocation_notices_total", "What the revocation feed told", ["notice"])
SIGNING_QUEUE = Gauge("flex_signing_queue_length", "Tokens that wait for their signature", multiprocess_mode="livesum")
BEARER_REFUSED = Counter("flex_bearer_refused_total", "Bearer tokens refused", ["reason"])
KEY_SET_AGE = Gauge("flex_key_set_age_seconds", "Age of the key set in use", multiprocess_mode="livemax")
KEY_SET_FETCHES = Counter("flex_key_set_fetches_total", "Fetches of the issuer's key set", ["result"])
KEYS_KEPT = Gauge(
    "flex_key_set_keys_kept", "Keys held that the issuer's set no longer has", multiprocess_mode="livemax"
)
UNKNOWN_KIDS = Counter("flex_unknown_kid_total", "Tokens whose kid is in no key set")
REVOCATION_STALENESS = Gauge(
    "flex_revocation_staleness_seconds", "Age of what is known about revocations", multiprocess_mode="livemax"
)
REVOCATIONS_HELD = Gauge("flex_revocations_held", "Live revocations in one process", multiprocess_mode="livemax")
REVOCATION_FOLLOWERS = Gauge(
    "flex_revocation_followers", "Processes by the state of their feed", ["state"], multiprocess_mode="livesum"
)
VERIFIER_REPORTS_REFUSED = Counter("flex_verifier_reports_refused_total", "Verifier reports that are not authentic")
SCORES = Counter("flex_scores_total", "Records scored", ["attribute", "outcome"])
USAGE_DROPPED = Counter("flex_usage_dropped_total", "Calls that no usage report will show")
RECORDS_REFUSED = Counter("flex_records_refused_total", "Records refused", ["attribute"])

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"})


class RequestTimes:
    """Counts answered requests by duration, and hands the counts to ``REQUEST_SECONDS`` four times a second.

    The library's ``observe`` takes 1.3 µs, and several times that where other work has emptied the caches or where the
    values live in files; this takes 0.5. Holds one short list for each method, route and status: few, all of our own
    making; never emptied.
    """

    def __init__(self, histogram: Histogram, settle_after_s: float = 0.25) -> None:
        self._histogram = histogram
        self._settle_after_s = settle_after_s
        self._counts: dict[tuple[str, str, int], list[float]] = {}  # one number a bucket, then the sum of seconds
        self._waits = False

    def note(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answer; ``route`` is a template."""
        counts = self._counts.get((method, route, status))
        if counts is None:
            counts = self._counts[method, route, status] = [0.0] * (len(BUCKETS) + 2)
        counts[bisect_left(BUCKETS, seconds)] += 1
        counts[-1] += seconds
        if not self._waits:
            self._waits = True
            self._settle_soon()

    def _settle_soon(self) -> None:
        try:
            asyncio.get_running_loop().call_later(self._settle_after_s, self.settle)
        except RuntimeError:
            self.settle()

    def settle(self) -> None:
        """Hand everything over now."""
        self._waits = False
        for (method, route, status), counts in self._counts.items():
            if not any(counts):
                continue
            child = self._histogram.labels(method if method in METHODS else "other", route, str(status))
            # The library offers no way to add several observations; a test holds these two names.
            for bucket, count in zip(child._buckets, counts, strict=False):  # noqa: SLF001
                if count:
                    bucket.inc(count)
            child._sum.inc(counts[-1])  # noqa: SLF001
            counts[:] = [0.0] * len(counts)


REQUEST_TIMES = RequestTimes(REQUEST_SECONDS)


def render() -> tuple[bytes, str]:
    """Give all metrics in the Prometheus text format, summed over the workers of this server, and its media type."""
    REQUEST_TIMES.settle()
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
