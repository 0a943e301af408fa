"""The walk through a run's steps: every form of the language, each step once, wherever it was left.

What decides is the step's row. A step that ended is passed over; one that waits is asked again whether
it may go on; one that was interrupted is tried again. Everything that changes a row is one transaction
of the segment that holds the run.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, NoReturn

import sqlalchemy as sa

from counterplay import audit
from counterplay.clock import from_text, now, to_text
from counterplay.errors import InterruptedWork, PermanentError, StateError, as_work_error
from counterplay.events import JsonObject
from counterplay.language import Step
from counterplay.runtime.attempts import Attempts
from counterplay.runtime.figures import Figures
from counterplay.runtime.results import Outcome
from counterplay.runtime.segments import (
    Failure,
    Frame,
    Parked,
    RunCancelled,
    RunStopped,
    Segment,
    StepFailed,
    back_off,
    earliest,
    inside,
    seen,
)
from counterplay.store.children import NewChild, all_ended, children_of, reopen, spawn
from counterplay.store.runs import EffectEnd, LeaseLost, RunStore, StoredRun, StoredStep
from counterplay.store.watches import plant

SHORT = timedelta(seconds=5)
"""A wait of up to this long stays in the segment; a longer one is a parked row."""
MAX_ELEMENTS = 10_000
DEATHS = 20
"""A step in whose attempts the process ended this often fails: one plugin must not stop all other runs."""

log = logging.getLogger("counterplay.runs")


class Walk:
    """One segment's walk. `cancelled` runs skip the check that ends them: `finally` still has to run."""

    def __init__(
        self,
        segment: Segment,
        runs: RunStore,
        attempts: Attempts,
        figures: Figures,
        stop: threading.Event,
        mask: Callable[[str], str],
    ) -> None:
        self.segment = segment
        self._runs = runs
        self._attempts = attempts
        self._figures = figures
        self._stop = stop
        self._mask = mask
        self.heed_cancel = True

    def sequence(self, steps: Sequence[Step], frame: Frame) -> None:
        """Run steps one after the other. StepFailed, RunStopped, RunCancelled, Parked end it early."""
        for step in steps:
            self.step(step, frame)

    def step(self, step: Step, frame: Frame) -> None:
        """Run one step of any form, and what its `on_error` says.

        In a `for_each`, steps under `on_error` belong to each element, and `continue` to the whole.
        """
        row = self.segment.rows.get(step.id)
        if row is not None and row.ended is not None:
            failure = None
            if row.status == "failed":
                failure = Failure(row.error or "failed", (step.id,))
        else:
            if self._stop.is_set():
                raise InterruptedWork("stopped between two steps")
            if self.heed_cancel and self.segment.lease.cancel is not None:
                raise RunCancelled
            failure = self._run(step, frame, row)
        if failure is None:
            return
        is_element = frame.element_of == step.id
        if step.on_error == "continue" and not is_element:
            return
        if isinstance(step.on_error, tuple) and (is_element or step.for_each is None):
            self.sequence(step.on_error, frame.handling(step.id, failure.error))
            return
        raise StepFailed(failure)

    # --- one step --------------------------------------------------------------------------------

    def _run(self, step: Step, frame: Frame, row: StoredStep | None) -> Failure | None:
        try:
            if step.for_each is not None and frame.element_of != step.id:
                return self._each(step, frame, row)
            if row is None:
                row = self._new(step)
                if not self._wanted(step, frame, row):
                    return None
            elif row.status == "running":
                if self._is_deadly(row):
                    return self._given_up(row)
                row = self._interrupted(row)
            if frame.element_of != step.id and step.timeout is not None:
                frame = frame.within(from_text(row.started) + step.timeout)
            elif step.form != "module" or frame.element_of is not None:
                frame = frame.within(None)
            if step.form == "group":
                return self._group(step, frame, row)
            if step.form == "parallel":
                return self._parallel(step, frame, row)
            return self._module(step, frame, row)
        except (
            Parked, RunStopped, RunCancelled, StepFailed, InterruptedWork, StateError, LeaseLost,
        ):  # fmt: skip
            raise
        except sa.exc.SQLAlchemyError:
            raise
        except Exception as error:  # an expression, a schema, a plugin: it is the step's fault
            row = self.segment.rows.get(step.id) or self._new(step)
            name = step.use.uses if step.use is not None else f"step {step.id}"
            return self._fail(row, str(as_work_error(error, name)))

    def _new(self, step: Step) -> StoredStep:
        uses = step.use.uses if step.use is not None else step.form
        return StoredStep(
            step_id=step.id,
            uses=uses,
            status="running",
            attempts=1,
            arguments=None,
            result=None,
            error=None,
            started=to_text(now()),
            ended=None,
            position=self.segment.position(step.id),
        )

    def _wanted(self, step: Step, frame: Frame, row: StoredStep) -> bool:
        if step.when is None:
            return True
        truth = step.when.evaluate(self.segment.scope(frame))
        if truth.error is not None:
            self._figures.add("condition_errors")
            log.warning(
                "run %s, step %s: `when` is false because %s", self.segment.run.id, step.id, truth.error
            )
        if not truth.value:
            self._end(row, "skipped", error=truth.error)
        return truth.value

    def _is_deadly(self, row: StoredStep) -> bool:
        """Did the process end in the middle of this step so often that the step is likely the reason?"""
        attempts = self._runs.attempts(self.segment.run.id)
        died = sum(one.status == "interrupted" for one in attempts if one.step_id == row.step_id)
        return row.due is None and row.uses not in ("group", "parallel") and died >= DEATHS

    def _given_up(self, row: StoredStep) -> Failure:
        effects = self._runs.effects(self.segment.run.id)
        is_open = any(one.step_id == row.step_id and one.status == "intended" for one in effects)
        text = f"the process ended in the middle of {DEATHS} attempts, so there is no further one"
        return self._fail(row, text, Outcome("failed", effect="unknown" if is_open else None))

    def _interrupted(self, row: StoredStep) -> StoredStep:
        """An attempt that a process did not survive: it is on record, and another one begins."""
        if row.due is not None or row.uses in ("group", "parallel"):
            return row
        again = replace(row, attempts=row.attempts + 1)
        with self._runs.leased(self.segment.lease) as connection:
            self._runs.put_attempt(
                connection,
                self.segment.run.id,
                row,
                "interrupted",
                "the process ended before the attempt did",
            )
            self._put(connection, again)
        return again

    # --- module steps ----------------------------------------------------------------------------

    def _module(self, step: Step, frame: Frame, row: StoredStep) -> Failure | None:
        while True:
            if row.due is not None and row.status == "running":
                self._until(row, from_text(row.due), frame, f"step {step.id}: tried again")
                row = replace(row, due=None)
            if frame.expired:
                return self._timed_out(step, row, None)
            if row.status == "running":
                self._runs.expect(self.segment.lease, row)
            outcome = self._attempts.attempt(self, step, row, frame)
            row = self.segment.rows.get(step.id, row)
            if outcome.status in ("succeeded", "skipped"):
                self._end(row, outcome.status, outcome=outcome)
                return None
            again = self._again(step, row, frame, outcome)
            if again is None:
                if frame.expired:
                    return self._timed_out(step, row, outcome)
                return self._fail(row, outcome.error or "failed", outcome)
            row = again

    def _again(self, step: Step, row: StoredStep, frame: Frame, outcome: Outcome) -> StoredStep | None:
        """The row with its next attempt due; None when there is none."""
        failures = self.segment.retried.get(step.id, 0) + 1
        if step.retry is None or not outcome.passing or failures >= step.retry.attempts:
            return None
        due = now() + back_off(step, failures, outcome.retry_after)
        if frame.deadline is not None and due >= frame.deadline:
            return None
        self.segment.retried[step.id] = failures
        error = outcome.error and self._mask(outcome.error)
        again = replace(
            row,
            status="running",
            attempts=row.attempts + 1,
            due=to_text(due),
            error=error,
            arguments=outcome.arguments,
        )
        with self._runs.leased(self.segment.lease) as connection:
            self._runs.put_attempt(connection, self.segment.run.id, row, "failed", error)
            if outcome.effect is not None:
                end = EffectEnd(outcome.effect, error=error)
                self._runs.end_effect(connection, self.segment.run.id, step.id, end)
            self._put(connection, again)
        return again

    def _timed_out(self, step: Step, row: StoredStep, outcome: Outcome | None) -> Failure:
        text = "its time is up"
        if step.timeout is not None:
            text = f"timed out after {step.timeout.total_seconds():g} s"
        last = (outcome.error if outcome is not None else None) or row.error
        if last:
            text = f"{text}: {last}"
        return self._fail(row, text, outcome)

    # --- groups and branches -----------------------------------------------------------------------

    def _group(self, step: Step, frame: Frame, row: StoredStep) -> Failure | None:
        if self.segment.rows.get(step.id) is None:
            self._save(row)
        while True:
            if row.due is not None:
                self._until(row, from_text(row.due), frame, f"step {step.id}: tried again")
                row = self._save(replace(row, due=None))
            try:
                self.sequence(step.steps, frame)
            except StepFailed as failed:
                failure = failed.failure
                again = self._again(
                    step, row, frame, Outcome("failed", error=failure.error, passing=failure.passing)
                )
                if again is None:
                    self._end(row, "failed", error=failure.error)
                    return replace(failure, chain=(*failure.chain, step.id))
                self._reopen(failure.chain, again)
                row = again
                continue
            self._end(row, "succeeded")
            return None

    def _parallel(self, step: Step, frame: Frame, row: StoredStep) -> Failure | None:
        if self.segment.rows.get(step.id) is None:
            children = [NewChild(place, self._origin("branch", frame)) for place in range(len(step.steps))]
            self._spawn(step, row, children, len(children))
        return self._joined(step, frame, row, lambda ended: None)

    def _each(self, step: Step, frame: Frame, row: StoredStep | None) -> Failure | None:
        assert step.for_each is not None
        if row is None:
            row = self._new(step)
            items = step.for_each.render(self.segment.scope(frame))
            if not isinstance(items, list):
                raise PermanentError(f"for_each gives {type(items).__name__}, not a list")
            if len(items) > MAX_ELEMENTS:
                raise PermanentError(
                    f"for_each gives {len(items):,} elements, and a run takes {MAX_ELEMENTS:,}"
                )
            if not items:
                self._end(row, "succeeded", result=[])
                return None
            deadline = now() + step.timeout if step.timeout is not None else None
            inner = frame.within(deadline)
            children = [
                NewChild(place, {**self._origin("element", inner), "item": item})
                for place, item in enumerate(items)
            ]
            self._spawn(step, row, children, step.max_parallel)
        whole = replace(step, retry=None)
        return self._joined(
            whole, frame, row, lambda ended: [self._element_result(step, one) for one in ended]
        )

    def _origin(self, role: str, frame: Frame) -> JsonObject:
        return {
            "role": role,
            **frame.names,
            **({"deadline": to_text(frame.deadline)} if frame.deadline is not None else {}),
        }

    def _spawn(self, step: Step, row: StoredStep, children: Sequence[NewChild], at_once: int) -> None:
        """Make children and park: their ends wake the run."""
        with self._runs.leased(self.segment.lease) as connection:
            self._put(connection, replace(row, status="waiting"))
            spawn(connection, self.segment.run, step.id, children, at_once)
            self._park_for_children(connection, step.id, len(children))
        raise Parked

    def _park_for_children(self, connection: sa.Connection, step_id: str, count: int) -> None:
        what = f"step {step_id}: {count} run{'' if count == 1 else 's'} inside it"
        self._runs.park_in(connection, self.segment.lease, None, what)

    def _joined(
        self,
        step: Step,
        frame: Frame,
        row: StoredStep,
        result: Callable[[list[StoredRun]], Any],
    ) -> Failure | None:
        """What became of the children; Parked while one of them still works."""
        if row.due is not None:
            self._until(row, from_text(row.due), frame, f"step {step.id}: tried again")
            failed = children_of(self._runs, self.segment.run.id, step.id)
            with self._runs.leased(self.segment.lease) as connection:
                self._put(connection, replace(row, due=None, status="waiting"))
                for one in failed:
                    if one.status == "failed":
                        reopen(connection, one.id, (one.failed_at or {}).get("steps", []), "tried again")
                self._park_for_children(connection, step.id, len(failed))
            raise Parked
        self.wait_for_children(step.id)
        ended = children_of(self._runs, self.segment.run.id, step.id)
        if self.heed_cancel and self.segment.lease.cancel is not None:
            raise RunCancelled
        stopped = next((one.stop for one in ended if one.stop is not None), None)
        if stopped is not None:
            stop = RunStopped.of(stopped)
            self._end(row, "succeeded", result={"stopped": stopped}, stop=stop)
            raise stop
        self.load_branches(step, ended)
        failed = [one for one in ended if one.status != "succeeded"]
        if not failed:
            self._end(row, "succeeded", result=result(ended))
            return None
        first = failed[0]
        text = inside(first)
        if len(failed) > 1:
            text += f" (and {len(failed) - 1} more of {len(ended)} failed in step {step.id})"
        passing = all((one.failed_at or {}).get("passing", False) for one in failed)
        again = self._again(step, row, frame, Outcome("failed", error=text, passing=passing))
        if again is not None:
            return self._joined(step, frame, again, result)
        self._end(row, "failed", result=result(ended), error=text)
        return Failure(text, (step.id,), passing)

    def wait_for_children(self, step_id: str) -> None:
        """Parked while a child of the step still works: looked at and parked as one, so no end is missed."""
        with self._runs.leased(self.segment.lease) as connection:
            working = not all_ended(connection, self.segment.run.id, step_id)
            if working:
                self._runs.park_in(
                    connection, self.segment.lease, None, f"step {step_id}: the runs inside it"
                )
        if working:
            raise Parked

    def load_branches(self, step: Step, ended: Sequence[StoredRun]) -> None:
        """What follows a `parallel` sees the steps of its branches."""
        if step.for_each is None:
            for child in ended:
                self.segment.steps.update(visible_steps(self._runs, child.id))

    def _element_result(self, step: Step, child: StoredRun) -> Any:
        steps = visible_steps(self._runs, child.id)
        if step.form == "module":
            return steps.get(step.id, {}).get("result")
        return {name: about for name, about in steps.items() if name != step.id}

    # --- waiting -----------------------------------------------------------------------------------

    def _until(self, row: StoredStep, due: datetime, frame: Frame, what: str) -> None:
        """Wait for a time that is on record: here when it is near, else as a parked row."""
        due = earliest(due, frame.deadline) or due
        left = due - now()
        if left > SHORT:
            self.park(due, f"{what} at {to_text(due)[:19]}Z")
        if left.total_seconds() > 0 and self._stop.wait(left.total_seconds()):
            raise InterruptedWork("stopped while a step waited")

    def park(
        self,
        wake: datetime | None,
        reason: str,
        *changes: Callable[[sa.Connection], None],
        status: str = "waiting",
    ) -> NoReturn:
        """End the segment; `changes` are part of its last transaction. Raises Parked."""
        with self._runs.leased(self.segment.lease) as connection:
            for change in changes:
                change(connection)
            if self.heed_cancel and self.segment.lease.cancel is not None:
                wake = now()
            self._runs.park_in(connection, self.segment.lease, wake, reason, status)
        raise Parked

    # --- rows --------------------------------------------------------------------------------------

    def _put(self, connection: sa.Connection, row: StoredStep) -> None:
        self._runs.put_step(connection, self.segment.run.id, row)
        self.segment.keep(row)

    def _save(self, row: StoredStep) -> StoredStep:
        self._runs.write_step(self.segment.lease, row)
        self.segment.keep(row)
        return row

    def _reopen(self, chain: Sequence[str], group: StoredStep) -> None:
        """The failed steps of a group that is tried again: what succeeded is not repeated."""
        with self._runs.leased(self.segment.lease) as connection:
            for step_id in chain:
                row = self.segment.rows[step_id]
                self._runs.put_attempt(connection, self.segment.run.id, row, "failed", row.error)
                opened = replace(
                    row,
                    status="waiting" if row.uses == "parallel" else "running",
                    attempts=row.attempts + 1,
                    due=group.due,
                    ended=None,
                    result=None,
                    started=group.due or to_text(now()),
                )
                self._put(connection, opened)
                self.segment.steps.pop(step_id, None)

    def _end(
        self,
        row: StoredStep,
        status: str,
        *,
        result: Any = None,
        error: str | None = None,
        outcome: Outcome | None = None,
        stop: RunStopped | None = None,
    ) -> None:
        """The step is over: its row, the outcome of its effect and its entries in the audit log, as one.

        `stop`: it ends the run; that is on record with it, so that no crash lets the run go on behind it.
        """
        if outcome is not None:
            result, error = outcome.result, outcome.error
        masked = error and self._mask(error)
        ended = replace(
            row,
            status=status,
            result=result,
            error=masked,
            arguments=outcome.arguments if outcome is not None else row.arguments,
            ended=to_text(now()),
            due=None,
        )
        more = [] if outcome is None else list(self._recorded(ended, outcome))
        if stop is not None:
            document = stop.to_document()
            more.append(lambda connection: self._runs.put_stop(connection, self.segment.run.id, document))
        if outcome is not None and outcome.effect is not None:
            read = (outcome.verified, outcome.settled, outcome.after)
            end = EffectEnd(outcome.effect, result, masked, *read)
            self._runs.end_step(self.segment.lease, ended, end, *more)
        else:
            self._runs.write_step(self.segment.lease, ended, *more)
        self.segment.keep(ended)
        if status == "failed":
            self._figures.add("steps_failed")
        if outcome is not None and outcome.effect is not None:
            self._figures.add(f"effects_{outcome.effect}")

    def _recorded(self, ended: StoredStep, outcome: Outcome) -> Iterator[Callable[[sa.Connection], object]]:
        """What is written with the row of a step that ended so, and with its effect's."""
        run, step_id = self.segment.run.id, ended.step_id
        if outcome.delivery is not None:
            body = {"step": step_id, **outcome.delivery}
            yield lambda to: audit.append(to, "delivery", body, run_id=run)
        looks = self.segment.looks.get(step_id, ()) if outcome.effect == "done" else ()
        if looks:
            yield lambda to: plant(to, run, step_id, looks)

    def _fail(self, row: StoredStep, error: str, outcome: Outcome | None = None) -> Failure:
        outcome = replace(outcome, error=error, result=None) if outcome is not None else None
        self._end(row, "failed", error=error, outcome=outcome)
        return Failure(self._mask(error), (row.step_id,), outcome.passing if outcome is not None else False)


def visible_steps(runs: RunStore, identity: str) -> dict[str, JsonObject]:
    """What expressions see of a run's steps, those of its branches included."""
    found: dict[str, JsonObject] = {}
    for row in runs.steps(identity):
        if row.ended is None:
            continue
        found[row.step_id] = seen(row)
        if row.uses == "parallel" and not isinstance(row.result, list):
            for child in children_of(runs, identity, row.step_id):
                if child.origin.get("role") == "branch":
                    found.update(visible_steps(runs, child.id))
    return found
