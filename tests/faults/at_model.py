"""Each state of the fault table, brought about around a running model server with a real store and issuer."""

import asyncio
import errno
import os
import secrets
import signal
import socket
from pathlib import Path

import httpx

from cli.fault_table import AtModel, Cell
from model_server.app import build_app, remote_keys
from model_server.remote_keys import fetch
from model_server.revocations import Revocations
from model_server.settings import ModelSettings
from shared.embedded_store import EmbeddedStore
from shared.revocations.entries import token_revoked
from shared.revocations.feed_key import load_or_create_feed_key
from shared.revocations.notices import State as FeedState
from shared.revocations.writer import RevocationFeed
from shared.secret import Secret
from tests.faults.world import World
from tests.model_server.feed_site import until
from tests.model_server.issuer_site import JWKS, METADATA, IssuerSite, drip, flood, hang, hang_up, plain, redirect
from tests.model_server.serving import PREDICT, lifespan
from tests.tokens import AUDIENCE, Issuer

MODELS = Path(__file__).parents[2] / "models"
REVOKED = "0197f000000070008000000000000001"
DAY_S = 86_400


class ModelWorld(World):
    """One model server and all that it may lose. It holds the issuer's active key, and knows of one revoked token."""

    def __init__(self, folder: Path, attributes, store: EmbeddedStore, site: IssuerSite, clock, keys, patch) -> None:
        self.site, self.attributes = site, attributes
        site.url = site.url.replace("127.0.0.1", "localhost")  # a name that can fail to resolve
        url = Secret(f"unix://{store.socket_path}")
        self.settings = ModelSettings(var_dir=folder / "var", resource=AUDIENCE, issuer=site.url, redis_url=url)
        self.active, self.standby = (Issuer(key, kid, site.url) for key, kid in zip(keys, ("one", "two"), strict=True))
        super().__init__(store, clock, patch, self.settings)

    async def start(self) -> None:
        """Everything runs, and what a restart needs is on disk."""
        await self.find_store()
        key = load_or_create_feed_key(self.settings.feed_key_file)
        self.feed = RevocationFeed(self.writer, key, clock=self.clock, max_token_life_s=3600, leeway_s=30)
        await self.feed.revoke(token_revoked(REVOKED, self.clock.now + 3600))
        await self.beat()
        self.site.publish(self.active.jwk, self.standby.jwk)
        await self.serve()
        files = (self.settings.key_set_file, self.settings.revocations_file)
        await until(lambda: all(file.exists() for file in files))

    async def serve(self) -> None:
        """Start the model server."""
        self.revocations = Revocations(limit_s=900, snapshot=self.settings.revocations_file, clock=self.clock)
        self.keys = remote_keys(self.settings, self.revocations, clock=self.clock)
        self.keys.load_last_good()
        app = build_app(self.settings, self.attributes, self.keys, clock=self.clock, revocations=self.revocations)
        await self.running.enter_async_context(lifespan(app))
        transport = httpx.ASGITransport(app, client=("127.0.0.1", 5))
        self.http = await self.running.enter_async_context(httpx.AsyncClient(transport=transport, base_url=AUDIENCE))

    async def serve_unknowing(self) -> None:
        """Start it where it will know nothing, so that it need not wait long."""
        self.patch.setattr("model_server.app.FIRST_WAIT_S", 0.2)
        await self.serve()

    async def beat(self) -> None:
        """What a living auth server does each second."""
        await self.feed.heartbeat()

    async def beat_heard(self) -> None:
        await self.beat()
        await until(lambda: self.revocations.staleness_s < 1 and self.revocations.state is FeedState.FOLLOWING)

    async def pass_time(self, seconds: float) -> None:
        """Let time go by while the auth server lives."""
        self.clock.advance(seconds)
        await self.beat_heard()

    async def pass_a_day(self, seconds_less: float) -> None:
        """Let time go by, and revoke again: no token lives for a day."""
        self.clock.advance(DAY_S - seconds_less)
        await self.feed.revoke(token_revoked(REVOKED, self.clock.now + 3600))
        await self.beat_heard()

    async def kill_store(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        await until(lambda: self.revocations.state is FeedState.DISCONNECTED)

    async def refetch(self) -> None:
        """Make the key follower ask the issuer now, and wait for what comes of it."""
        tried, self.keys._tried = self.keys._tried, asyncio.Event()
        self.keys._wanted.set()
        await asyncio.wait_for(self.keys._tried.wait(), 5)
        self.keys._tried = tried

    async def lose_issuer(self) -> None:
        self.site.answers = {METADATA: hang_up, JWKS: hang_up}
        await self.refetch()

    async def observe(self) -> AtModel:
        """Ask everything that the table says of a model server."""
        return AtModel(await self._predict(secrets.token_hex(16)), await self._predict(REVOKED), await self._ready())

    async def _predict(self, jti: str) -> Cell:
        now = int(self.clock.now)
        headers = self.active.authorization(jti=jti, iat=now, exp=now + 600)
        answer = await self.http.post(PREDICT, json=self.attributes["grit"].example(), headers=headers)
        if answer.status_code == 503:
            assert answer.headers["retry-after"]
        return {200: Cell.YES, 401: Cell.REFUSED, 503: Cell.LATER}[answer.status_code]

    async def _ready(self) -> Cell:
        assert (await self.http.get("/health/live")).status_code == 200
        return {200: Cell.YES, 503: Cell.NO}[(await self.http.get("/health/ready")).status_code]


async def all_well(world: ModelWorld, _: str) -> None:
    await world.pass_time(60)


async def auth_dead(world: ModelWorld, _: str) -> None:
    await world.lose_issuer()
    world.clock.advance(890)


async def auth_dead_longer(world: ModelWorld, _: str) -> None:
    await world.lose_issuer()
    world.clock.advance(901)


async def store_dead(world: ModelWorld, variant: str) -> None:
    if variant == "frozen":
        os.kill(world.pid, signal.SIGSTOP)
    else:
        await world.kill_store()
    world.clock.advance(50)


async def store_dead_minute(world: ModelWorld, _: str) -> None:
    await world.kill_store()
    world.clock.advance(110)


async def store_dead_hold(world: ModelWorld, _: str) -> None:
    await world.kill_store()
    world.clock.advance(890)


async def store_dead_longer(world: ModelWorld, _: str) -> None:
    await world.kill_store()
    world.clock.advance(901)


async def both_dead(world: ModelWorld, _: str) -> None:
    await world.kill_store()
    await auth_dead(world, "")


async def _stop_with_both_dead(world: ModelWorld) -> None:
    await world.kill_store()
    await world.lose_issuer()
    await world.stop()
    world.clock.advance(600)


async def both_dead_restart(world: ModelWorld, _: str) -> None:
    await _stop_with_both_dead(world)
    await world.serve()


async def both_dead_restart_unknowing(world: ModelWorld, variant: str) -> None:
    await _stop_with_both_dead(world)
    file = world.settings.revocations_file
    content = file.read_bytes()
    if variant == "missing":
        file.unlink()
    else:  # one byte of its age, or the whole of another installation's
        forged = secrets.token_bytes(len(content))
        file.write_bytes(forged if variant == "forged" else content[:5] + b"\xff" + content[6:])
    await world.serve_unknowing()


async def both_dead_restart_keyless(world: ModelWorld, variant: str) -> None:
    await _stop_with_both_dead(world)
    file = world.settings.key_set_file
    if variant == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-40])
    await world.serve()


