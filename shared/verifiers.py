"""Who verifies our tokens, and which keys each of them has proved: reports and canaries in the store, authenticated.

A verifier proves a key by verifying that key's canary: a token signed with it whose audience is no resource at all, so
it opens nothing. What is not authentic under the feed key is passed over: it can neither hold up nor hasten a rotation.
"""

import hmac
from collections.abc import Awaitable, Mapping
from typing import TypeVar, cast

import msgspec
from redis.asyncio import Redis

from shared.revocations.feed_key import FeedKey
from shared.store import store_errors

CANARY_AUDIENCE = "urn:flex:canary"
CANARY_CLIENT = "canary"
VERIFIERS_KEY = "flex:verifiers"
CANARIES_KEY = "flex:canaries"
REPORTS_TTL_S = 7 * 86400
_CODE_BYTES = 32
T = TypeVar("T")


class VerifierReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one verifier says about itself. Times are UTC seconds by its own clock.

    ``kids`` it holds, ``proofs``: when it verified the canary of which kid, ``generation`` of the canaries that it saw
    last, ``feed_state`` and ``staleness_s`` of its revocations (None: it never had any).
    """

    verifier_id: str
    started_at: float
    seen_at: float
    kids: tuple[str, ...]
    proofs: dict[str, float]
    generation: int = 0
    feed_state: str = ""
    staleness_s: float | None = None


class Canaries(msgspec.Struct, frozen=True):
    """One canary a key (compact JWT by kid) of one generation of the ring."""

    generation: int
    written_at: float
    canaries: dict[str, str]


async def publish_canaries(
    store: Redis, feed_key: FeedKey, generation: int, canaries: Mapping[str, str], now: float
) -> None:
    """Replace the canaries. Raises AppError store_unavailable."""
    body = msgspec.json.encode(Canaries(generation, now, dict(canaries)))
    with store_errors():
        await store.set(CANARIES_KEY, _signed(feed_key, b"canaries", body))


async def read_canaries(store: Redis, feed_key: FeedKey) -> Canaries | None:
    """Read the canaries; None if there are none that are authentic. Raises AppError store_unavailable."""
    with store_errors():
        raw = cast("bytes | None", await store.get(CANARIES_KEY))
    return _decoded(_authentic(feed_key, b"canaries", raw), Canaries)


async def report(store: Redis, feed_key: FeedKey, said: VerifierReport) -> None:
    """Write one verifier's report. Raises AppError store_unavailable."""
    raw = _signed(feed_key, b"verifier", msgspec.json.encode(said))
    with store_errors():
        await store.hset(VERIFIERS_KEY, said.verifier_id, cast("str", raw))
        await store.expire(VERIFIERS_KEY, REPORTS_TTL_S)


async def read_reports(store: Redis, feed_key: FeedKey) -> tuple[VerifierReport, ...]:
    """Read every authentic report, in the order of their ids. Raises AppError store_unavailable."""
    with store_errors():
        rows = await cast("Awaitable[dict[bytes, bytes]]", store.hgetall(VERIFIERS_KEY))
    found = []
    for field, raw in rows.items():
        said = _decoded(_authentic(feed_key, b"verifier", raw), VerifierReport)
        if said is not None and said.verifier_id.encode() == field:
            found.append(said)
    return tuple(sorted(found, key=lambda each: each.verifier_id))


async def forget(store: Redis, verifier_id: str) -> None:
    """Take a verifier that stops out of the registry. Raises AppError store_unavailable."""
    with store_errors():
        await store.hdel(VERIFIERS_KEY, verifier_id)


def _signed(feed_key: FeedKey, purpose: bytes, body: bytes) -> bytes:
    return feed_key.authenticator(purpose).mac(body) + body


def _authentic(feed_key: FeedKey, purpose: bytes, raw: bytes | None) -> bytes | None:
    code, body = (raw or b"")[:_CODE_BYTES], (raw or b"")[_CODE_BYTES:]
    return body if hmac.compare_digest(code, feed_key.authenticator(purpose).mac(body)) else None


def _decoded(body: bytes | None, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(body, type=kind) if body is not None else None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
