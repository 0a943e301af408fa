"""Runs to be started: put there in the transaction that accounts for their events."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from counterplay.clock import from_text, now, to_text
from counterplay.events import JsonObject
from counterplay.store.artifacts import INLINE_EVENT, put
from counterplay.store.database import storable
from counterplay.store.run_records import NewRun
from counterplay.store.statements import insert_or_ignore
from counterplay.store.tables import once, past_run, run, snapshot, suppressed


class Outbox:
    """What the commit of an event does to the tables of runs."""

    def add(self, connection: sa.Connection, runs: Sequence[NewRun]) -> list[str]:
        """Put runs into the outbox, in the caller's transaction. Returns those that were not there yet.

        A run whose `once` key another run holds is not added; `holders` says which one does.
        """
        if not runs:
            return []
        known: set[str] = set()
        for start in range(0, len(runs), 500):  # a statement takes a limited number of variables
            part = [one.id for one in runs[start : start + 500]]
            present = sa.select(run.c.id).where(run.c.id.in_(part))
            past = sa.select(past_run.c.id).where(past_run.c.id.in_(part))
            known.update(connection.execute(present.union_all(past)).scalars())
        digests: dict[int, str] = {}
        rows: list[dict[str, Any]] = []
        moment = to_text(now())
        for one in runs:
            if one.id in known or not self._opens(connection, one, moment):
                continue
            known.add(one.id)
            if id(one.document) not in digests:
                digests[id(one.document)] = keep_document(connection, one.document)
            rows.append(
                {
                    "id": one.id,
                    "tenant": one.tenant,
                    "playbook": one.playbook,
                    "run_key": storable(one.run_key),
                    "snapshot": digests[id(one.document)],
                    "event": put(connection, one.id, one.event, INLINE_EVENT),
                    "meta": json.dumps(one.meta),
                    "inputs": json.dumps(one.inputs),
                    "connections": json.dumps(one.connections),
                    "status": "queued",
                    "segment": 1,
                    "created": moment,
                    "rank": moment,
                }
            )
        if rows:
            connection.execute(run.insert(), rows)
        return [row["id"] for row in rows]

    def _opens(self, connection: sa.Connection, one: NewRun, moment: str) -> bool:
        """Whether `once_per` lets the run begin; then it holds the key. Else the event is on record."""
        if one.once is None:
            return True
        key = storable(one.once.key)
        where = (once.c.tenant == one.tenant, once.c.playbook == one.playbook, once.c.key == key)
        query = sa.select(once.c.run_id, once.c.opened).where(*where).with_for_update()
        held = connection.execute(query).first()
        if held is None:
            row = {"tenant": one.tenant, "playbook": one.playbook, "key": key}
            opened = connection.execute(
                insert_or_ignore(connection, once), {**row, "run_id": one.id, "opened": moment}
            )
            if opened.rowcount == 1:
                return True
            held = connection.execute(query).one()  # another worker was faster
        if from_text(held.opened) + one.once.window > from_text(moment):
            connection.execute(
                insert_or_ignore(connection, suppressed),
                {
                    "id": one.id,
                    "tenant": one.tenant,
                    "playbook": one.playbook,
                    "key": key,
                    "run_key": storable(one.run_key),
                    "run_id": held.run_id,
                    "at": moment,
                },
            )
            return False
        connection.execute(sa.update(once).where(*where).values(run_id=one.id, opened=moment))
        return True

    def holders(self, connection: sa.Connection, runs: Sequence[NewRun]) -> dict[str, str]:
        """Of runs that were not added: the ones whose key another run holds, with that run."""
        asked = [one.id for one in runs if one.once is not None]
        found: dict[str, str] = {}
        for start in range(0, len(asked), 500):
            part = asked[start : start + 500]
            rows = connection.execute(
                sa.select(suppressed.c.id, suppressed.c.run_id).where(suppressed.c.id.in_(part))
            )
            found.update((identity, holder) for identity, holder in rows)
        return found


def keep_document(connection: sa.Connection, document: JsonObject) -> str:
    """Keep the document that runs begin with; returns its hash."""
    text = json.dumps(document, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    connection.execute(insert_or_ignore(connection, snapshot), {"hash": digest, "document": text})
    return digest
