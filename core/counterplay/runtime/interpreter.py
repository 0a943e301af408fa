"""One generic interpreter for every playbook: it walks the snapshot that the run began with.

A run is executed in segments, and the engine sees to it that a segment which began comes to its end,
whatever becomes of the process. What people see, and what decides whether a step is done, is our own
`cp_step` row, written in one transaction with its effect's outcome, by the segment that holds the run.
So a segment that begins again finds its place by reading rows: nothing is recorded twice, and nothing
has to be replayed in the same order.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from counterplay.clock import from_text, now
from counterplay.engine import EngineInterrupt, Recorder
from counterplay.errors import (
    BlockedError,
    ContendedError,
    CounterplayError,
    InterruptedWork,
    RetryableError,
    StateError,
)
from counterplay.events import Event, JsonObject
from counterplay.hookspecs import RunRecord
from counterplay.language import Playbook, Step, from_document
from counterplay.language.build import step_ids
from counterplay.plugins import PluginHost
from counterplay.runtime.attempts import Attempts
from counterplay.runtime.effects import EffectRunner, Targets
from counterplay.runtime.figures import Figures
from counterplay.runtime.opening import Opener
from counterplay.runtime.outcomes import PARKED_FOR, OutcomeSender
from counterplay.runtime.segments import (
    Failure,
    Frame,
    Parked,
    RunCancelled,
    RunStopped,
    Segment,
    StepFailed,
    all_steps,
    at_step,
)
from counterplay.runtime.walk import Walk, visible_steps
from counterplay.store.feeds import FeedStore
from counterplay.store.runs import Lease, LeaseLost, RunStore, StoredRun

log = logging.getLogger("counterplay.runs")


class Interpreter:
    """Executes segments. `segment` is what the engine calls; everything it needs is given once."""

    def __init__(
        self,
        host: PluginHost,
        runs: RunStore,
        feeds: FeedStore,
        opener: Opener,
        figures: Figures,
        stop: threading.Event,
        on_end: Callable[[str], None],
        on_failure: Callable[[CounterplayError], None],
        parsed: dict[str, Playbook] | None = None,
    ) -> None:
        """`parsed` keeps the playbooks of snapshots, for interpreters that follow one another."""
        self._host = host
        self._runs = runs
        self._opener = opener
        self._figures = figures
        self._stop = stop
        self._on_end = on_end
        self._on_failure = on_failure
        self._sender = OutcomeSender(host, runs, feeds, opener, figures, stop)
        guardrails = opener.workspace.guardrails
        effects = EffectRunner(host, runs, Targets(runs.database), opener.secrets.mask_json, guardrails)
        self._attempts = Attempts(host, runs, opener, effects, self._sender, figures, stop)
        self._playbooks: dict[str, Playbook] = parsed if parsed is not None else {}
        self._parsing = threading.Lock()

    def segment(self, name: str, record: Recorder) -> None:
        """Execute one segment of a run to its end or to its next long wait."""
        identity, _, number = name.rpartition("/")
        try:
            self._execute(identity, int(number))
        except (Parked, LeaseLost):
            pass
        except (InterruptedWork, ContendedError):
            self._runs.park(identity, "queued", None, None, segment=int(number))
        except StateError as error:
            self._on_failure(error)
            raise
        except EngineInterrupt:
            raise
        except SQLAlchemyError as error:  # what was done could not be recorded
            self._on_failure(StateError(f"run {name}: {type(error).__name__}: {error}"))
            raise
        except Exception as error:  # the run must neither hang as `running` nor stop all the others
            log.exception("run %s stopped at a fault of its own", name)
            self._give_up(identity, int(number), f"it cannot be executed: {type(error).__name__}: {error}")
        finally:
            self._on_end(name)

    def _give_up(self, identity: str, number: int, error: str) -> None:
        run = self._runs.get(identity)
        if run is not None and run.ended is None and run.segment == number:
            self._finish(run, "failed", self._opener.secrets.mask(error))

    def _execute(self, identity: str, number: int) -> None:
        run = self._runs.get(identity)
        if run is None:
            raise StateError(f"the run {identity} is not in the store")
        starts = self._listened("started", run) and (run.started is None or run.tell == "started")
        if not self._runs.begin(identity, number, tell=starts):
            return
        try:
            playbook = self._playbook_of(run)
        except CounterplayError as unreadable:
            self._finish(run, "failed", f"its playbook cannot be read: {unreadable}")
            return
        segment = self._segment(run, playbook, Lease(identity, number, run.cancel))
        if playbook.asks_internal and not self._knows_internal(segment):
            return
        if run.started is None and _is_whole(run):
            self._figures.add("runs" if run.parent is None else "runs_called")
        if starts:
            self._call_hook("started", RunRecord(run.id, run.playbook, run.tenant))
        walk = Walk(segment, self._runs, self._attempts, self._figures, self._stop, self._opener.secrets.mask)
        if _is_whole(run):
            self._whole(walk)
        else:
            self._part(walk)

    def _knows_internal(self, segment: Segment) -> bool:
        """Ask what counts as inside; a run that cannot be told waits, or fails when nobody knows it."""
        run = segment.run
        try:
            segment.internal = self._opener.internal.for_event(run.meta)
        except (RetryableError, BlockedError) as error:
            reason = self._opener.secrets.mask(f"internal: {error}")
            self._figures.notice(f"run {run.id}", f"run {run.id} of {run.playbook} is blocked at {reason}")
            self._runs.park(run.id, "blocked", now() + PARKED_FOR, reason)
            return False
        except CounterplayError as error:
            self._finish(run, "failed", self._opener.secrets.mask(str(error)))
            return False
        return True

    def _segment(self, run: StoredRun, playbook: Playbook, lease: Lease) -> Segment:
        positions = {name: place for place, name in enumerate(step_ids(playbook.document).values())}
        segment = Segment(run, playbook, lease, Event(run.event).data, positions)
        self._inherit(segment, run)
        for row in self._runs.steps(run.id) if run.started is not None else ():
            segment.keep(row)
        if segment.rows:
            segment.steps.update(visible_steps(self._runs, run.id))
            for attempt in self._runs.attempts(run.id):
                if attempt.status == "failed":
                    segment.retried[attempt.step_id] = segment.retried.get(attempt.step_id, 0) + 1
        return segment

    def _inherit(self, segment: Segment, run: StoredRun) -> None:
        """A branch sees the steps that its parent has done; the parent does not move meanwhile."""
        if run.parent is None or run.origin.get("role") == "call":
            return
        parent = self._runs.get(run.parent)
        if parent is not None:
            self._inherit(segment, parent)
            segment.steps.update(visible_steps(self._runs, parent.id))

    def _playbook_of(self, run: StoredRun) -> Playbook:
        digest = hashlib.sha256(repr(run.document).encode("utf-8", "surrogatepass")).hexdigest()
        with self._parsing:
            if digest not in self._playbooks:
                self._playbooks[digest] = from_document(run.document, self._host)
            return self._playbooks[digest]

    # --- a whole run ---------------------------------------------------------------------------------

    def _whole(self, walk: Walk) -> None:
        """Steps, then `finally`, then the sinks; how the steps ended is on record before what follows."""
        segment = walk.segment
        run, playbook = segment.run, segment.playbook
        status, failed_at = run.outcome, run.failed_at
        error = (failed_at or {}).get("error")
        if status is None:
            steps = self._steps_of(run, playbook)
            status, error, failure = self._ended(walk, steps, _frame_of(run), run.stop)
            failed_at = _failed_at(failure, error)
            if playbook.finally_steps or playbook.sinks:
                self._runs.set_outcome(segment.lease, status, error, failed_at)
        walk.heed_cancel = False
        if playbook.finally_steps:
            segment.ending = {"status": status, "error": error}
            stop = run.stop if run.outcome is not None else None  # else it is that of the steps
            last, text, failure = self._ended(walk, playbook.finally_steps, Frame(), stop)
            if last == "failed":
                status, error = "failed", "; ".join(filter(None, (error, f"finally: {text}")))
                failed_at = failed_at or _failed_at(failure, error)
        for index, use in enumerate(playbook.sinks):
            if self._stop.is_set():
                raise InterruptedWork("stopped before a sink")
            self._sender.at_end(walk, index, use, status, error)
        self._finish(run, status, error, failed_at=failed_at)

    def _steps_of(self, run: StoredRun, playbook: Playbook) -> tuple[Step, ...]:
        """A playbook that is called has no batch path: its leading transforms are steps."""
        return playbook.steps if run.parent is not None else playbook.run_steps

    def _ended(
        self, walk: Walk, steps: tuple[Step, ...], frame: Frame, stop: JsonObject | None
    ) -> tuple[str, str | None, Failure | None]:
        """How the steps end. `stop`: they were ended by one of them before the process was."""
        try:
            if stop is not None:
                raise RunStopped.of(stop)
            walk.sequence(steps, frame)
        except StepFailed as failed:
            failure = failed.failure
            return "failed", at_step(walk.segment.run.id, failure), failure
        except RunStopped as stopped:
            return stopped.status, stopped.error, None
        except RunCancelled:
            by = walk.segment.lease.cancel or {}
            return "cancelled", f"cancelled by {by.get('by', 'somebody')}", None
        return "succeeded", None, None

    # --- a branch or an element ------------------------------------------------------------------------

    def _part(self, walk: Walk) -> None:
        run = walk.segment.run
        steps = all_steps((*walk.segment.playbook.steps, *walk.segment.playbook.finally_steps))
        step = steps[run.parent_step or ""]
        frame = _frame_of(run)
        if run.origin["role"] == "branch":
            step = step.steps[run.place or 0]
        else:
            frame = Frame(frame.names, frame.deadline, element_of=step.id)
        try:
            if run.stop is not None:
                raise RunStopped.of(run.stop)
            walk.sequence((step,), frame)
        except StepFailed as failed:
            at = _failed_at(failed.failure, None)
            self._runs.end(
                run.id,
                "failed",
                at_step(run.id, failed.failure),
                failed_at=at,
                segment=run.segment,
            )
        except RunStopped as stopped:
            self._runs.end(run.id, "succeeded", None, stop=stopped.to_document(), segment=run.segment)
        except RunCancelled:
            self._runs.end(run.id, "cancelled", "cancelled", segment=run.segment)
        else:
            self._runs.end(run.id, "succeeded", None, segment=run.segment)

    # --- the end -----------------------------------------------------------------------------------------

    def _finish(
        self, run: StoredRun, status: str, error: str | None, *, failed_at: JsonObject | None = None
    ) -> None:
        told = self._listened("finished", run)
        self._runs.end(run.id, status, error, failed_at=failed_at, segment=run.segment, tell=told)
        self._figures.notice(f"run {run.id}", None)
        if not _is_whole(run):
            return
        if run.parent is None:
            self._figures.add(f"runs_{status}")
        if status == "failed" and run.parent is None:
            self._figures.notice(
                f"run {run.id}",
                f"run {run.id} of {run.playbook} failed: {error}; `playbook runs show {run.id}`",
            )
        if told:
            self._tell_end(run, status)

    # --- hooks -------------------------------------------------------------------------------------------

    def catch_up(self, before: datetime) -> None:
        """Tell hooks of runs whose process died after their end and before it had told it."""
        for identity in self._runs.untold(before):
            run = self._runs.get(identity)
            if run is not None:
                self._tell_end(run, run.status)

    def _listened(self, name: str, run: StoredRun) -> bool:
        """Whether a plugin wants to know of it; parts of a run are nobody's business."""
        return _is_whole(run) and bool(_hook(self._host, name).get_hookimpls())

    def _tell_end(self, run: StoredRun, status: str) -> None:
        steps = {one.step_id: one.status for one in self._runs.steps(run.id)}
        self._call_hook("finished", RunRecord(run.id, run.playbook, run.tenant, status, steps))

    def _call_hook(self, name: str, record: RunRecord) -> None:
        """Called again after a crash until it is on record that it was called: at least once."""
        try:
            _hook(self._host, name)(run=record)
        except Exception as error:  # a listener's fault must not change the run
            log.warning("the hook counterplay_run_%s failed: %s: %s", name, type(error).__name__, error)
        self._runs.told(record.id)


def _hook(host: PluginHost, name: str) -> Any:
    return getattr(host.hook, f"counterplay_run_{name}")


def _is_whole(run: StoredRun) -> bool:
    """A run of a playbook, not a branch or an element of one."""
    return run.parent is None or run.origin.get("role") == "call"


def _frame_of(run: StoredRun) -> Frame:
    names: JsonObject = {name: run.origin[name] for name in ("item", "error") if name in run.origin}
    deadline = run.origin.get("deadline")
    return Frame(names, from_text(deadline) if deadline else None)


def _failed_at(failure: Failure | None, error: str | None) -> JsonObject | None:
    """Where to go on when the run is tried again, and why it ended as it did."""
    if failure is None:
        return None if error is None else {"steps": [], "passing": False, "error": error}
    return {"steps": list(failure.chain), "passing": failure.passing, "error": error}
