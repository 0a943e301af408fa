"""Which records this process has already handed to the host, so that an overlap costs no storage."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

LIMIT = 100_000  # keys; at 8 bytes each some 10 MB with what Python needs around them
SERIAL = "serial"


class Recall:
    """Remembers keys along the line of cursors that were stored.

    A page's keys count only once its own cursor comes back: then the host has stored the page. When an
    older one comes back, the page was not stored, and its records are handed out again. What is
    forgotten (a restart, more than LIMIT keys) is handed out again too: the ledger drops it.
    """

    def __init__(self) -> None:
        self._lines: dict[str, tuple[dict[bytes, None], list[bytes]]] = {}

    def resume(self, cursor: Mapping[str, Any] | None) -> dict[bytes, None]:
        """The keys that are stored, now that the host is at this cursor."""
        serial = str((cursor or {}).get(SERIAL, ""))
        known, pending = self._lines.get(serial, ({}, []))
        known.update(dict.fromkeys(pending))
        while len(known) > LIMIT:
            del known[next(iter(known))]
        self._lines = {name: line for name, line in self._lines.items() if line[0] is not known}
        self._lines[serial] = (known, [])
        return known

    def onward(self, known: dict[bytes, None], added: list[bytes]) -> str:
        """The serial for the next cursor, under which the page's keys will count."""
        serial = os.urandom(8).hex()
        self._lines[serial] = (known, added)
        return serial


def digest(key: str) -> bytes:
    """What is remembered of a key."""
    from hashlib import blake2b  # it loads OpenSSL

    return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
