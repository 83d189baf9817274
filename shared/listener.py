"""The listening socket of a server, bound before anything else is done, so that a busy port is said at once."""

import socket


class PortBusyError(Exception):
    """A port that can't be had; the text is one sentence that names the port and its setting."""


def listen(name: str, host: str, port: int, port_setting: str) -> socket.socket:
    """Bind ``host`` and ``port`` (0: any free one) for the server ``name``; it accepts nothing before ``listen()``.

    Raises PortBusyError.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise PortBusyError(
            f"The {name} server can't listen on {host} port {port} ({error.strerror}): "
            f"stop what uses it, or set {port_setting} to another port."
        ) from None
    return listener
