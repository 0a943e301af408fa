"""The steps of runs and the attempts that did not end them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import sqlalchemy as sa

from counterplay.clock import now, to_text
from counterplay.store.artifacts import INLINE_RESULT, got, put
from counterplay.store.database import Database, storable
from counterplay.store.leases import Lease, Leased, LeaseLost, Row
from counterplay.store.run_records import StoredAttempt, StoredStep
from counterplay.store.statements import dumps, insert_or_ignore, loads, upsert
from counterplay.store.tables import attempt, step


class StepRows(Leased):
    """A step is one row, written when it ends; before that only by what it does, or when it takes long."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._pending: dict[tuple[str, str], tuple[Lease, StoredStep]] = {}

    def steps(self, identity: str) -> list[StoredStep]:
        """The run's steps as far as they were reached, in order."""
        with self.database.read() as connection:
            rows = connection.execute(
                sa.select(step).where(step.c.run_id == identity).order_by(step.c.position)
            ).all()
            results = [row.result and got(connection, row.result.encode()).decode() for row in rows]
        return [
            StoredStep(
                step_id=row.step_id,
                uses=row.uses,
                status=row.status,
                attempts=row.attempts,
                arguments=loads(row.arguments),
                result=loads(result),
                error=row.error,
                started=row.started,
                ended=row.ended,
                due=row.due,
                position=row.position,
            )
            for row, result in zip(rows, results, strict=True)
        ]

    def attempts(self, identity: str) -> list[StoredAttempt]:
        """Attempts that did not end their steps."""
        with self.database.read() as connection:
            rows = connection.execute(
                sa.select(attempt)
                .where(attempt.c.run_id == identity)
                .order_by(attempt.c.started, attempt.c.number)
            ).all()
        return [
            StoredAttempt(row.step_id, row.number, row.status, row.error, row.started, row.ended)
            for row in rows
        ]

    def put_step(self, connection: sa.Connection, identity: str, one: StoredStep) -> None:
        """Write a step's row, whether it is there or not."""
        self._pending.pop((identity, one.step_id), None)
        result = dumps(one.result)
        if result is not None and len(result) > INLINE_RESULT:
            result = put(connection, identity, result.encode(), INLINE_RESULT).decode()
        row = _row(identity, one, result)
        connection.execute(upsert(connection, step, row.keys, row.changed), row.values)

    def write_step(self, lease: Lease, one: StoredStep, *changes: Callable[[sa.Connection], object]) -> None:
        """Write a step's row and make further changes, as one transaction of the segment that holds the run.

        LeaseLost: another one does.
        """
        if self.is_large(one):
            with self.leased(lease) as connection:
                self.put_step(connection, lease.run_id, one)
                for change in changes:
                    change(connection)
            return
        row = self.step_row(lease.run_id, one)
        if not changes:
            self.write_leased(lease, row)
            return
        with self.leased(lease, row) as connection:
            for change in changes:
                change(connection)

    def is_large(self, one: StoredStep) -> bool:
        """Its result has a row of its own."""
        result = dumps(one.result)
        return result is not None and len(result) > INLINE_RESULT

    def step_row(self, identity: str, one: StoredStep) -> Row:
        """The row of a step whose result is in it, for whoever writes it next."""
        self._pending.pop((identity, one.step_id), None)  # before: `tell` must not write it afterwards
        return _row(identity, one, dumps(one.result))

    def put_attempt(
        self, connection: sa.Connection, identity: str, one: StoredStep, status: str, error: str | None
    ) -> None:
        """An attempt of the step is over, and the step is not."""
        connection.execute(
            insert_or_ignore(connection, attempt),
            {
                "run_id": identity,
                "step_id": one.step_id,
                "number": one.attempts,
                "status": status,
                "error": error and storable(error),
                "started": one.started,
                "ended": to_text(now()),
            },
        )

    def expect(self, lease: Lease, one: StoredStep) -> None:
        """A step begins: its row is written with the next thing it does, or by `tell` when it takes long."""
        self._pending[lease.run_id, one.step_id] = (lease, one)

    def begun(self, lease: Lease, step_id: str) -> tuple[Row, ...]:
        """The row of a step that begins, if it was not written yet: for whoever writes now."""
        _, one = self._pending.pop((lease.run_id, step_id), (lease, None))
        return () if one is None else (_row(lease.run_id, one, dumps(one.result)),)

    def tell(self, older_than: float) -> None:
        """Write the rows of steps that have been working for that many seconds, so that people see them."""
        limit = to_text(now() - timedelta(seconds=older_than))
        for (identity, _), (lease, one) in list(self._pending.items()):
            if one.started <= limit:
                try:
                    with self.leased(lease) as connection:
                        if (identity, one.step_id) in self._pending:
                            self.put_step(connection, identity, one)
                except LeaseLost:
                    self._pending.pop((identity, one.step_id), None)


def _row(identity: str, one: StoredStep, result: str | None) -> Row:
    values = {
        "position": one.position,
        "uses": one.uses,
        "status": one.status,
        "attempts": one.attempts,
        "arguments": dumps(one.arguments),
        "result": result,
        "error": one.error and storable(one.error),
        "started": one.started,
        "ended": one.ended,
        "due": one.due,
    }
    changed = tuple(values)
    return Row(step, ("run_id", "step_id"), changed, {"run_id": identity, "step_id": one.step_id, **values})
