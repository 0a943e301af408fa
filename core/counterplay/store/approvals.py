"""Questions to people, and what they answered."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from counterplay import audit
from counterplay.clock import now, to_text
from counterplay.events import JsonObject
from counterplay.store.database import Database, storable
from counterplay.store.statements import insert_or_ignore
from counterplay.store.tables import answer, approval, run, token


@dataclass(frozen=True, slots=True)
class StoredApproval:
    """A question as it stands. `status`: open, approved, denied, expired, cancelled."""

    id: str
    run_id: str
    step_id: str
    purpose: str
    playbook: str
    question: str
    form: JsonObject | None
    people: int
    starter: str | None
    on_timeout: str
    deadline: str | None
    status: str
    created: str
    decided: str | None
    answers: tuple[StoredAnswer, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """What one person said: `source` is from where (a command, a link)."""

    person: str
    source: str
    decision: str
    comment: str
    form: Any
    question: str
    at: str


def approval_id(run_id: str, step_id: str, purpose: str, attempt: int) -> str:
    """The identity of a question: the same one is asked once, however often its segment begins."""
    text = "\0".join((run_id, step_id, purpose, str(attempt)))
    return f"a-{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:10]}"


class ApprovalStore:
    """The tables of approvals. Functions that take a connection belong into the caller's transaction."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def ask(
        self,
        connection: sa.Connection,
        identity: str,
        *,
        run_id: str,
        step_id: str,
        purpose: str,
        playbook: str,
        question: str,
        form: JsonObject | None,
        people: int,
        starter: str | None,
        on_timeout: str,
        deadline: datetime | None,
    ) -> None:
        """Put a question."""
        put = connection.execute(
            insert_or_ignore(connection, approval),
            {
                "id": identity,
                "run_id": run_id,
                "step_id": step_id,
                "purpose": purpose,
                "playbook": playbook,
                "question": storable(question),
                "form": None if form is None else json.dumps(form),
                "people": people,
                "starter": starter,
                "on_timeout": on_timeout,
                "deadline": None if deadline is None else to_text(deadline),
                "status": "open",
                "created": to_text(now()),
            },
        )
        if put.rowcount == 1:
            about = {
                "approval": identity,
                "step": step_id,
                "purpose": purpose,
                "question": storable(question),
            }
            audit.append(connection, "question", {**about, "people": people}, run_id=run_id)

    def hold(self, connection: sa.Connection, one: StoredApproval) -> None:
        """Whoever answers the question, closes it or cancels its run at the same time waits for this one."""
        for table, identity in ((run, one.run_id), (approval, one.id)):
            connection.execute(sa.select(table.c.id).where(table.c.id == identity).with_for_update())

    def get(self, identity: str) -> StoredApproval | None:
        """One question with its answers."""
        found = self._select(approval.c.id == identity)
        return found[0] if found else None

    def find(self, prefix: str) -> list[StoredApproval]:
        """Questions whose id begins with the text."""
        return self._select(approval.c.id.startswith(prefix, autoescape=True))

    def of_run(self, run_id: str) -> list[StoredApproval]:
        """The questions of a run and of everything inside it, in order."""
        return self._select(
            sa.or_(approval.c.run_id == run_id, approval.c.run_id.startswith(f"{run_id}/", autoescape=True))
        )

    def listed(self, status: str | None) -> list[StoredApproval]:
        """All questions, or those in one status, oldest first."""
        return self._select(sa.true() if status is None else approval.c.status == status)

    def add_answer(self, connection: sa.Connection, identity: str, given: StoredAnswer) -> bool:
        """Keep an answer. False: this person answered before."""
        made = connection.execute(
            insert_or_ignore(connection, answer),
            {
                "approval_id": identity,
                "person": storable(given.person),
                "source": storable(given.source),
                "decision": given.decision,
                "comment": storable(given.comment),
                "form": None if given.form is None else json.dumps(given.form),
                "question": storable(given.question),
                "at": given.at,
            },
        )
        if made.rowcount == 1:
            run_id = connection.execute(
                sa.select(approval.c.run_id).where(approval.c.id == identity)
            ).scalar_one()
            about = {"approval": identity, **asdict(given)}
            audit.append(connection, "approval", about, run_id=run_id, who=given.person)
        return made.rowcount == 1

    def tally(self, connection: sa.Connection, one: StoredApproval, last: str) -> str | None:
        """What the answers so far decide: `denied`, `approved`, or nothing yet."""
        if last == "deny":
            return "denied"
        approvals = connection.execute(
            sa.select(sa.func.count())
            .select_from(answer)
            .where(answer.c.approval_id == one.id, answer.c.decision == "approve")
        ).scalar_one()
        return "approved" if approvals >= one.people else None

    def decide(self, connection: sa.Connection, one: StoredApproval, status: str) -> bool:
        """Close the question and wake its run. False: it was closed already."""
        self.hold(connection, one)
        moved = connection.execute(
            sa.update(approval)
            .where(approval.c.id == one.id, approval.c.status == "open")
            .values(status=status, decided=to_text(now()))
        )
        if moved.rowcount != 1:
            return False
        about = {"approval": one.id, "step": one.step_id, "decided": status}
        audit.append(connection, "approval", about, run_id=one.run_id)
        connection.execute(
            sa.update(run)
            .where(run.c.id == one.run_id, run.c.status.in_(("waiting", "blocked")))
            .values(status="queued", wake=None)
        )
        return True

    def add_token(self, digest: str, identity: str, person: str, expires: datetime) -> None:
        """Keep the hash of a link's token."""
        with self.database.write() as connection:
            connection.execute(
                token.insert().values(
                    hash=digest, approval_id=identity, person=storable(person), expires=to_text(expires)
                )
            )

    def token(self, connection: sa.Connection, digest: str) -> tuple[str, str] | None:
        """(approval, person) of a token that is still good."""
        row = connection.execute(
            sa.select(token.c.approval_id, token.c.person).where(
                token.c.hash == digest, token.c.used.is_(None), token.c.expires > to_text(now())
            )
        ).first()
        return None if row is None else (row.approval_id, row.person)

    def use_token(self, connection: sa.Connection, digest: str) -> bool:
        """The token is used up. False: somebody was faster."""
        moved = connection.execute(
            sa.update(token).where(token.c.hash == digest, token.c.used.is_(None)).values(used=to_text(now()))
        )
        return moved.rowcount == 1

    def _select(self, where: sa.ColumnElement[bool]) -> list[StoredApproval]:
        with self.database.read() as connection:
            rows = connection.execute(
                sa.select(approval).where(where).order_by(approval.c.created, approval.c.id)
            ).all()
            answers: dict[str, list[StoredAnswer]] = {row.id: [] for row in rows}
            for start in range(0, len(rows), 500):
                part = [row.id for row in rows[start : start + 500]]
                for one in connection.execute(
                    sa.select(answer).where(answer.c.approval_id.in_(part)).order_by(answer.c.id)
                ):
                    answers[one.approval_id].append(
                        StoredAnswer(
                            one.person,
                            one.source,
                            one.decision,
                            one.comment,
                            None if one.form is None else json.loads(one.form),
                            one.question,
                            one.at,
                        )
                    )
        return [
            StoredApproval(
                id=row.id,
                run_id=row.run_id,
                step_id=row.step_id,
                purpose=row.purpose,
                playbook=row.playbook,
                question=row.question,
                form=None if row.form is None else json.loads(row.form),
                people=row.people,
                starter=row.starter,
                on_timeout=row.on_timeout,
                deadline=row.deadline,
                status=row.status,
                created=row.created,
                decided=row.decided,
                answers=tuple(answers[row.id]),
            )
            for row in rows
        ]
