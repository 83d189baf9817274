"""Ports of this machine for the demo: free ones, and what answers at one."""

import socket
from contextlib import suppress
from random import SystemRandom
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener


class DemoError(Exception):
    """Something of the story did not hold; the text is one sentence."""


def status_of(url: str) -> int:
    """Status of a GET on this machine; 0 where nobody answers."""
    try:
        with build_opener(ProxyHandler({})).open(url, timeout=2) as answer:
            status: int = answer.status
            return status
    except HTTPError as refusal:
        refusal.close()
        return refusal.code
    except OSError:
        return 0


def free_ports(count: int) -> list[int]:
    """Choose ports that nobody listens on.

    Below the range from which the kernel serves "any port": one of those could be taken by somebody's outgoing
    connection before our server binds it.
    """
    free: list[int] = []
    for port in SystemRandom().sample(range(20_000, 32_768), 200):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            free.append(port)
        if len(free) == count:
            return free
    raise DemoError("No free ports were found between 20000 and 32767.")
