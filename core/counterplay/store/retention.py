"""What old runs leave: after their time their rows go, the audit log and the run's identity stay.

A run and everything inside it go together, and only when all of it ended, every later look at its effects
was made, and its hooks were told. The ids are kept, so that the same event starts no second run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from counterplay.clock import now, to_text
from counterplay.store.database import Database
from counterplay.store.run_records import ENDED
from counterplay.store.statements import insert_or_ignore
from counterplay.store.tables import (
    answer,
    approval,
    artifact,
    artifact_use,
    attempt,
    effect,
    past_run,
    run,
    snapshot,
    step,
    suppressed,
    token,
    watch,
)

BATCH = 100
"""Runs that go in one transaction: small enough that nobody waits for it."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """How many runs went (those inside others not counted), segments of the engine, units of the ledger."""

    runs: int
    segments: int = 0
    units: int = 0


def count_old(database: Database, before: datetime) -> int:
    """How many runs `delete_old` would delete."""
    with database.read() as connection:
        return sum(len(trees) for trees in _batches(connection, before))


def delete_old(database: Database, before: datetime) -> int:
    """Delete the runs that ended before a time, with everything inside them. Returns how many.

    Not the audit log, which stays whole; not dead letters, which wait for a person.
    """
    total = 0
    with database.read() as connection:
        batches = list(_batches(connection, before))
    for trees in batches:
        with database.write() as connection:
            _delete(connection, list(trees), [one for inside in trees.values() for one in inside])
        total += len(trees)
    if total:
        with database.write() as connection:
            _sweep(connection)
        shrink(database)
    return total


def shrink(database: Database) -> None:
    """Give the freed pages of a SQLite file back to the disk; PostgreSQL uses them again by itself."""
    if database.sqlite:
        with database.write() as connection:
            driver: Any = connection.connection.driver_connection
            driver.execute("PRAGMA incremental_vacuum").fetchall()  # it works as far as it is fetched


def was_deleted(database: Database, prefix: str) -> str | None:
    """When the run whose id begins so was deleted by retention; None: it was not."""
    with database.read() as connection:
        row = connection.execute(
            sa.select(past_run.c.deleted).where(past_run.c.id.startswith(prefix, autoescape=True)).limit(1)
        ).first()
    return None if row is None else str(row.deleted)


def _batches(connection: sa.Connection, before: datetime) -> Iterator[dict[str, list[str]]]:
    """Runs that are over for good, each with itself and every run inside it; at most BATCH at once."""
    place = ("", "")
    while True:
        found = connection.execute(
            sa.select(run.c.id, run.c.created)
            .where(
                run.c.parent.is_(None),
                run.c.status.in_(ENDED),
                run.c.created < to_text(before),  # which it was, when it ended before that: there is an index
                run.c.ended < to_text(before),
                run.c.tell.is_(None),
                sa.tuple_(run.c.created, run.c.id) > place,
            )
            .order_by(run.c.created, run.c.id)
            .limit(BATCH)
        ).all()
        if not found:
            return
        place = (found[-1].created, found[-1].id)
        yield _over(connection, [one.id for one in found])


def _over(connection: sa.Connection, roots: Sequence[str]) -> dict[str, list[str]]:
    """Each run with all that is inside it; none that has something left to do."""
    trees = {root: [root] for root in roots}
    level = list(roots)
    while level:
        inside = connection.execute(
            sa.select(run.c.id, run.c.status, run.c.tell).where(run.c.parent.in_(level))
        ).all()
        level = []
        for one in inside:
            root = one.id.partition("/")[0]
            if one.status not in ENDED or one.tell is not None:
                trees.pop(root, None)
            elif root in trees:
                trees[root].append(one.id)
                level.append(one.id)
    every = [one for inside in trees.values() for one in inside]
    for part in _parts(every):
        to_look = sa.select(watch.c.run_id).where(watch.c.run_id.in_(part), watch.c.checked.is_(None))
        for one in connection.execute(to_look).scalars():
            trees.pop(one.partition("/")[0], None)
    return trees


def _delete(connection: sa.Connection, roots: Sequence[str], ids: Sequence[str]) -> None:
    """Runs and all that they hold, from the leaves to the root; their identities stay."""
    held_back = sa.select(suppressed.c.id).where(suppressed.c.run_id.in_(roots))
    moment = to_text(now())
    for one in [*roots, *connection.execute(held_back).scalars()]:
        connection.execute(insert_or_ignore(connection, past_run), {"id": one, "deleted": moment})
    connection.execute(sa.delete(suppressed).where(suppressed.c.run_id.in_(roots)))
    for part in _parts(ids):
        asked = sa.select(approval.c.id).where(approval.c.run_id.in_(part))
        connection.execute(sa.delete(token).where(token.c.approval_id.in_(asked)))
        connection.execute(sa.delete(answer).where(answer.c.approval_id.in_(asked)))
        for table in (approval, watch, effect, attempt, step, artifact_use):
            connection.execute(sa.delete(table).where(table.c.run_id.in_(part)))
        connection.execute(sa.delete(run).where(run.c.id.in_(part)))


def _parts(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """A statement takes a limited number of variables."""
    return (ids[start : start + 500] for start in range(0, len(ids), 500))


def _sweep(connection: sa.Connection) -> None:
    """Documents and large values that no run refers to any more."""
    used = sa.select(run.c.id).where(run.c.snapshot == snapshot.c.hash).exists()
    connection.execute(sa.delete(snapshot).where(~used))
    referred = sa.select(artifact_use.c.run_id).where(artifact_use.c.hash == artifact.c.hash).exists()
    connection.execute(sa.delete(artifact).where(~referred))
