"""What sources listed: which units wait for whom, and which were set aside."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from datetime import datetime
from itertools import islice
from typing import Any

import sqlalchemy as sa

from counterplay.clock import from_text, now, to_text
from counterplay.events import Unit
from counterplay.store.database import Database, storable
from counterplay.store.deliveries import bury
from counterplay.store.feed_records import DeadLetter, StoredUnit
from counterplay.store.losses import note_loss
from counterplay.store.statements import execute_many, insert_or_ignore
from counterplay.store.tables import unit
from counterplay.store.waiting import OPEN, waiting_for

# Built once: building it costs more than running it.
_WAITING = waiting_for(
    sa.bindparam("of"),
    sa.bindparam("names", expanding=True),
    among=sa.bindparam("ids", expanding=True),
)
_KNOWN = sa.select(unit.c.unit_key).where(
    unit.c.feed_id == sa.bindparam("of"), unit.c.unit_key.in_(sa.bindparam("names", expanding=True))
)
_LOAD = sa.select(
    unit.c.id,
    unit.c.unit_key,
    unit.c.locator,
    unit.c.created,
    unit.c.expires,
    unit.c.status,
    unit.c.attempts,
    unit.c.digest,
    unit.c.duplicates,
    unit.c.listed,
    _WAITING.c.playbook,
).join(_WAITING, _WAITING.c.unit_id == unit.c.id)


class Units:
    """The units of feeds."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def record_listing(
        self, feed_id: int, window: datetime, units: Sequence[Unit], *, late: bool = False
    ) -> int:
        """Enter what the source listed into the ledger; returns how many were not known before.

        `late`: the window was accounted for already, so its units have to be looked for.
        """
        fresh = self._unknown(feed_id, units)
        if not fresh:
            return 0
        listed, of_window = to_text(now()), to_text(window)
        rows = [
            {
                "feed_id": feed_id,
                "unit_key": one.id,
                "window": of_window,
                "locator": json.dumps(dict(one.locator)),
                "created": to_text(one.created) if one.created else None,
                "expires": to_text(one.expires) if one.expires else None,
                "status": "listed",
                "listed": listed,
                "retry_at": listed if late else None,
            }
            for one in fresh
        ]
        with self.database.write() as connection:
            execute_many(connection, insert_or_ignore(connection, unit), rows)
        return len(rows)

    def _unknown(self, feed_id: int, units: Sequence[Unit]) -> list[Unit]:
        by_key = {one.id: one for one in units}
        names = list(by_key)
        with self.database.read() as connection:
            for start in range(0, len(names), 500):
                these = {"of": feed_id, "names": names[start : start + 500]}
                for name in connection.execute(_KNOWN, these).scalars():
                    del by_key[name]
        return list(by_key.values())

    def pending(
        self,
        feed_id: int,
        playbooks: Collection[str],
        limit: int,
        *,
        floor: datetime | None = None,
        without: Collection[int] = (),
    ) -> list[StoredUnit]:
        """Units that one of the playbooks has not acknowledged and that are due, earliest expiry first.

        `floor`: windows that begin before it are accounted for, so only what was postponed or came
        late is looked for there. `without`: ids to leave out.
        """
        return self.load(
            feed_id, playbooks, self.due(feed_id, playbooks, limit, floor=floor, without=without)
        )

    def due(
        self,
        feed_id: int,
        playbooks: Collection[str],
        limit: int,
        *,
        floor: datetime | None = None,
        without: Collection[int] = (),
    ) -> list[int]:
        """The ids of what `pending` returns. To find the first ones, all that wait have to be looked at."""
        waiting = waiting_for(feed_id, playbooks, floor)
        moment = to_text(now())
        with self.database.read() as connection:
            ids = connection.execute(
                sa.select(unit.c.id)
                .join(waiting, waiting.c.unit_id == unit.c.id)
                .where(sa.or_(unit.c.retry_at.is_(None), unit.c.retry_at <= moment))
                .group_by(unit.c.id)
                .order_by(unit.c.expires.is_(None), unit.c.expires, unit.c.id)
                .limit(limit + len(without))
            ).scalars()
            left_out = set(without)
            return list(islice((one for one in ids if one not in left_out), limit))

    def load(self, feed_id: int, playbooks: Collection[str], wanted: Sequence[int]) -> list[StoredUnit]:
        """Those of the units that one of the playbooks still waits for, earliest expiry first."""
        rows: list[Any] = []
        with self.database.read() as connection:
            for start in range(0, len(wanted), 500):
                these = {"of": feed_id, "names": list(playbooks), "ids": wanted[start : start + 500]}
                rows += connection.execute(_LOAD, these).all()
        waiting: dict[int, set[str]] = {}
        for row in rows:
            waiting.setdefault(row.id, set()).add(row.playbook)
        ordered = sorted({row.id: row for row in rows}.values(), key=lambda row: (row.expires or "~", row.id))
        return [_stored(row, waiting[row.id]) for row in ordered]

    def waiting_windows(self, feed_id: int, playbook: str, floor: datetime | None = None) -> dict[str, int]:
        """Windows with units that the playbook has not acknowledged, and how many."""
        waiting = waiting_for(feed_id, [playbook], floor)
        with self.database.read() as connection:
            rows = connection.execute(
                sa.select(unit.c.window, sa.func.count())
                .join(waiting, waiting.c.unit_id == unit.c.id)
                .group_by(unit.c.window)
            ).all()
        return {window or "": count for window, count in rows}

    def has_pending(self, feed_id: int, playbooks: Collection[str], floor: datetime | None = None) -> bool:
        """Is there a unit that one of the playbooks has not acknowledged, due or not?"""
        waiting = waiting_for(feed_id, playbooks, floor)
        with self.database.read() as connection:
            return connection.execute(sa.select(waiting.c.unit_id).limit(1)).first() is not None

    def next_due(
        self, feed_id: int, playbooks: Collection[str], floor: datetime | None = None
    ) -> datetime | None:
        """When the earliest postponed unit is due; None when none is postponed."""
        waiting = waiting_for(feed_id, playbooks, floor)
        with self.database.read() as connection:
            text = connection.execute(
                sa.select(sa.func.min(unit.c.retry_at))
                .join(waiting, waiting.c.unit_id == unit.c.id)
                .where(unit.c.feed_id == feed_id, unit.c.retry_at > "")  # few, and there is an index of them
            ).scalar()
        return from_text(text) if text else None

    def postpone(self, unit_id: int, reason: str, until: datetime, *, failed: bool = True) -> None:
        """Try the unit again, not before `until`. `failed`: it counts as one of its failed attempts."""
        with self.database.write() as connection:
            connection.execute(
                sa.update(unit)
                .where(unit.c.id == unit_id)
                .values(
                    attempts=unit.c.attempts + int(failed),
                    reason=storable(reason),
                    retry_at=to_text(until),
                )
            )

    def set_aside(self, unit_id: int, status: str, reason: str, sample: bytes = b"") -> None:
        """Quarantine a unit or record it as lost.

        The events that it owned are free for other units, unless a playbook has them already: whoever
        asks for an owner looks at its status.
        """
        reason = storable(reason)
        with self.database.write() as connection:
            connection.execute(
                sa.update(unit)
                .where(unit.c.id == unit_id)
                .values(status=status, reason=reason, attempts=unit.c.attempts + 1)
            )
            row = connection.execute(sa.select(unit).where(unit.c.id == unit_id)).one()
            note_loss(
                connection,
                status,
                row.feed_id,
                reason,
                unit=row.unit_key,
                start=row.created,
            )
            if sample:
                bury(connection, [DeadLetter(reason, sample, unit_id=unit_id)])

    def set_aside_of(self, feed_ids: Collection[int]) -> list[tuple[str, str, str]]:
        """(unit, status, reason) of what these feeds quarantined or lost."""
        with self.database.read() as connection:
            rows = connection.execute(
                sa.select(unit.c.unit_key, unit.c.status, unit.c.reason).where(
                    unit.c.feed_id.in_(feed_ids), unit.c.status.not_in(OPEN)
                )
            )
            return [(key, status, reason or "") for key, status, reason in rows]


def _stored(row: Any, names: set[str]) -> StoredUnit:
    return StoredUnit(
        id=row.id,
        unit=Unit(
            id=row.unit_key,
            locator=json.loads(row.locator),
            created=from_text(row.created) if row.created else None,
            expires=from_text(row.expires) if row.expires else None,
        ),
        status=row.status,
        attempts=row.attempts,
        digest=row.digest,
        waiting=frozenset(names),
        duplicates=row.duplicates,
        listed=from_text(row.listed),
    )
