"""What ``flex keys`` reads and writes in the store: the verifiers' reports, and revocations of signing keys.

The commands work on the key ring without a store, too; then they say what they do not know, or could not tell.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator

from redis.asyncio import Redis

from auth_server.key_announcements import push_revocations
from auth_server.keyring.changes import explanation
from auth_server.keyring.confirmation import Reports
from auth_server.keyring.policy import LONGEST_TTL_S
from shared.access_token import LEEWAY_S
from shared.embedded_store import EmbeddedStoreError
from shared.errors import AppError
from shared.revocations.feed_key import FeedKey, load_or_create_feed_key
from shared.revocations.writer import RevocationFeed
from shared.settings import Settings
from shared.store import StoreRefusedError, open_store
from shared.verifiers import read_reports

_TROUBLE = (AppError, StoreRefusedError, EmbeddedStoreError, OSError)


@contextlib.contextmanager
def open_reports(settings: Settings) -> Iterator[Callable[[], Reports]]:
    """Gives a function that reads what the verifiers say now; None from it: the store can't be read."""
    with asyncio.Runner() as runner, contextlib.ExitStack() as stack:
        try:
            opening = _opened(settings)
            store, key = runner.run(opening.__aenter__())
            stack.callback(lambda: runner.run(opening.__aexit__(None, None, None)))
        except _TROUBLE:
            yield lambda: None
            return

        def look() -> Reports:
            try:
                return runner.run(read_reports(store, key))
            except AppError:
                return None

        yield look


def push(settings: Settings, kids: tuple[str, ...]) -> str:
    """Tell every verifier, through the feed, to drop these keys; gives why that failed (empty: it is done)."""

    async def pushed() -> None:
        async with _opened(settings) as (store, key):
            feed = RevocationFeed(store, key, clock=time.time, max_token_life_s=LONGEST_TTL_S, leeway_s=LEEWAY_S)
            await push_revocations(feed, kids)

    try:
        asyncio.run(pushed())
    except _TROUBLE as trouble:
        return explanation(trouble) if isinstance(trouble, AppError) else str(trouble)
    return ""


@contextlib.asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[tuple[Redis, FeedKey]]:
    key = load_or_create_feed_key(settings.feed_key_file)
    async with open_store(settings) as store:
        yield store, key
