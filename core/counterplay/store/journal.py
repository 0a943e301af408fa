"""What guards ask of the journal of effects: how much happened lately."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from counterplay.clock import to_text
from counterplay.store.database import Database
from counterplay.store.tables import effect, run

_HAPPENED = ("intended", "done", "unknown")
"""What failed or was refused changed nothing; what is only intended may have."""


class Journal:
    """Counts over the effects and runs of a store; the `EffectJournal` that guards get."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def effects(
        self,
        since: datetime,
        *,
        uses: str | None = None,
        playbook: str | None = None,
        tenant: str | None = None,
        besides: tuple[str, str] | None = None,
    ) -> int:
        """Effects from a time on that took place or may have; `besides` leaves out (run, step)."""
        query = sa.select(sa.func.count()).select_from(effect)
        query = query.where(effect.c.at >= to_text(since), effect.c.status.in_(_HAPPENED))
        if uses is not None:
            query = query.where(effect.c.uses == uses)
        if tenant is not None:
            query = query.where(effect.c.tenant == tenant)
        if playbook is not None:
            query = query.join(run, run.c.id == effect.c.run_id).where(run.c.playbook == playbook)
        if besides is not None:
            query = query.where(
                sa.not_(sa.and_(effect.c.run_id == besides[0], effect.c.step_id == besides[1]))
            )
        with self._database.read() as connection:
            return int(connection.execute(query).scalar_one())

    def runs_with_effects(self, since: datetime, playbook: str, *, besides: str | None = None) -> int:
        """Runs of a playbook with effects from a time on; `besides` leaves one out."""
        query = (
            sa.select(sa.func.count(sa.distinct(effect.c.run_id)))
            .select_from(effect)
            .join(run, run.c.id == effect.c.run_id)
            .where(effect.c.at >= to_text(since), effect.c.status.in_(_HAPPENED), run.c.playbook == playbook)
        )
        if besides is not None:
            query = query.where(effect.c.run_id != besides)
        with self._database.read() as connection:
            return int(connection.execute(query).scalar_one())
