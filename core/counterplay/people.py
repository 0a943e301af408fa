"""Who somebody is: the operating system's user and host, until there is a sign-in.

This is accountability, not authentication: whoever controls the machine controls the name.
"""

from __future__ import annotations

import getpass
import os
import socket
from functools import cache


@cache
def this_person() -> str:
    """`user@host` of whoever runs this process; behind sudo, of who called it.

    A service has one user, and people become that to answer its questions: they are not all the same person.
    """
    try:
        user = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # a user id without an entry in the password file
        user = f"uid-{os.getuid()}"
    return f"{user}@{socket.gethostname()}"
