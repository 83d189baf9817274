"""What a ``flex`` command on the store's clients does around its work: settings, store, events, one-line refusals."""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from redis.asyncio import Redis

from auth_server.keyring.changes import explanation
from auth_server.keyring.policy import LONGEST_TTL_S
from auth_server.stores.client_secrets import Pepper, load_pepper
from auth_server.stores.clients import Clients
from cli.output import fail, one_line_errors
from shared import events
from shared.access_token import LEEWAY_S
from shared.embedded_store import EmbeddedStoreError
from shared.errors import AppError
from shared.revocations.feed_key import load_or_create_feed_key
from shared.revocations.notices import to_events
from shared.revocations.writer import RevocationFeed
from shared.settings import Settings
from shared.store import StoreRefusedError, open_store

EVENTS_FILE = "operator-events.jsonl"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Session:
    """What a command works with."""

    settings: Settings
    clients: Clients
    pepper: Pepper
    feed: RevocationFeed
    store: Redis


@contextlib.contextmanager
def reported() -> Iterator[Settings]:
    """Read the settings, send events to their file, and turn a refusal into one line and exit code 1."""
    with one_line_errors():
        settings = Settings.read()
        try:
            with events_in_file(settings.var_dir):
                yield settings
        except AppError as refusal:
            fail(explanation(refusal))
        except (StoreRefusedError, EmbeddedStoreError) as refusal:
            fail(str(refusal))


def with_clients(work: Callable[[Session], Awaitable[T]]) -> T:
    """Do ``work`` on the store's clients: attaches to the embedded store, or starts it for as long as this takes."""

    async def attached(settings: Settings) -> T:
        pepper = load_pepper(settings.keys_dir)
        async with open_store(settings) as store:
            clients = Clients(store)
            await clients.claim_pepper(pepper.fingerprint)
            return await work(Session(settings, clients, pepper, _feed(settings, store), store))

    with reported() as settings:
        return asyncio.run(attached(settings))
    raise AssertionError("reported() ends the command where it does not return")


def _feed(settings: Settings, store: Redis) -> RevocationFeed:
    return RevocationFeed(
        store,
        load_or_create_feed_key(settings.feed_key_file),
        clock=time.time,
        max_token_life_s=LONGEST_TTL_S,
        leeway_s=LEEWAY_S,
        notify=to_events,
    )


@contextlib.contextmanager
def events_in_file(var_dir: Path) -> Iterator[None]:
    """Standard output belongs to the result; where the var folder can't be written, events go to standard error."""
    with contextlib.ExitStack() as stack:
        stream = sys.stderr
        with contextlib.suppress(OSError):
            var_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(var_dir / EVENTS_FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            stream = stack.enter_context(os.fdopen(descriptor, "a"))
        events.configure(server="cli", stream=stream)
        stack.callback(events.configure)
        yield
