"""Who owns an event: what a fetch found in units, and which of it other units have already."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

import sqlalchemy as sa

from counterplay.clock import now, to_text
from counterplay.store.database import Database
from counterplay.store.deliveries import bury
from counterplay.store.feed_records import Fetched
from counterplay.store.key_claims import Owned, set_aside
from counterplay.store.keys import KeyStore
from counterplay.store.statements import execute_many
from counterplay.store.tables import acknowledgement, dead_letter, unit
from counterplay.store.waiting import waiting_for

_LOOK_AGAIN = "?"  # as duplicates: an owner does not hold them any more

# Built once: building a statement costs more than running it.
_FETCHED = (
    sa.update(unit)
    .where(unit.c.id == sa.bindparam("of"))
    .values(
        status="fetched",
        size=sa.bindparam("size_"),
        digest=sa.bindparam("digest_"),
        events=sa.bindparam("events_"),
        broken=sa.bindparam("broken_"),
        duplicates=sa.bindparam("duplicates_"),
        fetched=sa.bindparam("fetched_"),
        retry_at=None,
    )
)


class Claims:
    """Ownership of events by unit. `keys` remembers the ids."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.keys = KeyStore()

    def purge_keys(self, feed_id: int, before: datetime) -> int:
        """Forget the ids of units that became available before that time."""
        with self.database.write() as connection:
            return self.keys.purge(connection, feed_id, to_text(before))

    def claim(self, connection: sa.Connection, feed_id: int, fetched: Sequence[Fetched]) -> list[Owned]:
        """Record that units were fetched, and own those of their events that nobody owns.

        A unit whose bytes are those of its last fetch finds the same duplicates again, except where
        their owner was set aside since.
        """
        known = self._known(connection, fetched)
        claimed = self._claimed(connection, feed_id, [one for one in fetched if one.unit.id not in known])
        gone = {number for number, found in claimed.items() if found.vanished}
        stale = [
            one
            for one in fetched
            if one.unit.id in known and gone.intersection(known[one.unit.id].duplicates.values())
        ]
        claimed.update(self._claimed(connection, feed_id, stale))
        owned = [claimed.get(one.unit.id) or known[one.unit.id] for one in fetched]
        moment = to_text(now())
        execute_many(
            connection,
            _FETCHED,
            [
                {
                    "of": one.unit.id,
                    "size_": one.size,
                    "digest_": one.digest,
                    "events_": one.events,
                    "broken_": len(one.broken),
                    "duplicates_": ",".join(f"{at}:{owner}" for at, owner in found.duplicates.items())
                    or None,
                    "fetched_": moment,
                }
                for one, found in zip(fetched, owned, strict=True)
            ],
        )
        for one, found in zip(fetched, owned, strict=True):
            if found.vanished:
                self._look_again(connection, feed_id, one.unit.id)
        again = [one.unit.id for one in fetched if one.unit.digest is not None or one.unit.attempts]
        if again:
            connection.execute(
                sa.delete(dead_letter).where(
                    dead_letter.c.unit_id.in_(again), dead_letter.c.playbook.is_(None)
                )
            )
        bury(connection, [letter for one in fetched for letter in one.broken])
        return owned

    def _look_again(self, connection: sa.Connection, feed_id: int, owner: int) -> None:
        """Units with duplicates of this one, which it does not hold any more, forget what they knew."""
        rows = connection.execute(
            sa.select(unit.c.id, unit.c.duplicates).where(
                unit.c.feed_id == feed_id, unit.c.duplicates.contains(f":{owner}")
            )
        ).all()
        stale = [row.id for row in rows if f":{owner}," in f"{row.duplicates},"]
        if stale:
            connection.execute(
                sa.update(unit).where(unit.c.id.in_(stale), unit.c.id != owner).values(duplicates=_LOOK_AGAIN)
            )

    def _claimed(
        self, connection: sa.Connection, feed_id: int, fetched: Sequence[Fetched]
    ) -> dict[int, Owned]:
        if not fetched:
            return {}
        found = self.keys.claim(connection, feed_id, [one.keys for one in fetched])
        return {one.unit.id: owned for one, owned in zip(fetched, found, strict=True)}

    def _known(self, connection: sa.Connection, fetched: Sequence[Fetched]) -> dict[int, Owned]:
        """The duplicates of the last fetch, of units whose bytes are still the same."""
        same = [one.unit.id for one in fetched if one.unit.digest == one.digest]
        if not same:
            return {}
        rows = (
            connection.execute(  # not as it was when the unit was taken up: an owner may have changed since
                sa.select(unit.c.id, unit.c.duplicates).where(unit.c.id.in_(same))
            )
        )
        found: dict[int, Owned] = {}
        for number, text in rows:
            if text == _LOOK_AGAIN:
                continue
            pairs = (pair.split(":") for pair in (text or "").split(",") if pair)
            found[number] = Owned({int(at): int(owner) for at, owner in pairs})
        owners = {owner for one in found.values() for owner in one.duplicates.values()}
        aside = set_aside(connection, owners - set(found))
        return {
            number: one for number, one in found.items() if not aside.intersection(one.duplicates.values())
        }

    def acknowledged_by(self, units: Iterable[int], playbook: str) -> set[int]:
        """Those of the units that the playbook has acknowledged."""
        wanted = list(set(units))
        found: set[int] = set()
        with self.database.read() as connection:
            for start in range(0, len(wanted), 500):
                found.update(
                    connection.execute(
                        sa.select(acknowledgement.c.unit_id).where(
                            acknowledgement.c.playbook == playbook,
                            acknowledgement.c.unit_id.in_(wanted[start : start + 500]),
                        )
                    ).scalars()
                )
        return found

    def undelivered_owners(self, owners: Iterable[int], playbook: str) -> set[int]:
        """Those of the units that the playbook still has to acknowledge: their events may yet be lost."""
        wanted = list(set(owners))
        if not wanted:
            return set()
        with self.database.read() as connection:
            found: set[int] = set()
            for start in range(0, len(wanted), 500):
                part = wanted[start : start + 500]
                feeds = connection.execute(
                    sa.select(unit.c.feed_id).where(unit.c.id.in_(part)).distinct()
                ).scalars()
                for feed_id in feeds.all():
                    waiting = waiting_for(feed_id, [playbook])
                    found.update(
                        connection.execute(
                            sa.select(waiting.c.unit_id).where(waiting.c.unit_id.in_(part))
                        ).scalars()
                    )
        return found
