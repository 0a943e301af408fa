"""Sign-in by device code: codes that were given out, and what became of them."""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from counterplay_sim.tenant import Tenant

Doc = dict[str, Any]

#: Public clients of Microsoft's own that need no registration: Graph Command Line Tools, Azure CLI.
FIRST_PARTY = {
    "14d82eec-204b-4c2f-b7e8-296a70dab67e": "Microsoft Graph Command Line Tools",
    "04b07795-8ddb-461a-bbee-02f9e1bf7b46": "Microsoft Azure CLI",
}
LIFE = timedelta(minutes=15)
INTERVAL = 1  # seconds between two questions; Microsoft says 5
GLOBAL_ADMINISTRATOR = "62e90394-69f5-4237-9190-012177145e10"
_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"


@dataclass
class Asked:
    """A code that a client shows: `answer` is `pending`, `administrator`, `member` or `declines`."""

    tenant: Tenant
    client_id: str
    resource: str
    scopes: tuple[str, ...]
    until: datetime
    user_code: str
    device_code: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    answer: str = "pending"


class DeviceCodes:
    """The codes of a process. Safe for threads."""

    def __init__(self) -> None:
        self._asked: dict[str, Asked] = {}
        self._lock = threading.Lock()

    def begin(
        self, tenant: Tenant, client_id: str, resource: str, scopes: tuple[str, ...], now: datetime
    ) -> Asked:
        """Give out a new code."""
        user_code = "".join(secrets.choice(_LETTERS) for _ in range(9))
        made = Asked(tenant, client_id, resource, scopes, now + LIFE, user_code)
        with self._lock:
            self._asked = {key: one for key, one in self._asked.items() if one.until > now}
            self._asked[made.device_code] = made
        return made

    def enter(self, user_code: str, answer: str, now: datetime) -> bool:
        """Somebody types a code on the page; False: there is no such code."""
        with self._lock:
            for one in self._asked.values():
                if one.user_code == user_code.strip().upper() and one.until > now:
                    one.answer = answer
                    return True
        return False

    def find(self, device_code: str) -> Asked | None:
        """What became of a code."""
        with self._lock:
            return self._asked.get(device_code)

    def spend(self, device_code: str) -> None:
        """A code gives one token only."""
        with self._lock:
            self._asked.pop(device_code, None)


def administrator(tenant: Tenant) -> Doc | None:
    """The user who signs in when an administrator enters a code."""
    for assignment in tenant.objects["roleAssignment"].where("roleDefinitionId", GLOBAL_ADMINISTRATOR):
        user: Doc | None = tenant.objects["user"].get(assignment["principalId"])
        if user is not None and user.get("accountEnabled"):
            return user
    return None


def shown(asked: Asked, page: str) -> Doc:
    """The answer to a client that asks for a code."""
    text = f"To sign in, use a web browser to open the page {page} and enter the code {asked.user_code}"
    return {
        "user_code": asked.user_code,
        "device_code": asked.device_code,
        "verification_uri": page,
        "expires_in": int(LIFE.total_seconds()),
        "interval": INTERVAL,
        "message": f"{text} to authenticate.",
    }
