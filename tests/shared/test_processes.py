"""Children that are kept alive: start, crash, back-off, giving up, stop. Real processes, a clock that is set."""

import asyncio
import os
import sys
import time
from pathlib import Path

import pytest

from shared.processes import Crash, KeptProcess, StartFailedError, backoff_s

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
DEAF = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)",
]


def ending(code: int) -> list[str]:
    return [sys.executable, "-c", f"raise SystemExit({code})"]


async def yes() -> bool:
    return True


async def no() -> bool:
    return False


def kept(command: list[str], crashes: list[Crash] | None = None, **options) -> KeptProcess:
    record = crashes if crashes is not None else []
    return KeptProcess("child", command, options.pop("is_ready", yes), record.append, **options)


def test_back_off_doubles_up_to_ten_seconds() -> None:
    """0.1 s after the first crash, never more than 10 s."""
    assert [backoff_s(number) for number in (1, 2, 3, 4)] == [0.1, 0.2, 0.4, 0.8]
    assert backoff_s(100) == 10.0


async def test_it_starts_and_stops() -> None:
    """A stopped child is gone, and keeping it ends."""
    child = kept(SLEEP)
    await child.start()
    keeping = asyncio.create_task(child.keep())
    await child.stop()
    assert await keeping == -15
    await child.stop()  # once more is harmless


async def test_a_child_that_ends_while_starting_is_told() -> None:
    """The sentence names the child and its exit code."""
    with pytest.raises(StartFailedError, match=r"child ended while it was starting \(exit code 4\)"):
        await kept(ending(4), is_ready=no).start()


async def test_a_child_that_does_not_get_ready_is_stopped_again(clock) -> None:
    """Waiting for readiness has an end, and leaves nothing behind."""

    async def never() -> bool:
        clock.advance(1.0)
        return False

    child = kept(SLEEP, is_ready=never, start_timeout_s=5.0, clock=clock)
    with pytest.raises(StartFailedError, match="not ready within 5 s"):
        await child.start()
    assert child.process is not None
    assert child.process.returncode == -15


async def test_a_crashed_child_is_started_again_after_a_wait() -> None:
    """Each unwanted end is reported with its wait, and another process follows."""
    crashes: list[Crash] = []
    child = kept(SLEEP, crashes)
    await child.start()
    keeping = asyncio.create_task(child.keep())
    pids = []
    for n_crashes in (1, 2):
        assert child.process is not None
        pids.append(child.process.pid)
        os.kill(pids[-1], 9)
        async with asyncio.timeout(10):
            while child.process.pid in pids or len(crashes) < n_crashes:
                await asyncio.sleep(0.01)
    await child.stop()
    await keeping
    assert [(crash.exit_code, crash.wait_s, crash.pid) for crash in crashes] == [(-9, 0.1, pids[0]), (-9, 0.2, pids[1])]


async def test_a_settled_child_begins_to_count_anew(clock) -> None:
    """After 60 s of life the next crash is a first one."""
    crashes: list[Crash] = []
    child = kept(SLEEP, crashes, clock=clock)
    await child.start()
    keeping = asyncio.create_task(child.keep())
    for settled in (False, False, True):
        if settled:
            clock.advance(61)
        assert child.process is not None
        pid = child.process.pid
        os.kill(pid, 9)
        async with asyncio.timeout(10):
            while child.process.pid == pid:
                await asyncio.sleep(0.01)
    await child.stop()
    await keeping
    assert [crash.wait_s for crash in crashes] == [0.1, 0.2, 0.1]


async def test_it_gives_up_after_many_crashes_or_a_fatal_one() -> None:
    """Crashing on and on ends the keeping; so does an exit code that says it is hopeless."""
    crashes: list[Crash] = []
    child = kept(ending(5), crashes, max_crashes=3)
    await child.start()
    assert await child.keep() == 5
    assert len(crashes) == 2
    fatal = kept(ending(3), fatal_exit_code=3)
    await fatal.start()
    assert await fatal.keep() == 3


async def test_a_child_that_ignores_sigterm_is_killed() -> None:
    """Stopping has an end too."""
    child = kept(DEAF, stop_timeout_s=0.3)
    await child.start()
    await asyncio.sleep(0.3)
    began = time.monotonic()
    await child.stop()
    assert child.process is not None
    assert child.process.returncode in {-9, -15}
    assert time.monotonic() - began < 5


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the death signal is Linux's")
async def test_a_child_hears_of_its_parents_death(tmp_path: Path) -> None:
    """Kill -9 of the parent ends the child, by the kernel's own signal."""
    child = "import os, time; from shared.processes import die_with_parent; die_with_parent(); open('pid', 'w').write(str(os.getpid())); time.sleep(60)"
    parent = f"""
import asyncio, sys
from shared.processes import KeptProcess
async def yes(): return True
async def main():
    await KeptProcess("child", [sys.executable, "-c", {child!r}], yes, print).start()
    await asyncio.sleep(60)
asyncio.run(main())
"""
    root = str(Path(__file__).parents[2])
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", parent, cwd=tmp_path, env={**os.environ, "PYTHONPATH": root}
    )
    async with asyncio.timeout(10):
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            await asyncio.sleep(0.02)
        process.kill()
        await process.wait()
        pid = int((tmp_path / "pid").read_text())
        while _lives(pid):
            await asyncio.sleep(0.02)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] not in "ZX"
    except FileNotFoundError:
        return False


async def test_a_child_gets_an_environment_of_its_own(tmp_path: Path) -> None:
    """Ours, and what only this child is told."""
    file = tmp_path / "seen"
    code = f"import os; open({str(file)!r}, 'w').write(os.environ['SLOT'] + str('PATH' in os.environ))"
    child = kept([sys.executable, "-c", code], environ={"SLOT": "2"})
    await child.start()
    assert child.process is not None
    assert await child.process.wait() == 0
    assert file.read_text() == "2True"
