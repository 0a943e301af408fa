"""Runs inside runs: branches of `parallel`, elements of `for_each`, playbooks that are called.

A parent that waits for its children is a parked row; the end of the last one wakes it, in the same
transaction. So no slot is held while anything waits, and nothing is woken twice or forgotten.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from counterplay.clock import now, to_text
from counterplay.events import JsonObject
from counterplay.store.artifacts import INLINE_EVENT, put
from counterplay.store.outbox import keep_document
from counterplay.store.runs import ENDED, RunStore, StoredRun
from counterplay.store.statements import insert_or_ignore
from counterplay.store.tables import approval, attempt, effect, run, snapshot, step


@dataclass(frozen=True, slots=True)
class NewChild:
    """A child to be made. `document` and `inputs` are its own where it is a playbook that was called."""

    place: int
    origin: JsonObject
    playbook: str | None = None
    document: JsonObject | None = None
    event: bytes | None = None
    inputs: JsonObject | None = None


def child_id(parent: str, step_id: str, place: int) -> str:
    """`<parent>/<step>/<place>`."""
    return f"{parent}/{step_id}/{place}"


def spawn(
    connection: sa.Connection, parent: StoredRun, step_id: str, children: Sequence[NewChild], at_once: int
) -> None:
    """Make the children of a step; so many of them begin, the others are held until one ends."""
    row = connection.execute(sa.select(run).where(run.c.id == parent.id)).one()
    moment = to_text(now())
    rows = [
        {
            "id": child_id(parent.id, step_id, one.place),
            "tenant": row.tenant,
            "playbook": one.playbook or row.playbook,
            "run_key": row.run_key,
            "snapshot": row.snapshot if one.document is None else keep_document(connection, one.document),
            "event": row.event if one.event is None else put(connection, parent.id, one.event, INLINE_EVENT),
            "meta": row.meta,
            "inputs": row.inputs if one.inputs is None else json.dumps(one.inputs),
            "connections": row.connections,
            "status": "queued" if one.place < at_once else "held",
            "segment": 1,
            "created": moment,
            "rank": row.rank,
            "parent": parent.id,
            "parent_step": step_id,
            "place": one.place,
            "origin": json.dumps(one.origin),
        }
        for one in children
    ]
    connection.execute(run.insert(), rows)


def children_of(runs: RunStore, parent: str, step_id: str) -> list[StoredRun]:
    """The children of a step, in order."""
    return runs._select(
        sa.select(run, snapshot.c.document)
        .join(snapshot)
        .where(run.c.parent == parent, run.c.parent_step == step_id)
        .order_by(run.c.place)
    )


def all_ended(connection: sa.Connection, parent: str, step_id: str) -> bool:
    """Whether every child of the step ended."""
    return (
        connection.execute(
            sa.select(run.c.id)
            .where(run.c.parent == parent, run.c.parent_step == step_id, run.c.status.not_in(ENDED))
            .limit(1)
        ).first()
        is None
    )


def lock(connection: sa.Connection, parent: str) -> None:
    """Before a child ends, hold its parent: of two that end at once, the second one sees the first."""
    connection.execute(sa.select(run.c.id).where(run.c.id == parent).with_for_update())


def child_ended(connection: sa.Connection, identity: str) -> None:
    """A child ended: the next one that is held begins, or its parent goes on."""
    child = connection.execute(
        sa.select(run.c.parent, run.c.parent_step, run.c.stop).where(run.c.id == identity)
    ).one()
    family = (run.c.parent == child.parent, run.c.parent_step == child.parent_step)
    if child.stop is not None:  # the whole run ends: what has not begun does not begin
        connection.execute(
            sa.update(run)
            .where(*family, run.c.status == "held")
            .values(status="cancelled", outcome="cancelled", ended=to_text(now()))
        )
    held = connection.execute(
        sa.select(run.c.id).where(*family, run.c.status == "held").order_by(run.c.place).limit(1)
    ).scalar()
    if held is not None:
        connection.execute(sa.update(run).where(run.c.id == held).values(status="queued"))
    elif all_ended(connection, child.parent, child.parent_step):
        connection.execute(
            sa.update(run)
            .where(run.c.id == child.parent, run.c.status == "waiting")
            .values(status="queued", wake=None)
        )


def cancel(connection: sa.Connection, identity: str, by: JsonObject) -> int:
    """Ask a run and everything inside it to end. Returns how many runs were asked.

    What works ends at its next step; what waits is woken to end; what has not begun ends now.
    """
    inside = sa.or_(run.c.id == identity, run.c.id.startswith(f"{identity}/", autoescape=True))
    connection.execute(sa.select(run.c.id).where(inside).order_by(run.c.id).with_for_update())
    open_runs = (inside, run.c.status.not_in(ENDED))
    asked = connection.execute(sa.update(run).where(*open_runs).values(cancel=json.dumps(by))).rowcount
    connection.execute(
        sa.update(run)
        .where(inside, run.c.status == "held")
        .values(status="cancelled", outcome="cancelled", ended=to_text(now()))
    )
    parents = sa.select(run.c.parent).where(run.c.parent.is_not(None), run.c.status.not_in(ENDED))
    connection.execute(  # who waits for children is woken by the last of them
        sa.update(run)
        .where(inside, run.c.status.in_(("waiting", "blocked")), run.c.id.not_in(parents.scalar_subquery()))
        .values(status="queued", wake=None)
    )
    connection.execute(
        sa.update(approval)
        .where(
            sa.or_(
                approval.c.run_id == identity,
                approval.c.run_id.startswith(f"{identity}/", autoescape=True),
            ),
            approval.c.status == "open",
        )
        .values(status="cancelled", decided=to_text(now()))
    )
    return int(asked)


def reopen(
    connection: sa.Connection, identity: str, steps: Sequence[str], note: str, *, everything: bool = False
) -> None:
    """Let an ended run go on: these steps, and the children of theirs that failed, are tried again.

    `everything`: the children that succeeded, too, with all their steps.
    """
    moment = to_text(now())
    for step_id in steps:
        where = (step.c.run_id == identity, step.c.step_id == step_id)
        row = connection.execute(sa.select(step).where(*where)).first()
        if row is None:
            continue
        connection.execute(
            insert_or_ignore(connection, attempt),
            {
                "run_id": identity,
                "step_id": step_id,
                "number": row.attempts,
                "status": row.status,
                "error": f"{row.error or row.status}; {note}",
                "started": row.started,
                "ended": row.ended,
            },
        )
        inner = connection.execute(
            sa.select(run.c.id, run.c.failed_at).where(
                run.c.parent == identity,
                run.c.parent_step == step_id,
                run.c.status.in_(ENDED if everything else ("failed", "cancelled")),
            )
        ).all()
        for child in inner:
            at: list[str] = json.loads(child.failed_at)["steps"] if child.failed_at else []
            rows = sa.select(step.c.step_id).where(step.c.run_id == child.id)
            unended = sa.true() if everything else step.c.ended.is_(None)
            at += list(connection.execute(rows.where(unended, step.c.step_id.not_in(at))).scalars())
            reopen(connection, child.id, at, note, everything=everything)
        any_child = connection.execute(
            sa.select(run.c.id).where(run.c.parent == identity, run.c.parent_step == step_id).limit(1)
        ).first()
        connection.execute(
            sa.update(step)
            .where(*where)
            .values(
                status="waiting" if any_child is not None else "running",
                ended=None,
                error=None,
                due=None,
                result=None,
                started=moment,
                attempts=row.attempts,
            )
        )
    waits = connection.execute(
        sa.select(run.c.id).where(run.c.parent == identity, run.c.status.not_in(ENDED)).limit(1)
    ).first()
    connection.execute(
        sa.update(run)
        .where(run.c.id == identity, run.c.status.in_(ENDED))
        .values(
            status="waiting" if waits is not None else "queued",
            segment=run.c.segment + 1,
            worker=None,
            outcome=None,
            error=None,
            ended=None,
            wake=None,
            stop=None,
            cancel=None,
            failed_at=None,
        )
    )


def has_effect(connection: sa.Connection, identity: str, step_id: str) -> bool:
    """Whether the step, or a child of it, changed something (or may have)."""
    inside = sa.or_(
        sa.and_(effect.c.run_id == identity, effect.c.step_id == step_id),
        effect.c.run_id.startswith(f"{identity}/{step_id}/", autoescape=True),
    )
    found = connection.execute(
        sa.select(effect.c.id).where(inside, effect.c.status.in_(("done", "unknown", "intended"))).limit(1)
    ).first()
    return found is not None
