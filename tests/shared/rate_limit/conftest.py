"""Fixtures for the limiter's tests: a real embedded store and clients of it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from shared import store as stores
from shared.embedded_store import EmbeddedStore
from shared.settings import Settings


@pytest.fixture(scope="session")
def store_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The var folder of one embedded store for all tests that do not harm it."""
    folder = tmp_path_factory.mktemp("limits")
    with EmbeddedStore(folder):
        yield folder


@pytest.fixture
async def client(store_dir: Path) -> AsyncIterator[Redis]:
    """A client of that store, emptied before and checked after: every key must end by itself."""
    redis = stores.connect(Settings(var_dir=store_dir))
    await redis.flushall()
    yield redis
    for key in await redis.keys("*"):
        assert await redis.ttl(key) > 0, f"{key!r} never ends"
    await stores.close(redis)


async def wait_until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Wait for something that another task brings about."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.002)


@pytest.fixture(name="wait_until")
def wait_until_fixture() -> Callable[..., object]:
    """The function above."""
    return wait_until
