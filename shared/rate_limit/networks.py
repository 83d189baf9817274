"""Limits on addresses before anyone is authenticated: in memory, by network, no store, no wait.

Networks are IPv4 /24 and IPv6 /56 (what one customer commonly has). Guards the verifier itself, so each process decides
alone. Holds at most ``max_networks`` arrivals (about 200 bytes each), the least recently seen goes first: it is the
one that waited longest and so has the least to forget.
"""

import ipaddress
from collections import OrderedDict
from collections.abc import Callable

from shared.rate_limit.gcra import Limit, overdraft_us, whole_seconds

_MAX_ADDRESSES = 4096


class NetworkLimiter:
    """One limit for every network; ``clock`` gives monotonic seconds."""

    def __init__(self, limit: Limit, *, clock: Callable[[], float], max_networks: int = 50_000) -> None:
        self._limit = limit
        self._clock = clock
        self._max_networks = max_networks
        self._arrivals: OrderedDict[str, int] = OrderedDict()

    def __len__(self) -> int:
        """How many networks are remembered."""
        return len(self._arrivals)

    def admit(self, address: str | None, cost: int = 1) -> int:
        """Charge ``cost`` to the address's network: 0 if it fits, else how many seconds to wait (nothing is charged).

        An address that is none (a unix socket's peer) shares one network with all such. A cost above the whole limit
        is charged as the whole limit.
        """
        name = network_of(address or "")
        now_us = int(self._clock() * 1_000_000)
        limit, cost = self._limit, min(cost, self._limit.count)
        backlog_us = max(self._arrivals.get(name, 0) - now_us, 0)
        over_us = overdraft_us(limit, backlog_us, cost)
        if over_us > 0:
            self._arrivals.move_to_end(name)
            return whole_seconds(over_us)
        self._arrivals[name] = now_us + backlog_us + cost * limit.interval_us
        self._arrivals.move_to_end(name)
        if len(self._arrivals) > self._max_networks:
            self._arrivals.popitem(last=False)
        return 0

    def is_over(self, address: str | None) -> int:
        """Seconds until one unit fits, without charging anything; 0 if it fits now.

        For charging only what was bad: look here first, and call :meth:`admit` after a refused token.
        """
        arrival_us = self._arrivals.get(network_of(address or ""))
        if arrival_us is None:
            return 0
        over_us = overdraft_us(self._limit, max(arrival_us - int(self._clock() * 1_000_000), 0), 1)
        return whole_seconds(over_us) if over_us > 0 else 0


_networks: dict[str, str] = {}  # addresses seen lately, at most _MAX_ADDRESSES; emptied when full


def network_of(address: str) -> str:
    """Name the network of a textual address: ``192.0.2.0/24``, ``2001:db8::/56``; empty for what is no address."""
    found = _networks.get(address)
    if found is None:
        if len(_networks) >= _MAX_ADDRESSES:
            _networks.clear()
        found = _networks[address] = _network_of(address)
    return found


def _network_of(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return ""
    if isinstance(parsed, ipaddress.IPv6Address):
        parsed = parsed.ipv4_mapped or ipaddress.IPv6Address(int(parsed))  # without its scope id
    return str(ipaddress.ip_network((parsed, 24 if parsed.version == 4 else 56), strict=False))