key_ring_damaged = keys_folder_full = keys_folder_full_longer = all_well  # a model server has no part in these


async def feed_key_at_model(world: ModelWorld, variant: str) -> None:
    await world.stop()
    file = world.settings.feed_key_file
    if variant == "open":
        file.chmod(0o644)
    elif variant == "missing":
        file.unlink()
    else:
        file.write_bytes(os.urandom(32))
    await world.serve_unknowing()


async def feed_key_at_auth(world: ModelWorld, _: str) -> None:
    """No heartbeat is authentic any more."""
    load_or_create_feed_key(world.settings.var_dir / "another.key")
    world.clock.advance(890)


async def key_set_away(world: ModelWorld, variant: str) -> None:
    world.patch.setattr(fetch, "TIMEOUT_S", 0.2)
    if variant == "unresolved":
        world.patch.setattr(socket, "getaddrinfo", _resolve_nothing)
        world.site.close_connections()
    elif variant == "down":
        world.site.answers = {METADATA: hang_up, JWKS: hang_up}
    else:
        world.site.answers[JWKS] = {
            "slow": drip,
            "hanging": hang,
            "garbage": plain(b"<html>log in first</html>"),
            "enormous": flood,
            "redirecting": redirect(world.site.url + "/elsewhere"),
        }[variant]
    await world.refetch()
    assert world.keys._n_failures == 1
    await world.pass_a_day(60)


def _resolve_nothing(*_: object, **__: object) -> None:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


async def key_set_away_longer(world: ModelWorld, _: str) -> None:
    await world.lose_issuer()
    await world.pass_a_day(-60)


async def key_set_old(world: ModelWorld, _: str) -> None:
    world.site.publish(world.standby.jwk)
    await world.refetch()
    assert "one" not in world.keys.ring.by_kid
    await world.pass_time(3600)


async def key_set_old_longer(world: ModelWorld, _: str) -> None:
    await key_set_old(world, "")
    await world.pass_time(60)


async def feed_stale(world: ModelWorld, _: str) -> None:
    world.clock.advance(901)


async def store_emptied(world: ModelWorld, variant: str) -> None:
    """Longer after the revocation than its writer remembers it."""
    await world.pass_time(120)
    old = {name: await world.writer.dump(name) for name in await world.writer.keys()}
    await world.feed.revoke(token_revoked("0" * 32, world.clock.now + 60))
    await world.pass_time(120)
    await asyncio.sleep(
        0.002
    )  # the store's ids count its milliseconds: the next heartbeat must not get the id of the last
    await world.writer.flushall()
    for name, content in old.items() if variant == "old" else ():
        await world.writer.restore(name, 0, content)
    await world.pass_time(2)


async def disk_full(world: ModelWorld, variant: str) -> None:
    folder = world.settings.key_set_file.parent
    if variant == "full":
        world.patch.setattr(os, "fsync", _no_space)
    else:  # whoever runs the tests may be root, for whom nothing is read-only
        await asyncio.to_thread(folder.rename, folder.with_name("unmounted"))
        folder.touch()
    world.clock.advance(120)
    world.site.publish(world.standby.jwk, world.active.jwk | {"kid": "three"}, world.active.jwk)
    await world.refetch()
    await world.feed.revoke(token_revoked("1" * 32, world.clock.now + 60))
    await world.pass_time(120)


def _no_space(_: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
