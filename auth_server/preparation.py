"""What must hold in the store before the first token: the right pepper, and the demo client or its absence."""

import asyncio
import contextlib
import fcntl
import os
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
from redis.asyncio import Redis

from auth_server.oauth.registration import ClientRequest, register
from auth_server.records import Client, ClientSecret
from auth_server.settings import AuthSettings
from auth_server.stores.client_secrets import Pepper
from auth_server.stores.clients import Clients
from shared.errors import AppError
from shared.events import Event, emit
from shared.secret import Secret
from shared.store import StoreRefusedError
from shared.store import check as check_store

DEMO_SCOPE = "predict:* explain:*"
_LOCK_POLL_S = 0.02
_RETRY_S = 0.5


class DemoFile(msgspec.Struct, frozen=True):
    """``demo-client.json``: all that a first call needs, the secret too, so its mode is 0600."""

    client_id: str
    client_secret: str
    token_endpoint: str
    resource: str
    scope: str

    def __repr__(self) -> str:
        return f"DemoFile({self.client_id})"


@dataclass(slots=True)
class Preparation:
    """Whether the store is prepared, and the work of getting there. ``clock`` gives UTC seconds."""

    settings: AuthSettings
    clients: Clients
    pepper: Pepper
    clock: Callable[[], float]
    done: bool = False

    async def at_once(self, store: Redis) -> bool:
        """Prepare now; False if the store is away.

        Raises StoreRefusedError, or AppError conflict, if this store must not be served with these settings.
        """
        try:
            await check_store(store)
            await prepare(self.settings, self.clients, self.pepper, self.clock())
        except AppError as error:
            if error.code != "store_unavailable":
                raise
            return False
        self.done = True
        return True

    async def later(self, store: Redis) -> None:
        """Go on trying with a store that was away at the start; one that must not be served never is."""
        told = ""
        while not self.done:
            await asyncio.sleep(_RETRY_S)
            try:
                await self.at_once(store)
            except (AppError, StoreRefusedError) as error:
                if told != str(error):
                    emit(Event.INTERNAL_ERROR, where="preparation", reason=str(error))
                told = str(error)

    def check(self) -> None:
        """Raise AppError not_ready until the store was prepared."""
        if not self.done:
            raise AppError("not_ready", reason="store_not_prepared")


async def prepare(settings: AuthSettings, clients: Clients, pepper: Pepper, now: float) -> None:
    """Check and complete the store; safe to do again and by several workers at once. ``now`` in UTC seconds.

    Raises AppError conflict if this store must not be served with these settings, store_unavailable if it is away.
    """
    await clients.claim_pepper(pepper.fingerprint)
    if not settings.production:
        await ensure_demo_client(settings, clients, pepper, now)
    elif held := await clients.demo_ids():
        raise AppError(
            "conflict", f"The store holds a demo client, which production refuses: delete {', '.join(held)}."
        )


async def ensure_demo_client(settings: AuthSettings, clients: Clients, pepper: Pepper, now: float) -> None:
    """Create the demo client and its file if either is missing. A disabled or rotated one stays as it is."""
    settings.var_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    async with _locked(settings.var_dir / "demo-client.lock"):
        held = _read(settings.demo_file)
        if held is None:
            made = register(ClientRequest(name="demo", scope=DEMO_SCOPE, demo=True), pepper, now)
            client, secret = made.client, made.secret.reveal()
        else:
            client, secret = _as_client(held, pepper, now), held.client_secret
        wanted = DemoFile(client.client_id, secret, settings.token_endpoint, settings.resource, DEMO_SCOPE)
        if wanted != held:  # the file first: a crash before the store is told is mended by the next start
            _write(settings.demo_file, wanted)
        if await clients.get(client.client_id) is None:
            await clients.create(client)
            emit(Event.CLIENT_CREATED, client_id=client.client_id, demo=True)


def follow_rotation(path: Path, client_id: str, secret: Secret) -> None:
    """Keep the demo file true after its client got another secret; does nothing for any other client."""
    held = _read(path)
    if held is not None and held.client_id == client_id:
        _write(path, msgspec.structs.replace(held, client_secret=secret.reveal()))


def follow_deletion(path: Path, client_id: str) -> None:
    """Remove the demo file after its client was deleted, so that the same secret never comes back."""
    held = _read(path)
    if held is not None and held.client_id == client_id:
        path.unlink(missing_ok=True)


def _as_client(held: DemoFile, pepper: Pepper, now: float) -> Client:
    return Client(
        client_id=held.client_id,
        name="demo",
        scopes=tuple(DEMO_SCOPE.split()),
        resources=(),
        secrets=(ClientSecret(secret_hash=pepper.secret_hash(held.client_secret), created_at=now),),
        created_at=now,
        demo=True,
    )


def _read(path: Path) -> DemoFile | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=DemoFile)
    except (FileNotFoundError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _write(path: Path, content: DemoFile) -> None:
    """Replace the file so that a crash leaves the old one or the new one, readable by its owner only."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o600)
        file.write(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")
        file.flush()
        os.fsync(descriptor)
    temporary.rename(path)


@contextlib.asynccontextmanager
async def _locked(path: Path) -> AsyncIterator[None]:
    """Hold a lock that the kernel frees when the process dies, without blocking the event loop."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(_LOCK_POLL_S)
        yield
    finally:
        os.close(descriptor)
