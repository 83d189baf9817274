"""Which verifiers there are, what each holds, and the proof that it can verify with a key that does not sign yet.

The auth server signs a canary token with every key that it publishes and puts them into the store; each process of a
model server verifies them as it verifies every token, and reports which it could. So a rotation can wait for all.

Canaries and reports are authenticated with the feed key: whoever can write to the store can't claim a proof. They can
delete or repeat old ones; a verifier that then looks silent holds a rotation up for as long as :func:`settled_at` says.
"""

import hmac
from collections.abc import Awaitable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, TypeVar, cast

import msgspec

from shared.revocations.feed_key import FeedKey
from shared.telemetry import VERIFIER_REPORTS_REFUSED

if TYPE_CHECKING:
    from redis.asyncio import Redis

VERIFIERS_KEY = "flex:verifiers"
CANARIES_KEY = "flex:canaries"
CANARY_AUDIENCE = "urn:flex:canary"  # of no resource, so a canary opens nothing
REPORT_EVERY_S = 2.0
LIVE_S = 30.0
KEEP_S = 2 * 86_400.0  # twice the longest time for which a verifier may use a key set without asking again
MAX_CANARIES = 16
_CANARIES_TTL_S = 3600
_MAX_BYTES = 128 * 1024
_CODE_BYTES = 32


class Canaries(msgspec.Struct, frozen=True):
    """Tokens by the kid that signed them; ``written_at`` UTC seconds, ``generation`` of the issuer's key ring."""

    generation: int
    written_at: float
    canaries: dict[str, str]


class VerifierReport(msgspec.Struct, frozen=True):
    """What one process of a model server says of itself; times are UTC seconds by its own clock.

    ``id`` stays the same over its restarts. ``proofs`` holds when it first verified the canary of each of the ``kids``
    that it still holds. ``staleness_s`` is the age of its revocations, None if it knows nothing; ``generation`` that of
    the canaries it saw last, 0 if none.
    """

    id: str
    started_at: float
    seen_at: float
    kids: tuple[str, ...]
    proofs: dict[str, float]
    feed_state: str
    staleness_s: float | None
    generation: int

    def is_live(self, now: float) -> bool:
        """Whether it was heard of lately."""
        return now - self.seen_at <= LIVE_S

    def settled_at(self, cache_bound_s: float) -> float:
        """When even a silent verifier holds no key set older than its last report (UTC seconds)."""
        return self.seen_at + cache_bound_s


_Signed = TypeVar("_Signed", Canaries, VerifierReport)
_encode = msgspec.json.Encoder().encode


async def publish_canaries(
    store: "Redis", feed_key: FeedKey, generation: int, canaries: Mapping[str, str], now: float
) -> None:
    """Replace the canaries; they are gone an hour later unless published again. Raises AppError store_unavailable."""
    raw = _sign(feed_key, b"canaries", Canaries(generation, now, dict(canaries)))
    with _store_errors():
        await store.set(CANARIES_KEY, raw, ex=_CANARIES_TTL_S)


async def read_canaries(store: "Redis", feed_key: FeedKey) -> Canaries | None:
    """Give the canaries; None if there are none, or none that are authentic. Raises AppError store_unavailable."""
    with _store_errors():
        raw = cast("bytes | None", await store.get(CANARIES_KEY))
    found = _verified(feed_key, b"canaries", raw or b"", Canaries)
    return found if found is not None and len(found.canaries) <= MAX_CANARIES else None


async def report(store: "Redis", feed_key: FeedKey, said: VerifierReport) -> None:
    """Replace one verifier's report; the last one of all keeps for two days. Raises AppError store_unavailable."""
    with _store_errors():
        async with store.pipeline(transaction=False) as pipe:
            pipe.hset(VERIFIERS_KEY, said.id, cast("str", _sign(feed_key, b"verifier", said)))
            pipe.expire(VERIFIERS_KEY, round(KEEP_S))
            await pipe.execute()


async def read_reports(store: "Redis", feed_key: FeedKey) -> tuple[VerifierReport, ...]:
    """Give all authentic reports by id, silent verifiers' too; others are counted. Raises AppError
    store_unavailable.
    """
    with _store_errors():
        raw = await cast("Awaitable[dict[bytes, bytes]]", store.hgetall(VERIFIERS_KEY))
    found = []
    for verifier_id, signed in raw.items():
        said = _verified(feed_key, b"verifier", signed, VerifierReport)
        if said is None or said.id.encode() != verifier_id:
            VERIFIER_REPORTS_REFUSED.inc()
        else:
            found.append(said)
    return tuple(sorted(found, key=lambda said: said.id))


async def forget(store: "Redis", *verifier_ids: str) -> None:
    """Take verifiers off the list: they have stopped and verify nothing more. Raises AppError store_unavailable."""
    if verifier_ids:
        with _store_errors():
            await store.hdel(VERIFIERS_KEY, *verifier_ids)


def long_silent(reports: Iterable[VerifierReport], now: float) -> tuple[str, ...]:
    """Ids of verifiers that were not heard of for two days: no key set that they held can be in use."""
    return tuple(said.id for said in reports if now - said.seen_at > KEEP_S)


def _store_errors() -> AbstractContextManager[None]:
    from shared.store import store_errors  # noqa: PLC0415 - 7 MiB that a server without a feed need not load

    return store_errors()


def _sign(feed_key: FeedKey, purpose: bytes, value: Canaries | VerifierReport) -> bytes:
    body = _encode(value)
    return feed_key.authenticator(purpose).mac(body) + body


def _verified(feed_key: FeedKey, purpose: bytes, raw: bytes, kind: type[_Signed]) -> _Signed | None:
    code, body = raw[:_CODE_BYTES], raw[_CODE_BYTES:_MAX_BYTES]
    if not hmac.compare_digest(feed_key.authenticator(purpose).mac(body), code):
        return None
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError:
        return None
