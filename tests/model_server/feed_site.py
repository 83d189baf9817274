"""A real store with a revocation feed, and model servers that follow it, for tests."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
from redis.asyncio import Redis

from model_server.app import build_app
from model_server.remote_keys import RemoteKeys
from model_server.revocations import Revocations
from model_server.settings import ModelSettings
from shared.access_token import KeySet
from shared.revocations.entries import Revocation
from shared.revocations.feed_key import load_or_create_feed_key
from shared.revocations.writer import RevocationFeed
from shared.secret import Secret
from shared.store import connect
from tests.model_server.serving import Api, lifespan
from tests.tokens import AUDIENCE, Issuer

LIMIT_S = 900


class FeedSite:
    """One installation's store and feed, written with the test's clock."""

    def __init__(self, settings: ModelSettings, socket: Path, clock: Any) -> None:
        self.settings = replace(settings, redis_url=Secret(f"unix://{socket}"))
        self.clock = clock
        self.key = load_or_create_feed_key(self.settings.feed_key_file)
        self.client: Redis = connect(self.settings)
        self.feed = RevocationFeed(self.client, self.key, clock=clock, max_token_life_s=3600, leeway_s=30)

    def without_store(self) -> ModelSettings:
        """The same installation, whose store does not answer."""
        return replace(self.settings, redis_url=Secret(f"unix://{self.settings.var_dir}/nobody.sock"))

    async def revoke(self, revocation: Revocation) -> None:
        """Revoke; the writer waits until the clock has moved on, so it does."""
        writing = asyncio.create_task(self.feed.revoke(revocation))
        await asyncio.sleep(0)
        self.clock.advance(0.002)
        await writing

    def revocations(self) -> Revocations:
        return Revocations(limit_s=LIMIT_S, snapshot=self.settings.revocations_file, clock=self.clock)


@contextlib.asynccontextmanager
async def following(
    settings: ModelSettings,
    attributes: Any,
    issuer: Issuer,
    keys: KeySet | RemoteKeys,
    revocations: Revocations,
    clock: Any,
) -> AsyncIterator[Api]:
    """A running model server that follows the feed."""
    app = build_app(settings, attributes, keys, clock=clock, revocations=revocations)
    transport = httpx.ASGITransport(app, client=("127.0.0.1", 5))
    async with lifespan(app), httpx.AsyncClient(transport=transport, base_url=AUDIENCE) as http:
        yield Api(http, issuer, attributes)


async def until(condition: Callable[[], object], timeout_s: float = 5.0) -> None:
    """Wait for what another task does."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.002)
