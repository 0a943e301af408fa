"""How much the store holds."""

from __future__ import annotations

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


def rows_of(database: Database) -> dict[str, int]:
    """Rows by what they are."""
    with database.read() as connection:
        return {
            name: int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())
            for name, table in _COUNTED.items()
        }
