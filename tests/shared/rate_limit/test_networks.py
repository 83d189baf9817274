"""Limits before authentication: by network, in memory, bounded."""

import pytest

from shared.rate_limit.gcra import Limit
from shared.rate_limit.networks import NetworkLimiter, network_of


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.77", "192.0.2.0/24"),
        ("::ffff:192.0.2.9", "192.0.2.0/24"),
        ("2001:db8:1:2ff:3::4", "2001:db8:1:200::/56"),
        ("fe80::1%eth0", "fe80::/56"),
        ("", ""),
        ("testclient", ""),
    ],
)
def test_addresses_are_counted_by_network(address: str, network: str) -> None:
    """/24 and /56; an IPv4 address is the same in both spellings."""
    assert network_of(address) == network


def test_a_network_is_held_to_its_limit_and_others_are_not(clock) -> None:
    """Neighbours share a limit, strangers do not; time brings it back."""
    limiter = NetworkLimiter(Limit(3, 60), clock=clock)
    assert [limiter.admit(f"192.0.2.{n}") for n in range(5)] == [0, 0, 0, 20, 20]
    assert limiter.admit("198.51.100.1") == 0
    clock.advance(20)
    assert limiter.admit("192.0.2.200") == 0
    assert limiter.admit(None) == 0


def test_looking_charges_nothing(clock) -> None:
    """For those who charge only refused tokens."""
    limiter = NetworkLimiter(Limit(2, 60), clock=clock)
    assert [limiter.is_over("192.0.2.1") for _ in range(10)] == [0] * 10
    assert limiter.admit("192.0.2.1", cost=99) == 0
    assert limiter.is_over("192.0.2.9") == 30
    assert limiter.is_over("198.51.100.1") == 0


def test_memory_is_bounded_under_a_flood_of_networks(clock) -> None:
    """The one seen least recently is forgotten; one that keeps coming is not."""
    limiter = NetworkLimiter(Limit(1, 3600), clock=clock, max_networks=100)
    limiter.admit("192.0.2.1")
    for n in range(1000):
        limiter.admit(f"10.{n // 250}.{n % 250}.1")
        assert limiter.admit("192.0.2.1") > 0
    assert len(limiter) == 100
