"""Nothing leaves the machine while a case is played, whatever a plugin tries."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_LOOPBACK = ("127.", "localhost", "::1")


@contextmanager
def offline() -> Iterator[None]:
    """Refuse connections and name look-ups beyond this machine until the block ends."""
    connect, connect_ex, look_up = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def checked(self: socket.socket, address: Any) -> None:
        _refuse(address[0] if isinstance(address, tuple) else None)
        connect(self, address)

    def checked_ex(self: socket.socket, address: Any) -> int:
        _refuse(address[0] if isinstance(address, tuple) else None)
        return connect_ex(self, address)

    def looked_up(host: Any, *rest: Any, **named: Any) -> Any:
        _refuse(host)
        return look_up(host, *rest, **named)

    sockets: Any = socket.socket
    sockets.connect, sockets.connect_ex = checked, checked_ex
    socket.getaddrinfo = looked_up
    try:
        yield
    finally:
        sockets.connect, sockets.connect_ex = connect, connect_ex
        socket.getaddrinfo = look_up


def _refuse(host: object) -> None:
    if isinstance(host, str) and host and not host.startswith(_LOOPBACK):
        raise ConnectionRefusedError(f"tests of playbooks are offline: no connection to {host}")
