"""How much the store holds, and what of it is not over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from counterplay.store.database import Database
from counterplay.store.tables import approval, audit, dead_letter, effect, past_run, run, step, unit

_COUNTED = {
    "runs": run,
    "steps": step,
    "effects": effect,
    "approvals": approval,
    "entries of the audit log": audit,
    "units in the ledger": unit,
    "dead letters": dead_letter,
    "runs that retention deleted": past_run,
}


OPEN = ("queued", "running", "waiting", "blocked")
"""The statuses of a run that has not ended."""


@dataclass(frozen=True, slots=True)
class Unfinished:
    """What is still to come to its end: runs by status, those inside other runs left out; questions."""

    runs: Mapping[str, int]
    approvals: int


def unfinished(database: Database) -> Unfinished:
    """Counts over what is open, however many ended runs the store keeps."""
    counted = (
        sa.select(run.c.status, sa.func.count())
        .where(run.c.status.in_(OPEN), run.c.parent.is_(None))
        .group_by(run.c.status)
    )
    asked = sa.select(sa.func.count()).select_from(approval).where(approval.c.status == "open")
    with database.read() as connection:
        found = {status: int(count) for status, count in connection.execute(counted)}
        questions = int(connection.execute(asked).scalar_one())
    return Unfinished({status: found.get(status, 0) for status in OPEN}, questions)


def rows_of(database: Database) -> dict[str, int]:
    """Rows by what they are."""
    with database.read() as connection:
        return {
            name: int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())
            for name, table in _COUNTED.items()
        }
