"""Binding a server's port."""

import socket

import pytest

from shared.listener import PortBusyError, listen


def test_a_free_port_is_bound_and_accepts_nothing_yet() -> None:
    """Port 0 takes any; until the application is ready nobody can connect."""
    with listen("auth", "127.0.0.1", 0, "FLEX_AUTH_PORT") as listener, socket.socket() as client:
        assert client.connect_ex(listener.getsockname()) != 0


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_the_usual_hosts_can_be_named(host: str) -> None:
    """Names, IPv4 and IPv6 addresses work."""
    listen("auth", host, 0, "FLEX_AUTH_PORT").close()


@pytest.mark.parametrize("host", ["127.0.0.1", "203.0.113.7", "no-such-host.invalid"])
def test_a_port_that_can_not_be_had_is_one_sentence(host: str) -> None:
    """Taken, another machine's, or unknown: the sentence names the port and the setting."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PortBusyError) as caught:
            listen("auth", host, port, "FLEX_AUTH_PORT")
    assert str(port) in str(caught.value)
    assert "FLEX_AUTH_PORT" in str(caught.value)
    assert "None" not in str(caught.value)
