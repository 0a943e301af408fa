"""What playbooks got of a unit: receipts, acknowledgements, and records that nobody takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, fields

import orjson
import sqlalchemy as sa

from counterplay.clock import now, to_text
from counterplay.store.database import Database, storable
from counterplay.store.feed_records import Acknowledged, Counts, DeadLetter, Delivered
from counterplay.store.ranges import Positions
from counterplay.store.statements import execute_many, insert_or_ignore
from counterplay.store.tables import acknowledgement, dead_letter, delivery, spool
from counterplay.store.waiting import waiting_for

_COUNTED = tuple(one.name for one in fields(Counts))
_INSERT = delivery.insert()  # built once: building it costs more than running it


class Deliveries:
    """Receipts, acknowledgements and dead letters."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def record(
        self,
        connection: sa.Connection,
        feed_id: int,
        deliveries: Sequence[Delivered],
        acknowledged: Sequence[Acknowledged],
        *,
        spooled: bool = False,
    ) -> None:
        """Keep receipts, and what playbooks are done with; a spooled page goes with the last of them."""
        moment = to_text(now())
        if deliveries:
            execute_many(
                connection,
                _INSERT,
                [
                    {
                        "unit_id": one.unit_id,
                        "playbook": one.playbook,
                        "sink": one.sink,
                        "digest": one.digest,
                        "positions": one.positions,
                        "records": len(one.receipts),
                        "receipts": _list(one.receipts),
                        "at": moment,
                    }
                    for one in deliveries
                ],
            )
        if not acknowledged:
            return
        execute_many(
            connection,
            insert_or_ignore(connection, acknowledgement),
            [
                {"unit_id": one.unit_id, "playbook": one.playbook, **_columns(one.counts), "at": moment}
                for one in acknowledged
            ],
        )
        if spooled:
            ids = {one.unit_id for one in acknowledged}
            waiting = waiting_for(feed_id, None)
            still = sa.select(waiting.c.unit_id).where(waiting.c.unit_id.in_(ids))
            connection.execute(
                sa.delete(spool).where(spool.c.unit_id.in_(ids), spool.c.unit_id.not_in(still))
            )

    def acknowledge(
        self, connection: sa.Connection, feed_id: int, unit_id: int, playbook: str, counts: Counts
    ) -> None:
        """The playbook is done with the unit; a spooled page goes when all its subscribers are."""
        one = Acknowledged(unit_id, playbook, counts)
        self.record(connection, feed_id, [], [one], spooled=True)

    def delivered(self, unit_id: int, playbook: str, sink: str, digest: str) -> Positions:
        """Positions of the unit that the sink has taken, as far as the unit's bytes are still the same."""
        with self.database.read() as connection:
            rows = connection.execute(
                sa.select(delivery.c.positions).where(
                    delivery.c.unit_id == unit_id,
                    delivery.c.playbook == playbook,
                    delivery.c.sink == sink,
                    delivery.c.digest == digest,
                )
            ).scalars()
            return Positions.union(Positions.parse(text) for text in rows)

    def bury(self, connection: sa.Connection, letters: Sequence[DeadLetter]) -> None:
        """Keep records that could not be read or delivered."""
        bury(connection, letters)

    def buried(self, unit_id: int, playbook: str, sink: str) -> Positions:
        """Positions of the unit that the sink refused for good."""
        with self.database.read() as connection:
            rows = connection.execute(
                sa.select(dead_letter.c.position).where(
                    dead_letter.c.unit_id == unit_id,
                    dead_letter.c.playbook == playbook,
                    dead_letter.c.sink == sink,
                )
            ).scalars()
            return Positions(position for position in rows if position is not None)


def _list(texts: Sequence[str]) -> str:
    try:
        return orjson.dumps(texts).decode()
    except TypeError:  # half a surrogate pair, which JSON can only escape
        return json.dumps(texts)


def _columns(counts: Counts) -> dict[str, int]:
    """What `asdict` gives, without the copying."""
    return {name: getattr(counts, name) for name in _COUNTED}


def bury(connection: sa.Connection, letters: Sequence[DeadLetter]) -> None:
    """Keep records that could not be read or delivered."""
    if letters:
        moment = to_text(now())
        rows = [{**asdict(one), "reason": storable(one.reason), "at": moment} for one in letters]
        connection.execute(dead_letter.insert(), rows)
