"""Each state of the fault table, brought about around a running auth server with a real store and real keys."""

import asyncio
import errno
import os
import signal
from pathlib import Path

from auth_server.keyring.folder import KeysFolder
from auth_server.settings import AuthSettings
from cli.fault_table import AtAuth, Cell
from shared.embedded_store import EmbeddedStore
from shared.events import Event
from shared.secret import Secret
from tests.auth_server.serving import Server, basic, serving
from tests.conftest import Clock, EventLog
from tests.faults.world import World

REVOCATIONS = "/admin/v1/revocations"
STATUSES = {200: Cell.YES, 503: Cell.LATER}


class AuthWorld(World):
    """One auth server, a client that it knows, and an operator with a token."""

    def __init__(self, folder: Path, store: EmbeddedStore, clock: Clock, patch) -> None:
        self.monotonic = Clock(1000.0)
        self.settings = AuthSettings(
            var_dir=folder / "var",
            keys_dir=folder / "keys",
            redis_url=Secret(f"unix://{store.socket_path}"),
            access_token_ttl_s=3600,
        )
        super().__init__(store, clock, patch, self.settings)
        self.server: Server

    async def start(self) -> None:
        """It runs; client and operator have tokens."""
        await self.find_store()
        await self.serve()
        self.made = await self.server.register()
        operator = await self.server.register("tokens:revoke")
        self.token = (await self.server.token(self.made)).json()["access_token"]
        self.admin = (await self.server.token(operator)).json()["access_token"]

    async def serve(self) -> None:
        self.server = await self.running.enter_async_context(
            serving(self.settings, self.clock, monotonic=self.monotonic)
        )

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.monotonic.advance(seconds)

    async def lose_store(self, number: int, event_log: EventLog) -> None:
        """Kill or freeze the store, and wait until the server has noticed: at most its time-out of 2 s."""
        os.kill(self.pid, number)
        async with asyncio.timeout(10):
            while not any(line["kind"] == "clients" for line in event_log.named(Event.STORE_LOST)):
                await asyncio.sleep(0.01)

    async def settle(self) -> None:
        """Wait for the two tasks that look at the clock: heartbeats of the feed, and the signing key's reservation."""
        headers = {"authorization": f"Bearer {self.admin}"}
        async with asyncio.timeout(10):
            while True:
                listed = await self.server.http.get(REVOCATIONS, headers=headers)
                ready = await self.server.http.get("/health/ready")
                if (ready.status_code, listed.json().get("as_of")) == (200, self.clock.now):
                    return
                await asyncio.sleep(0.02)

    async def observe(self) -> AtAuth:
        """Ask everything that the table says of an auth server; what shares a column must be answered alike."""
        token = (await self.server.token(self.made)).status_code
        read, ready = await self._read(), await self._ready()
        change = await self._change()  # last: it ends the client's token
        assert len(set(read)) == len(set(change)) == 1, (read, change)
        return AtAuth(STATUSES[token], STATUSES[change[0]], STATUSES[read[0]], ready)

    async def _read(self) -> list[int]:
        posted = await self._as_client("/oauth2/introspect")
        listed = await self.server.http.get(REVOCATIONS, headers={"authorization": f"Bearer {self.admin}"})
        return [posted, listed.status_code]

    async def _change(self) -> list[int]:
        headers, body = {"authorization": f"Bearer {self.admin}"}, {"kind": "client", "value": "somebody"}
        changed = await self.server.http.post(REVOCATIONS, headers=headers, json=body)
        return [await self._as_client("/oauth2/revoke"), changed.status_code]

    async def _as_client(self, path: str) -> int:
        login = {"authorization": basic(self.made.client.client_id, self.made.secret)}
        return (await self.server.http.post(path, data={"token": self.token}, headers=login)).status_code

    async def _ready(self) -> Cell:
        assert (await self.server.http.get("/health/live")).status_code == 200
        assert (await self.server.http.get("/.well-known/jwks.json")).status_code == 200
        self.clock.advance(1.1)  # readiness keeps the store's state for a second
        answer = await self.server.http.get("/health/ready")
        if answer.status_code == 503:
            return Cell.NO
        return Cell.YES if answer.json()["status"] == "ready" else Cell.DEGRADED


async def all_well(world: AuthWorld, *_: object) -> None:
    world.pass_time(60)
    await world.settle()


feed_key_at_model = key_set_away = key_set_away_longer = key_set_old = key_set_old_longer = all_well
feed_stale = disk_full = all_well  # the auth server has no part in these


async def store_dead(world: AuthWorld, variant: str, event_log: EventLog) -> None:
    await world.lose_store(signal.SIGSTOP if variant == "frozen" else signal.SIGKILL, event_log)
    world.pass_time(50)


async def store_dead_minute(world: AuthWorld, _: str, event_log: EventLog) -> None:
    await world.lose_store(signal.SIGKILL, event_log)
    world.pass_time(110)


async def store_dead_hold(world: AuthWorld, _: str, event_log: EventLog) -> None:
    await world.lose_store(signal.SIGKILL, event_log)
    world.pass_time(121)


async def store_dead_longer(world: AuthWorld, _: str, event_log: EventLog) -> None:
    await world.lose_store(signal.SIGKILL, event_log)
    world.pass_time(901)


async def feed_key_at_auth(world: AuthWorld, variant: str, _: EventLog) -> None:
    await world.stop()
    file = world.settings.feed_key_file
    if variant == "missing":
        file.unlink()
    else:
        file.write_bytes(os.urandom(32))
    await world.serve()


async def key_ring_damaged(world: AuthWorld, variant: str, event_log: EventLog) -> None:
    manifest = KeysFolder(world.settings.keys_dir).manifest_path
    if variant == "missing":
        manifest.unlink()
    else:
        manifest.write_bytes(manifest.read_bytes()[:-40])
    await _until_told(event_log)


async def keys_folder_full(world: AuthWorld, *_: object) -> None:
    _fill(world)
    world.pass_time(50)
    await world.settle()


async def keys_folder_full_longer(world: AuthWorld, _: str, event_log: EventLog) -> None:
    _fill(world)
    world.pass_time(3600)
    await _until_told(event_log)


def _fill(world: AuthWorld) -> None:
    def no_space(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    world.patch.setattr(os, "fsync", no_space)


async def _until_told(event_log: EventLog) -> None:
    async with asyncio.timeout(10):
        while not event_log.named(Event.KEY_RING_PROBLEM):
            await asyncio.sleep(0.01)


async def store_emptied(world: AuthWorld, variant: str, _: EventLog) -> None:
    old = {name: await world.writer.dump(name) for name in await world.writer.keys()}
    world.pass_time(120)
    await world.settle()
    await world.writer.flushall()
    for name, content in old.items() if variant == "old" else ():
        await world.writer.restore(name, 0, content)
    await all_well(world)
