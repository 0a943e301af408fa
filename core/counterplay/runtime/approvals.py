"""Answering: who may, with what, and what follows. The same for the command and for a link."""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime, timedelta
from typing import Any, Literal

from counterplay.clock import from_text, now, to_text
from counterplay.errors import ConfigError
from counterplay.language.arguments import problems
from counterplay.store.approvals import ApprovalStore, StoredAnswer, StoredApproval

Decision = Literal["approve", "deny"]
LINK_LIFETIME = timedelta(hours=24)


class RefusedAnswer(ConfigError):
    """The answer does not count, and nothing was changed; the message says why."""


class Approvals:
    """Questions that runs wait on, and the ways to answer them."""

    def __init__(self, store: ApprovalStore) -> None:
        self.store = store

    def answer(
        self,
        identity: str,
        decision: Decision,
        *,
        person: str,
        source: str,
        comment: str = "",
        form: Any = None,
    ) -> StoredApproval:
        """Record what a person says; the last one who is needed decides, and the run goes on.

        RefusedAnswer: it is closed, its time is up, the person may not (again), or the form is wrong.
        """
        one = self._open(identity)
        given = self._checked(one, decision, person, source, comment, form)
        return self._recorded(one, given, None)

    def link(self, identity: str, person: str) -> str:
        """A token for one person and one answer, to be sent by POST; only its hash is kept."""
        one = self._open(identity)
        secret = secrets.token_urlsafe(32)
        deadline = from_text(one.deadline) if one.deadline else None
        expires = now() + LINK_LIFETIME
        self.store.add_token(_hash(secret), one.id, person, min(expires, deadline or expires))
        return secret

    def by_link(
        self,
        method: str,
        secret: str,
        decision: Decision,
        *,
        source: str,
        comment: str = "",
        form: Any = None,
    ) -> StoredApproval:
        """Answer with a link's token. It is used up by the answer that counts, and by no other request.

        RefusedAnswer: not a POST (mail programs open links by themselves), or the token is not good.
        """
        if method != "POST":
            raise RefusedAnswer("an approval link is answered by POST only")
        with self.store.database.read() as connection:
            found = self.store.token(connection, _hash(secret))
        if found is None:
            raise RefusedAnswer("this link was used, has expired, or never was one")
        identity, person = found
        one = self._open(identity)
        given = self._checked(one, decision, person, source, comment, form)
        return self._recorded(one, given, _hash(secret))

    def _recorded(self, one: StoredApproval, given: StoredAnswer, token: str | None) -> StoredApproval:
        """The answer, the token that it used up, and what it decides: all of it or nothing."""
        with self.store.database.write() as connection:
            self.store.hold(connection, one)
            if token is not None and not self.store.use_token(connection, token):
                raise RefusedAnswer("this link was used, has expired, or never was one")
            if not self.store.add_answer(connection, one.id, given):
                raise RefusedAnswer(f"{one.id}: {given.person} has answered already")
            status = self.store.tally(connection, one, given.decision)
            if status is not None and not self.store.decide(connection, one, status):
                raise RefusedAnswer(f"{one.id} was answered in the meantime")
        after = self.store.get(one.id)
        assert after is not None
        return after

    def _open(self, identity: str) -> StoredApproval:
        one = self.store.get(identity)
        if one is None:
            raise RefusedAnswer(
                f"there is no approval {identity!r}", hint="`playbook approvals` lists those that are open"
            )
        if one.status != "open":
            raise RefusedAnswer(
                f"{identity} is {one.status} since {one.decided}",
                hint=f"`playbook runs show {one.run_id}` shows what followed",
            )
        if one.deadline is not None and from_text(one.deadline) <= now():
            raise RefusedAnswer(f"{identity}: its time was up at {one.deadline}")
        return one

    def _checked(
        self, one: StoredApproval, decision: str, person: str, source: str, comment: str, form: Any
    ) -> StoredAnswer:
        if any(each.person == person for each in one.answers):
            raise RefusedAnswer(f"{one.id}: {person} has answered already", hint="somebody else has to")
        if decision == "approve" and one.people > 1 and person == one.starter:
            raise RefusedAnswer(
                f"{one.id}: {person} started the run, and it takes {one.people} others to approve"
            )
        if decision == "approve" and one.form is not None:
            for problem in problems({} if form is None else form, one.form):
                where = ".".join(("form", *map(str, problem.path)))
                raise RefusedAnswer(f"{one.id}: {where}: {problem.message}", hint=problem.hint or None)
        elif form is not None and one.form is None:
            raise RefusedAnswer(f"{one.id} asks for no form", hint="answer without one")
        return StoredAnswer(person, source, decision, comment, form, one.question, to_text(now()))


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def result_of(one: StoredApproval) -> dict[str, Any]:
    """What later steps see of a question that is closed: `steps.<id>.result`."""
    approvers = [each for each in one.answers if each.decision == "approve"]
    deciding = one.answers[-1] if one.answers else None
    timed_out = one.status == "expired"
    return {
        "approved": one.on_timeout == "approve" if timed_out else one.status == "approved",
        "by": [each.person for each in (approvers if one.status == "approved" else one.answers)],
        "comment": deciding.comment if deciding is not None and not timed_out else "",
        "answers": deciding.form if deciding is not None and not timed_out else None,
        "at": one.decided,
        "timed_out": timed_out,
    }


def until(one: StoredApproval, deadline: datetime | None) -> datetime | None:
    """When the question closes by itself: its own deadline or that of the step around it."""
    own = from_text(one.deadline) if one.deadline else None
    return min((each for each in (own, deadline) if each is not None), default=None)
