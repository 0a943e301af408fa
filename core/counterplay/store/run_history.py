"""Runs as people look for them: one, those whose id begins so, the newest, those inside another."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from counterplay.clock import to_text
from counterplay.store.artifacts import got
from counterplay.store.database import Database
from counterplay.store.run_records import StoredRun
from counterplay.store.statements import loads
from counterplay.store.tables import effect, run, snapshot


class RunHistory:
    """Reads whole runs."""

    database: Database

    def get(self, identity: str) -> StoredRun | None:
        """One run, whole."""
        found = self._select(sa.select(run, snapshot.c.document).join(snapshot).where(run.c.id == identity))
        return found[0] if found else None

    def find(self, prefix: str) -> list[StoredRun]:
        """Runs whose id begins with the text, as people type it."""
        begins = run.c.id.startswith(prefix, autoescape=True)
        query = sa.select(run, snapshot.c.document).join(snapshot).where(begins).limit(10)
        return self._select(query)

    def newest(
        self,
        *,
        playbook: str | None,
        status: str | None,
        limit: int,
        entity: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        inside: bool = True,
    ) -> list[StoredRun]:
        """Runs, newest first. `entity`: whom an effect touched, or a text in the event.

        `since` and `until` look at when runs were created; without `inside`, branches, elements and called
        playbooks are left out.
        """
        query = sa.select(run, snapshot.c.document).join(snapshot)
        if playbook:
            query = query.where(run.c.playbook == playbook)
        if status:
            query = query.where(run.c.status == status)
        if entity:
            query = query.where(self._about_entity(entity))
        if since:
            query = query.where(run.c.created >= to_text(since))
        if until:
            query = query.where(run.c.created <= to_text(until))
        if not inside:
            query = query.where(run.c.parent.is_(None))
        return self._select(query.order_by(run.c.created.desc(), run.c.id).limit(limit))

    def _about_entity(self, entity: str) -> sa.ColumnElement[bool]:
        text = (
            sa.cast(run.c.event, sa.Text)
            if self.database.sqlite
            else sa.func.convert_from(run.c.event, "UTF8")
        )
        touched = sa.select(effect.c.run_id).where(
            sa.or_(
                sa.func.lower(effect.c.target) == entity.lower(),
                sa.func.lower(effect.c.subject) == entity.lower(),
            )
        )
        with self.database.read() as connection:
            roots = {one.partition("/")[0] for one in connection.execute(touched).scalars()}
        return sa.or_(run.c.id.in_(roots), text.icontains(entity, autoescape=True))

    def within(self, identity: str) -> list[StoredRun]:
        """The runs inside a run, at any depth, in order."""
        query = sa.select(run, snapshot.c.document).join(snapshot)
        inside = run.c.id.startswith(f"{identity}/", autoescape=True)
        return self._select(query.where(inside).order_by(run.c.parent, run.c.parent_step, run.c.place))

    def _select(self, query: sa.Select[Any]) -> list[StoredRun]:
        with self.database.read() as connection:
            rows = connection.execute(query).all()
            events = [got(connection, row.event) for row in rows]
        return [
            StoredRun(
                id=row.id,
                tenant=row.tenant,
                playbook=row.playbook,
                document=json.loads(row.document),
                event=event,
                meta=json.loads(row.meta),
                inputs=json.loads(row.inputs),
                connections=json.loads(row.connections),
                status=row.status,
                segment=row.segment,
                outcome=row.outcome,
                error=row.error,
                created=row.created,
                started=row.started,
                ended=row.ended,
                wake=row.wake,
                rank=row.rank,
                parent=row.parent,
                parent_step=row.parent_step,
                place=row.place,
                origin=loads(row.origin) or {},
                stop=loads(row.stop),
                cancel=loads(row.cancel),
                failed_at=loads(row.failed_at),
                tell=row.tell,
            )
            for row, event in zip(rows, events, strict=True)
        ]
