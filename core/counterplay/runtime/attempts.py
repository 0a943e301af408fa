"""One attempt of a module step: an action, a directive, a transform or a sink, within its time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

from counterplay.clock import from_text, now, to_text
from counterplay.directives import Ask, Call, Pause, Stop
from counterplay.errors import InterruptedWork, PermanentError, StateError, as_work_error
from counterplay.events import Event, JsonObject, encoded
from counterplay.language import Step, Use
from counterplay.modules import Action, Control, Sink, StepContext, Transform
from counterplay.plugins import PluginHost
from counterplay.runtime.approvals import result_of, until
from counterplay.runtime.effects import EffectRunner, failed
from counterplay.runtime.figures import Figures
from counterplay.runtime.given import DEEPEST, arguments_of, inputs_of
from counterplay.runtime.opening import Opener
from counterplay.runtime.results import Asks, Outcome
from counterplay.runtime.segments import Frame, Parked, RunCancelled, RunStopped, Segment, earliest, inside
from counterplay.runtime.terms import Waived, terms_of
from counterplay.store.approvals import ApprovalStore, StoredApproval, approval_id
from counterplay.store.children import NewChild, children_of, spawn
from counterplay.store.runs import LeaseLost, RunStore, StoredStep
from counterplay.wire import Wire

if TYPE_CHECKING:
    from counterplay.runtime.outcomes import OutcomeSender
    from counterplay.runtime.walk import Walk

SHORT_PAUSE = timedelta(seconds=60)
"""`std.wait` of up to this long keeps its segment; a longer one is a parked row."""
GRACE = 0.25
"""Seconds that an attempt has after its time to say itself how it ended."""


class Attempts:
    """Makes attempts. One instance for an interpreter; `attempt` may be called by many segments at once."""

    def __init__(
        self,
        host: PluginHost,
        runs: RunStore,
        opener: Opener,
        effects: EffectRunner,
        sender: OutcomeSender,
        figures: Figures,
        stop: threading.Event,
    ) -> None:
        self._host = host
        self._runs = runs
        self._opener = opener
        self._effects = effects
        self._sender = sender
        self._figures = figures
        self._stop = stop
        self._approvals = ApprovalStore(runs.database)

    def attempt(self, walk: Walk, step: Step, row: StoredStep, frame: Frame) -> Outcome:
        """Try the step once. Parked, RunStopped and RunCancelled pass through: the run goes another way."""
        use = step.use
        assert use is not None
        arguments: JsonObject | None = None
        try:
            info = self._host.module(use.uses)
            if issubclass(info.cls, Control) and row.status == "waiting":
                return self._resumed(walk, step, row, frame)
            arguments = arguments_of(self._host, use, step.arguments.render(walk.segment.scope(frame)))
            outcome = self._made(walk, step, use, row, frame, arguments)
        except (InterruptedWork, StateError, LeaseLost, sa.exc.SQLAlchemyError):
            raise
        except (Parked, RunStopped, RunCancelled):
            raise
        except (Exception, SystemExit) as error:  # a plugin may raise anything
            outcome = failed(as_work_error(error, use.uses))
        return replace(outcome, arguments=self._opener.secrets.mask_json(arguments))

    def _made(
        self, walk: Walk, step: Step, use: Use, row: StoredStep, frame: Frame, arguments: JsonObject
    ) -> Outcome:
        segment = walk.segment
        run = segment.run
        info = self._host.module(use.uses)
        module = info.cls(arguments)
        connection = self._opener.connection_for(use, segment.playbook, run.connections, run.meta)
        if isinstance(module, Sink):
            return self._sender.as_step(walk, step.id, use, module, connection, row, frame)
        left = _seconds_left(frame.deadline)
        http = self._opener.wire(connection, left)
        context = StepContext(
            http=http,
            connection=connection,
            stop=self._stop,
            run_id=run.id,
            playbook=run.playbook,
            step_id=step.id,
            attempt=row.attempts,
            internal=self._opener.inside(connection),
        )
        tenant = connection.tenant if connection is not None else run.tenant
        if isinstance(module, Control):
            with http:
                return self._directed(walk, step, module, context, row, frame)
        if isinstance(module, Transform):
            with http:
                return _transformed(module, context, segment)
        if not isinstance(module, Action):
            raise PermanentError(f"{use.uses} is a {info.kind}, not an action")
        to_the_plan: str | None = None
        if module.effect:
            context.consent = self._consent(walk, step.id, row, "guard")
            to_the_plan = self._consent(walk, step.id, row, "plan")
            if "" in (context.consent, to_the_plan):
                return Outcome("failed", error="nobody agreed to it", effect=None)

        def work() -> Outcome:
            known = None
            if module.effect and step.id in segment.rows:  # the row and the intent are written as one
                known = next((one for one in self._runs.effects(run.id) if one.step_id == step.id), None)
            terms = terms_of(run, step.id, self._opener)
            if terms is not None and to_the_plan is not None:
                terms = Waived(terms)
            with http:
                return self._effects.attempt(use.uses, module, context, segment.lease, tenant, known, terms)

        outcome = work() if left is None else self._bounded(work, http, left, run.id, step.id)
        if step.verify and outcome.status == "succeeded" and outcome.verified is False:
            text = "it was done, and reading it back shows that it does not hold"
            outcome = replace(outcome, status="failed", error=text)
        if outcome.status == "paused":
            self._ask_for_consent(walk, step.id, row, frame, outcome)
        return outcome

    def _bounded(
        self, work: Callable[[], Outcome], http: Wire, left: float, run_id: str, step_id: str
    ) -> Outcome:
        """The work within its time. What still runs then is given up: it can send nothing more."""
        done: list[Outcome | BaseException] = []

        def body() -> None:
            try:
                done.append(work())
            except BaseException as error:
                done.append(error)

        thread = threading.Thread(target=body, name=f"{run_id} {step_id}", daemon=True)
        thread.start()
        thread.join(left + GRACE)
        if not done:
            http.abandon()
            thread.join(GRACE)
        if done:
            if isinstance(done[0], BaseException):
                raise done[0]
            return done[0]
        known = next((one for one in self._runs.effects(run_id) if one.step_id == step_id), None)
        if known is None or known.status != "intended":
            return Outcome("failed", error="it did not come to an end in its time")
        if not known.calls:
            return Outcome("failed", error="it did not come to an end in its time", effect="failed")
        text = "it did not come to an end in its time, so it may or may not have taken effect"
        return Outcome("failed", error=text, effect="unknown")

    # --- directives --------------------------------------------------------------------------------

    def _directed(
        self, walk: Walk, step: Step, control: Control, context: StepContext, row: StoredStep, frame: Frame
    ) -> Outcome:
        directive = control.direct(context)
        given = self._opener.secrets.mask_json(control.arguments)
        row = replace(row, arguments=given)
        if isinstance(directive, Pause):
            due = now() + directive.duration
            waiting = replace(row, status="waiting", due=to_text(due))
            return self._pause(walk, step, waiting, frame)
        if isinstance(directive, Ask):
            return self._asked(walk, step.id, row, frame, directive)
        if isinstance(directive, Call):
            return self._called(walk, step.id, row, frame, directive)
        if isinstance(directive, Stop):
            result = {"status": directive.status, "reason": directive.reason}
            stopped = RunStopped(directive.status, directive.reason, step.id)
            walk._end(row, "succeeded", outcome=Outcome("succeeded", result, arguments=given), stop=stopped)
            raise stopped
        raise PermanentError(
            f"{type(control).__name__} gave {type(directive).__name__}, which is no directive"
        )

    def _resumed(self, walk: Walk, step: Step, row: StoredStep, frame: Frame) -> Outcome:
        """A directive that is under way: may the run go on?"""
        if row.due is not None:
            outcome = self._pause(walk, step, row, frame)
        elif children_of(self._runs, walk.segment.run.id, step.id):
            outcome = self._called_back(walk, step.id, frame)
        else:
            outcome = self._answered(walk, step.id, row, frame)
        return replace(outcome, arguments=row.arguments)

    def _pause(self, walk: Walk, step: Step, row: StoredStep, frame: Frame) -> Outcome:
        due = from_text(str(row.due))
        ends = earliest(due, frame.deadline) or due
        left = ends - now()
        saved = walk.segment.rows.get(step.id)
        if left > SHORT_PAUSE:
            walk.park(ends, f"step {step.id}: waits until {to_text(ends)[:19]}Z", lambda c: walk._put(c, row))
        if saved is None or saved.due != row.due:
            walk._save(row)
        if left.total_seconds() > 0 and self._stop.wait(left.total_seconds()):
            raise InterruptedWork("stopped while a step waited")
        if ends < due:
            return Outcome("failed", error="the time of the step is up before its wait is")
        return Outcome("succeeded", {"until": to_text(due)}, arguments=row.arguments)

    def _asked(self, walk: Walk, step_id: str, row: StoredStep, frame: Frame, ask: Ask) -> Outcome:
        """Put the question and park; a deadline or an answer wakes the run."""
        run = walk.segment.run
        deadline = now() + ask.timeout if ask.timeout is not None else None
        if ask.form is not None:
            from counterplay.language.arguments import schema_problem

            wrong = schema_problem(ask.form)
            if wrong:
                raise PermanentError(f"`form` is no JSON Schema: {wrong}")
        identity = approval_id(run.id, step_id, "approval", row.attempts)
        question = self._opener.secrets.mask(ask.question)

        def put(connection: sa.Connection) -> None:
            walk._put(connection, replace(row, status="waiting"))
            self._approvals.ask(
                connection,
                identity,
                run_id=run.id,
                step_id=step_id,
                purpose="approval",
                playbook=run.playbook,
                question=question,
                form=ask.form,
                people=ask.people,
                starter=run.meta.get("starter"),
                on_timeout=ask.on_timeout,
                deadline=deadline,
            )

        self._tell(run.id, run.playbook, identity, question)
        walk.park(earliest(deadline, frame.deadline), f"step {step_id}: {question} ({identity})", put)
        raise AssertionError("parked")

    def _tell(self, run_id: str, playbook: str, identity: str, question: str) -> None:
        self._figures.notice(
            f"run {run_id}",
            f"run {run_id} of {playbook} asks: {question} `playbook approve {identity}` or "
            f"`playbook deny {identity}`",
        )

    def _answered(self, walk: Walk, step_id: str, row: StoredStep, frame: Frame) -> Outcome:
        run = walk.segment.run
        one = self._approvals.get(approval_id(run.id, step_id, "approval", row.attempts))
        if one is None:
            raise PermanentError("its question is not in the store")
        one = self._closed(walk, step_id, one, frame)
        if one.status == "cancelled":
            raise RunCancelled
        self._figures.notice(f"run {run.id}", None)
        if one.status == "expired" and one.on_timeout == "fail":
            return Outcome("failed", error=f"nobody answered {one.id} in time")
        return Outcome("succeeded", result_of(one))

    def _closed(self, walk: Walk, step_id: str, one: StoredApproval, frame: Frame) -> StoredApproval:
        """The question once it is closed: by its answers, or now because its time is up. Else Parked."""
        if one.status == "open":
            ends = until(one, frame.deadline)
            if ends is None or ends > now():
                walk.park(ends, f"step {step_id}: {one.question} ({one.id})")
            with self._runs.database.write() as connection:
                self._approvals.decide(connection, one, "expired")
            one = self._approvals.get(one.id) or one
        return one

    # --- effects that wait for a person ------------------------------------------------------------

    def _ask_for_consent(
        self, walk: Walk, step_id: str, row: StoredStep, frame: Frame, paused: Outcome
    ) -> None:
        run = walk.segment.run
        purpose = paused.asks or "guard"
        identity = approval_id(run.id, step_id, purpose, row.attempts)
        question = self._opener.secrets.mask(f"{paused.error or row.uses}. Do it all the same?")

        def put(connection: sa.Connection) -> None:
            walk._put(connection, replace(row, status="running", due=to_text(now())))
            self._approvals.ask(
                connection,
                identity,
                run_id=run.id,
                step_id=step_id,
                purpose=purpose,
                playbook=run.playbook,
                question=question,
                form=None,
                people=1,
                starter=run.meta.get("starter"),
                on_timeout="deny",
                deadline=None,
            )

        self._tell(run.id, run.playbook, identity, question)
        walk.park(frame.deadline, f"step {step_id}: {question} ({identity})", put)

    def _consent(self, walk: Walk, step_id: str, row: StoredStep, asks: Asks) -> str | None:
        """Who agreed when this was asked about the effect; "" when somebody said no; None: nobody was asked.

        Each question is one of its own: who agrees to a target that is not as planned has not agreed to
        go past a limit.
        """
        if walk.segment.rows.get(step_id) is None:
            return None
        one = self._approvals.get(approval_id(walk.segment.run.id, step_id, asks, row.attempts))
        if one is None:
            return None
        self._figures.notice(f"run {walk.segment.run.id}", None)
        if one.status == "approved":
            return ", ".join(each.person for each in one.answers)
        if one.status == "open":
            walk.park(None, f"step {step_id}: {one.question} ({one.id})")
        return ""

    # --- calls ---------------------------------------------------------------------------------------

    def _called(self, walk: Walk, step_id: str, row: StoredStep, frame: Frame, call: Call) -> Outcome:
        run = walk.segment.run
        if run.id.count("/") >= 2 * DEEPEST:
            raise PermanentError(
                f"runs are nested more than {DEEPEST} deep: do the playbooks call each other?"
            )
        playbook = self._opener.playbook(call.playbook)
        child = NewChild(
            0,
            {"role": "call", **({"deadline": to_text(frame.deadline)} if frame.deadline else {})},
            playbook=playbook.name,
            document=playbook.document,
            event=None if call.event is None else encoded(call.event),
            inputs=inputs_of(playbook, call.inputs),
        )

        def put(connection: sa.Connection) -> None:
            walk._put(connection, replace(row, status="waiting"))
            spawn(connection, run, step_id, [child], 1)

        walk.park(None, f"step {step_id}: the playbook {playbook.name}", put)
        raise AssertionError("parked")

    def _called_back(self, walk: Walk, step_id: str, frame: Frame) -> Outcome:
        from counterplay.runtime.walk import visible_steps

        run = walk.segment.run
        walk.wait_for_children(step_id)
        (child,) = children_of(self._runs, run.id, step_id)
        if walk.heed_cancel and walk.segment.lease.cancel is not None:
            raise RunCancelled
        result = {
            "run": child.id,
            "status": child.status,
            "error": child.error,
            "steps": visible_steps(self._runs, child.id),
        }
        if child.status != "succeeded":
            return Outcome("failed", result, error=inside(child))
        return Outcome("succeeded", result)


def _transformed(transform: Transform, context: StepContext, segment: Segment) -> Outcome:
    """A transform behind the first run step maps the run's one event; its result is what came of it."""
    event = Event(segment.run.event, segment.run.meta)
    kept = list(transform.apply(context, [event]))
    if not kept:
        return Outcome("skipped", error="the event was dropped by it")
    return Outcome("succeeded", dict(kept[0].data))


def _seconds_left(deadline: datetime | None) -> float | None:
    return None if deadline is None else max(0.001, (deadline - now()).total_seconds())
