"""What the caller is told: draft-ietf-httpapi-ratelimit-headers-10, and the quota problem types registered with it.

``RateLimit-Policy: "hour";q=100;w=3600;pk=:base64:`` and ``RateLimit: "hour";r=42;t=36`` (``t``: seconds until there
is more, not until all is back). ``r`` is what this worker knows: exact near the limit, else without what other workers
spent or returned since it last asked.
"""

import base64
import hashlib
import hmac
from math import ceil

from shared.errors import AppError
from shared.rate_limit.lease import KeySet, Refusal
from shared.secret import Secret

QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"
REDUCED_CAPACITY = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"
_PARTITION_BYTES = 12
_TOO_LARGE_RETRY_S = 3600


class RateLimitHeaders:
    """Makes the headers. With ``partition_key`` each policy names its partition (``pk``) by an HMAC of the limit's
    name: the same for the same client, and no way back to its id.
    """

    def __init__(self, partition_key: Secret | None = None) -> None:
        self._partition_key = partition_key

    def lines(self, key_set: KeySet, now: float) -> bytes:
        """Header lines, as they are sent, of an answer to a limited call; ``now`` is the limiter's monotonic clock.

        Empty without limits. One piece for both headers: they are different for every answer.
        """
        template = key_set.header_lines
        if template is None:
            template = key_set.header_lines = self._template(key_set)
        leases = key_set.leases
        if len(leases) == 1:  # one limit is the usual, and this is asked for every answer
            (lease,) = leases
            wait_s = lease.next_unit_at - now
            return template % (lease.room + lease.units, 1 if wait_s <= 1 else ceil(wait_s))
        values: list[int] = []
        for lease in leases:
            values += (lease.room + lease.units, max(ceil(lease.next_unit_at - now), 1))
        return template % tuple(values)

    def _template(self, key_set: KeySet) -> bytes:
        policies, states = [], []
        for key in key_set.keys:
            partition = b""
            if self._partition_key is not None:
                secret = self._partition_key.reveal().encode()
                digest = hmac.digest(secret, key.name.encode(), hashlib.sha256)[:_PARTITION_BYTES]
                partition = b";pk=:" + base64.b64encode(digest) + b":"
            name = key.policy.encode("ascii")
            policies.append(b'"%s";q=%d;w=%d%s' % (name, key.limit.count, key.limit.window_s, partition))
            states.append(b'"%s";r=%%d;t=%%d%s' % (name, partition))
        if not policies:
            return b""
        return b"ratelimit-policy: %b\r\nratelimit: %b\r\n" % (b", ".join(policies), b", ".join(states))


def retry_after_s(refusal: Refusal) -> int:
    """Seconds for Retry-After, at least 1; an hour for a call that costs more than a whole limit, which never fits."""
    return _TOO_LARGE_RETRY_S if refusal.retry_after_s is None else max(refusal.retry_after_s, 1)


def refused(refusal: Refusal) -> AppError:
    """Say what was refused: 429 with the registered problem type, or 503 if only capacity is lacking."""
    if refusal.capacity:
        code, kind = "overloaded", REDUCED_CAPACITY
        detail = "The service can't take this call right now; try again as Retry-After says."
    elif refusal.retry_after_s is None:
        code, kind = "too_many_requests", QUOTA_EXCEEDED
        detail = "This call alone costs more than the whole limit allows; send fewer records at once."
    else:
        code, kind = "too_many_requests", QUOTA_EXCEEDED
        detail = "The caller's budget is used up; wait as long as Retry-After says."
    return AppError(
        code,
        detail,
        retry_after_s=retry_after_s(refusal),
        reason="limit",
        problem_type=kind,
        violated_policies=refusal.violated,
    )
