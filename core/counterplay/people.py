"""Who somebody is: the operating system's user and host, until there is a sign-in.

This is accountability, not authentication: whoever controls the machine controls the name.
"""

from __future__ import annotations

import getpass
import socket
from functools import cache


@cache
def this_person() -> str:
    """`user@host` of whoever runs this process."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user id without an entry in the password file
        import os

        user = f"uid-{os.getuid()}"
    return f"{user}@{socket.gethostname()}"
