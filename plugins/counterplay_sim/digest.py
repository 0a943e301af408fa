"""One hash over what a simulated tenant is: two states with the same digest are the same tenant."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from counterplay_sim.simulator import FOLDER
from counterplay_sim.store import FILE

#: Kinds of objects that are no part of it: who is signed in, what collects the log, and logs of Graph.
_LEFT_OUT = (
    "sessions",
    "subscription",
    "signIn",
    "directoryAudit",
    "riskyUserHistory",
    "auditLogQuery",
    "machineAction",
)


def state(state_dir: Path | str, tenant: str | None = None) -> dict[str, Any]:
    """A tenant's objects by `kind/id`: no logs, journal, clock or sign-ins. By default the newest one."""
    file = Path(state_dir) / FOLDER / FILE
    newest = "(SELECT id FROM tenant ORDER BY number DESC LIMIT 1)"
    query = f"SELECT kind, id, doc FROM object WHERE tenant = coalesce(?, {newest})"
    with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as database:
        rows = database.execute(query, (tenant,)).fetchall()
    return {f"{kind}/{key}": json.loads(doc) for kind, key, doc in rows if kind not in _LEFT_OUT}


def digest(state_dir: Path | str) -> str:
    """The hash of `state`."""
    text = json.dumps(state(state_dir), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
