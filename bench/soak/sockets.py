"""Which process has the other end of a connection on this machine (Linux: ``/proc``).

Workers of one server share a port, and both hosts' fetches come from the loopback, so nothing in a connection itself
says whose it is.
"""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

_INODE_COLUMN = 9


def inode_of(local_port: int, remote_port: int) -> str:
    """The socket that has ``local_port`` as its own and ``remote_port`` at the far end; empty if there is none."""
    local, remote = f":{local_port:04X}", f":{remote_port:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(local) and fields[2].endswith(remote):
            return fields[_INODE_COLUMN]
    return ""


def owner(inode: str, pids: Iterable[int]) -> int | None:
    """Which of the processes holds a socket; None if none of them does."""
    wanted = f"socket:[{inode}]"
    for pid in pids:
        with contextlib.suppress(OSError):
            for number in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208 - hundreds of them, for each connection
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/{pid}/fd/{number}") == wanted:  # noqa: PTH115 - as above
                        return pid
    return None


def server_of(server_port: int, client_port: int, pids: Iterable[int]) -> int | None:
    """Which of the processes accepted the connection that ``client_port`` made to ``server_port``."""
    inode = inode_of(server_port, client_port)
    return owner(inode, pids) if inode not in {"", "0"} else None


def client_of(server_port: int, client_port: int, pids: Iterable[int]) -> int | None:
    """Which of the processes made the connection from ``client_port`` to ``server_port``."""
    inode = inode_of(client_port, server_port)
    return owner(inode, pids) if inode not in {"", "0"} else None
