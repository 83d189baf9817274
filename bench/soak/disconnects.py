"""Nothing is ever missed: two followers whose connections break at random moments, and a store that is killed.

Two writers revoke all the time; what they were told is written is the truth. At the end each follower must hold all of
it, and nothing else.
"""

import asyncio
import contextlib
import os
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from redis.asyncio import Redis

from bench.children import free_port
from bench.soak.proxy import Fault, Proxy
from bench.soak.store_process import Store
from shared.errors import AppError
from shared.revocations.entries import Kind, Revocation, TokenMarks, client_revoked
from shared.revocations.feed_key import FeedKey
from shared.revocations.follower import FeedFollower
from shared.revocations.revoked import RevokedSet
from shared.revocations.writer import RevocationFeed
from shared.secret import Secret
from shared.settings import Settings
from shared.store import connect

LIFE_S, LEEWAY_S = 3600.0, 30.0
N_FOLLOWERS = N_WRITERS = 2
RESTART_EVERY = 25  # disconnects between two deaths of the store
SETTLED_WITHIN_S = 30.0
_PAUSE_S = 0.01


class DisconnectProof(msgspec.Struct, frozen=True):
    """What came of it; ``missed`` and ``extra`` are revocations that a follower lacks, and holds without reason."""

    n_disconnects: int
    n_restarts: int
    n_revocations: int
    missed: int
    extra: int
    seconds: float
    settled_s: float

    @property
    def held(self) -> bool:
        """Whether every follower held the truth."""
        return self.missed == 0 and self.extra == 0


@dataclass(slots=True)
class _Followed:
    revoked: RevokedSet
    follower: FeedFollower


@dataclass(slots=True)
class _Truth:
    """What the writers were told is written."""

    tokens: list[bytes] = field(default_factory=list)
    clients: list[tuple[bytes, int]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.tokens) + len(self.clients)


async def prove(folder: Path, n_disconnects: int, *, seed: int = 1, tell: Callable[[str], None]) -> DisconnectProof:
    """Break at least ``n_disconnects`` connections of followers, then compare. Raises TimeoutError."""
    store, key, truth, began = Store(folder / "store", free_port()), FeedKey(os.urandom(32)), _Truth(), time.monotonic()
    proxy = Proxy(free_port(), store.port)
    done = asyncio.Event()
    await store.start()
    await proxy.start()
    direct = [connect(Settings(redis_url=Secret(f"redis://127.0.0.1:{store.port}"))) for _ in range(N_WRITERS)]
    feeds = [RevocationFeed(one, key, clock=time.time, max_token_life_s=LIFE_S, leeway_s=LEEWAY_S) for one in direct]
    try:
        async with _followers(proxy.port, key) as followed:
            writing = [asyncio.create_task(_write(feed, truth, done)) for feed in feeds]
            n_cut, n_restarts = await _break(store, proxy, n_disconnects, random.Random(seed), tell)
            done.set()
            await asyncio.gather(*writing)
            ended = time.monotonic()
            await _settle(feeds[0], followed)
            settled_s = time.monotonic() - ended
            missed, extra = _compare(truth, followed)
    finally:
        for one in direct:
            await one.aclose()
        await proxy.stop()
        await store.kill()
    seconds = time.monotonic() - began
    return DisconnectProof(n_cut, n_restarts, len(truth), missed, extra, round(seconds, 1), round(settled_s, 2))


@asynccontextmanager
async def _followers(port: int, key: FeedKey) -> AsyncIterator[list[_Followed]]:
    def open_store() -> Redis:
        return connect(Settings(redis_url=Secret(f"redis://127.0.0.1:{port}")))

    followed = []
    for _ in range(N_FOLLOWERS):
        revoked = RevokedSet(LIFE_S, LEEWAY_S)
        followed.append(_Followed(revoked, FeedFollower(open_store, key, revoked, clock=time.time)))
    tasks = [asyncio.create_task(one.follower.follow()) for one in followed]
    try:
        yield followed
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _write(feed: RevocationFeed, truth: _Truth, done: asyncio.Event) -> None:
    """Revoke one token and one client after the other; each is tried until it is acknowledged."""
    while not done.is_set():
        client, now = os.urandom(8).hex(), time.time()
        token = Revocation(Kind.TOKEN, os.urandom(16), round((now + LIFE_S) * 1000))
        await _until_written(feed, [token, client_revoked(client, now)])
        truth.tokens.append(token.key)
        truth.clients.append((client.encode(), round(now * 1000)))
        await asyncio.sleep(_PAUSE_S)


async def _until_written(feed: RevocationFeed, revocations: list[Revocation]) -> None:
    while True:
        try:
            await feed.revoke_many(revocations)
            await feed.heartbeat()
        except AppError:
            await asyncio.sleep(0.01)
        else:
            return


async def _break(
    store: Store, proxy: Proxy, n_disconnects: int, chance: random.Random, tell: Callable[[str], None]
) -> tuple[int, int]:
    n_cut, n_restarts = 0, 0
    while n_cut < n_disconnects:
        await asyncio.sleep(chance.random() * 0.03)
        if chance.random() < 0.1:  # a moment of silence before it: what was sent arrives late, or never
            proxy.set(Fault.SILENCE)
            await asyncio.sleep(chance.random() * 0.05)
            n_cut += proxy.reset() // 2
            proxy.set(Fault.NONE)
        else:
            n_cut += proxy.reset() // 2  # each connection has two ends
        if n_cut // RESTART_EVERY > n_restarts:
            await store.kill()
            await store.start()
            n_restarts += 1
            tell(f"{min(n_cut, n_disconnects)} of {n_disconnects} disconnects, {n_restarts} restarts of the store")
    return n_cut, n_restarts


async def _settle(feed: RevocationFeed, followed: list[_Followed]) -> None:
    """Wait until each follower has a heartbeat of later than now."""
    now = time.time()
    async with asyncio.timeout(SETTLED_WITHIN_S):
        while not all((one.follower.as_of or 0.0) > now for one in followed):
            with contextlib.suppress(AppError):  # the store was just started again
                await feed.heartbeat()
            await asyncio.sleep(0.05)


def _compare(truth: _Truth, followed: list[_Followed]) -> tuple[int, int]:
    missed = extra = 0
    for one in followed:
        held = one.revoked
        lacking = sum(held.is_revoked(_marks(token=key)) is None for key in truth.tokens)
        lacking += sum(held.is_revoked(_marks(client=key, issued_ms=at)) is None for key, at in truth.clients)
        missed += lacking
        extra += len(held) - (len(truth) - lacking)
    return missed, extra


def _marks(*, token: bytes = b"-", client: bytes = b"-", issued_ms: int = 0) -> TokenMarks:
    return TokenMarks(
        token=token, signing_key=b"-", client=client, subject=b"-", grant=b"", api_key=b"", issued_ms=issued_ms
    )
