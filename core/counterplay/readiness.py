"""Tells the service manager how a service stands: systemd's notify protocol, a few lines on a socket.

See sd_notify(3): one datagram to the UNIX socket that NOTIFY_SOCKET names, `@` for the abstract
namespace. Without that variable nobody listens, and nothing is said.
"""

from __future__ import annotations

import logging
import os
import socket

log = logging.getLogger("counterplay.up")


def tell(*lines: str) -> bool:
    """Send `READY=1`, `STATUS=...` and the like; False where nobody listens or it cannot be sent."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.connect(address)
            sender.sendall("\n".join(line.replace("\n", " ") for line in lines).encode())
    except OSError as error:  # the service works whether or not its manager hears of it
        log.warning("the service manager cannot be told: %s", error)
        return False
    return True


def is_watched() -> bool:
    """Does the manager wait for a sign of life of this process (WatchdogSec=)?"""
    pid = os.environ.get("WATCHDOG_PID")
    return bool(os.environ.get("WATCHDOG_USEC")) and pid in (None, str(os.getpid()))
