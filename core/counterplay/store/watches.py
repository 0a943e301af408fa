"""Later looks at effects that are to hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from counterplay import audit
from counterplay.clock import from_text, now, to_text
from counterplay.language.durations import parse_duration
from counterplay.store.database import Database, storable
from counterplay.store.statements import insert_or_ignore
from counterplay.store.tables import run, watch


@dataclass(frozen=True, slots=True)
class Watch:
    """One look: `after` is the time as the playbook writes it.

    `checked` is when it was made, None while it is to come; `held` what it showed, None when that cannot
    be told.
    """

    run_id: str
    step_id: str
    after: str
    attempts: int
    due: str
    checked: str | None = None
    held: bool | None = None
    detail: str | None = None


def plant(connection: sa.Connection, run_id: str, step_id: str, after: Sequence[str]) -> None:
    """Look at an effect that was just made again after these times. In the caller's transaction."""
    for one in after:
        connection.execute(
            insert_or_ignore(connection, watch),
            {
                "run_id": run_id,
                "step_id": step_id,
                "after": one,
                "due": to_text(now() + parse_duration(one)),
                "attempts": 0,
            },
        )


class WatchStore:
    """The table of looks. One instance for a process."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def due(self, moment: datetime, limit: int = 100) -> list[Watch]:
        """The looks that are due, oldest first."""
        with self.database.read() as connection:
            rows = connection.execute(
                sa.select(watch)
                .where(watch.c.checked.is_(None), watch.c.due <= to_text(moment))
                .order_by(watch.c.due)
                .limit(limit)
            )
            return [_read(row) for row in rows]

    def next_due(self) -> datetime | None:
        """When the next look is due; None when none is to come."""
        with self.database.read() as connection:
            found = connection.execute(sa.select(sa.func.min(watch.c.due)).where(watch.c.checked.is_(None)))
            due = found.scalar()
        return None if due is None else from_text(due)

    def of_run(self, run_id: str) -> list[Watch]:
        """The looks at a run's effects and at those inside it."""
        inside = watch.c.run_id.startswith(f"{run_id}/", autoescape=True)
        query = sa.select(watch).where(sa.or_(watch.c.run_id == run_id, inside)).order_by(watch.c.due)
        with self.database.read() as connection:
            return [_read(row) for row in connection.execute(query)]

    def postpone(self, one: Watch, delay: timedelta) -> None:
        """It could not be looked at now."""
        with self.database.write() as connection:
            connection.execute(
                sa.update(watch)
                .where(*_is(one))
                .values(attempts=one.attempts + 1, due=to_text(now() + delay))
            )

    def settle(self, one: Watch, held: bool | None, detail: str) -> None:
        """What the look showed, in the audit log, too. None: that cannot be told."""
        with self.database.write() as connection:
            connection.execute(
                sa.update(watch)
                .where(*_is(one))
                .values(
                    checked=to_text(now()),
                    held=None if held is None else int(held),
                    detail=storable(detail),
                    attempts=one.attempts + 1,
                )
            )
            about = {"step": one.step_id, "after": one.after, "held": held, "detail": detail}
            audit.append(connection, "watch", about, run_id=one.run_id)

    def taken_back(self, run_id: str) -> str | None:
        """The run of ours that took effects of a run back, if there is one."""
        root = run_id.split("/", 1)[0]
        with self.database.read() as connection:
            found = connection.execute(
                sa.select(run.c.id)
                .where(
                    run.c.run_key.startswith(f"undo:{root}:", autoescape=True), run.c.status == "succeeded"
                )
                .order_by(run.c.created.desc())
                .limit(1)
            ).scalar()
        return None if found is None else str(found)


def _read(row: Any) -> Watch:
    held = None if row.held is None else bool(row.held)
    return Watch(row.run_id, row.step_id, row.after, row.attempts, row.due, row.checked, held, row.detail)


def _is(one: Watch) -> tuple[sa.ColumnElement[bool], ...]:
    return (watch.c.run_id == one.run_id, watch.c.step_id == one.step_id, watch.c.after == one.after)
