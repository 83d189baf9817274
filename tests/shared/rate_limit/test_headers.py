"""What callers read: RateLimit-Policy, RateLimit, Retry-After and the quota problems."""

import asyncio
import json

from redis.asyncio import Redis

from shared.http import problem_body
from shared.rate_limit.gcra import Limit
from shared.rate_limit.headers import QUOTA_EXCEEDED, REDUCED_CAPACITY, RateLimitHeaders, refused
from shared.rate_limit.lease import KeySet, Refusal
from shared.rate_limit.leases import Limiter
from shared.rate_limit.limits import LimitKey, Measure
from shared.secret import Secret

HOUR = LimitKey("client:a", Limit(100, 3600))
ROWS = LimitKey("rows:a", Limit(1000, 60), Measure.ROWS, "rows-minute")


def shown_by(lines: bytes) -> dict[bytes, bytes]:
    """Header lines as a caller sees them."""
    return dict(line.split(b": ", 1) for line in lines.removesuffix(b"\r\n").split(b"\r\n"))


async def test_an_answer_names_policy_and_rest(client: Redis, clock) -> None:
    """The draft's own form; every call takes one from r, and t is the time to the next unit."""
    headers = RateLimitHeaders()
    async with Limiter(client, n_workers=1, clock=clock, store_clock_us=lambda: int(clock() * 1e6)) as limiter:
        key_set = limiter.key_set([HOUR, ROWS])
        for used in (1, 2, 3, 4):
            assert await limiter.acquire(key_set)
            shown = shown_by(headers.lines(key_set, clock()))
            assert shown[b"ratelimit-policy"] == b'"hour";q=100;w=3600, "rows-minute";q=1000;w=60'
            assert shown[b"ratelimit"].startswith(b'"hour";r=%d;t=3' % (100 - used))
            assert b'"rows-minute";r=%d;t=1' % (1000 - used) in shown[b"ratelimit"]


async def test_a_refusal_says_when_and_never_too_early(client: Redis, clock) -> None:
    """Retry-After is not before t of the limit that was hit, and at that time the call passes."""
    headers = RateLimitHeaders()
    async with Limiter(client, n_workers=1, clock=clock, store_clock_us=lambda: int(clock() * 1e6)) as limiter:
        key_set = limiter.key_set([HOUR])
        answer = None
        while not isinstance(answer, Refusal):
            answer = await limiter.acquire(key_set)
        shown = shown_by(headers.lines(answer.key_set, clock()))
        wait_s = refused(answer).retry_after_s
        assert shown[b"ratelimit"] == b'"hour";r=0;t=36'
        assert wait_s >= 36
        clock.advance(wait_s)
        assert not isinstance(await limiter.acquire(key_set), Refusal)


async def test_partition_keys_tell_nothing_of_the_client(client: Redis) -> None:
    """The same client has the same key, another one another, and without the secret none can be computed."""
    headers = RateLimitHeaders(Secret("k" * 32))
    async with Limiter(client, n_workers=1) as limiter:
        first, second = (limiter.key_set([HOUR._replace(name=f"client:{name}")]) for name in "ab")
        policies = [shown_by(headers.lines(key_set, 0.0))[b"ratelimit-policy"] for key_set in (first, second, first)]
    assert policies[0] == policies[2] != policies[1]
    assert policies[0].startswith(b'"hour";q=100;w=3600;pk=:')
    assert b"client" not in policies[0]


async def test_no_limits_no_headers(client: Redis) -> None:
    """An unlimited call says nothing about limits."""
    async with Limiter(client, n_workers=1) as limiter:
        assert RateLimitHeaders().lines(limiter.key_set([]), 0.0) == b""
        await asyncio.sleep(0)


def test_problems_are_the_registered_types() -> None:
    """429 quota-exceeded, 503 temporary-reduced-capacity, each with the violated policies by name."""
    quota = json.loads(problem_body(refused(Refusal(KeySet([HOUR]), ("hour",), 36)), "r-1"))
    assert (quota["type"], quota["status"], quota["violated-policies"]) == (QUOTA_EXCEEDED, 429, ["hour"])
    assert quota["instance"] == "r-1"
    assert quota["error"] == quota["detail"]
    capacity = refused(Refusal(KeySet([HOUR]), (), 1, capacity=True))
    assert (capacity.problem_type, capacity.status, capacity.retry_after_s) == (REDUCED_CAPACITY, 503, 1)
    never = Refusal(KeySet([HOUR]), ("hour",), None)
    assert (refused(never).status, refused(never).retry_after_s) == (429, 3600)
