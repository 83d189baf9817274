"""Limits and usage of one worker, from the settings to what runs while it serves."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Self

from redis.asyncio import Redis

from model_server.accounts import Accounts
from model_server.metering import Meter
from model_server.settings import ModelSettings
from shared import store as stores
from shared.rate_limit.leases import Limiter
from shared.rate_limit.store_loss import ALONE, MODEL_CALLS
from shared.usage import UsageLedger


class Charges:
    """Keeps leases and uploads usage for the body of an ``async with``; without a store only the limits hold."""

    def __init__(self, accounts: Accounts, store: Redis | None) -> None:
        self.accounts = accounts
        self._store = store
        self._stack = AsyncExitStack()

    @classmethod
    def open(cls, settings: ModelSettings, clock: Callable[[], float]) -> Self:
        """Build them; nothing is connected yet, and the store may be away at any time."""
        store = stores.connect(settings) if settings.has_store else None
        policy = ALONE if store is None else MODEL_CALLS
        limiter = Limiter(store, n_workers=settings.workers, policy=policy)
        accounts = Accounts(
            limiter,
            Meter(clock),
            calls_per_hour=settings.calls_per_hour,
            attribute_limits=settings.attribute_limits,
            explanation_weight=settings.explanation_weight,
        )
        return cls(accounts, store)

    async def __aenter__(self) -> Self:
        store = self._store
        if store is not None:
            self._stack.push_async_callback(stores.close, store)
        await self._stack.enter_async_context(self.accounts.limiter)
        meter, ledger = self.accounts.meter, None if store is None else UsageLedger(store)
        self._stack.push_async_callback(meter.finish, ledger)
        self._stack.push_async_callback(_end, asyncio.create_task(meter.keep_uploading(ledger)))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()


async def _end(task: asyncio.Task[None]) -> None:
    while not task.done():  # redis-py may lose a cancellation that comes together with a reply
        task.cancel()
        await asyncio.wait([task], timeout=0.5)
