"""One generic interpreter for every playbook: it walks the snapshot that the run began with.

A run is executed in segments. Within a segment each step is recorded by the engine; a segment begins
with a recorded list of what earlier segments finished. What people see, and what decides whether a
step is done, is our own `cp_step` row, written in the same transaction as its effect's outcome.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from counterplay.clock import from_text, now
from counterplay.engine import EngineInterrupt, Recorder, ReplayedFailure
from counterplay.errors import (
    CounterplayError,
    InterruptedWork,
    PermanentError,
    RetryableError,
    StateError,
    WorkError,
    as_work_error,
)
from counterplay.events import Event, JsonObject, encoded
from counterplay.hookspecs import RunRecord
from counterplay.language import Playbook, Step, Use, from_document, with_defaults
from counterplay.modules import Action, Sink, StepContext
from counterplay.plugins import PluginHost
from counterplay.runtime.delivery import deliver
from counterplay.runtime.effects import EffectRunner, Targets
from counterplay.runtime.figures import Figures
from counterplay.runtime.opening import Opener
from counterplay.runtime.results import Outcome
from counterplay.runtime.terms import terms_of
from counterplay.store.feeds import DeadLetter, FeedStore
from counterplay.store.runs import RunStore, StoredRun

SINK_PATIENCE = 30.0
"""Seconds that a run waits for its sink inside a segment; longer waits are parked rows."""
PARKED_FOR = timedelta(seconds=60)
BLOCKED_AFTER = timedelta(hours=24)

log = logging.getLogger("counterplay.runs")


@dataclass
class _Segment:
    """What a running segment knows: the run, its playbook, and the results so far."""

    run: StoredRun
    playbook: Playbook
    event: JsonObject
    steps: dict[str, JsonObject]
    finished: frozenset[str]

    def scope(self) -> Mapping[str, Any]:
        return {
            "event": self.event,
            "meta": self.run.meta,
            "inputs": self.run.inputs,
            "steps": self.steps,
            "run": {"id": self.run.id, "playbook": self.run.playbook, "created": self.run.created},
        }


class _Parked(Exception):
    """The run waits as a row; its next segment goes on from there."""


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
    ) -> None:
        self._host = host
        self._runs = runs
        self._feeds = feeds
        self._opener = opener
        self._figures = figures
        self._stop = stop
        self._on_end = on_end
        self._on_failure = on_failure
        self._effects = EffectRunner(
            host, runs, Targets(), opener.secrets.mask_json, opener.workspace.guardrails
        )
        self._playbooks: dict[str, Playbook] = {}
        self._parsing = threading.Lock()

    def segment(self, name: str, record: Recorder) -> None:
        """Execute one segment of a run to its end or to its next long wait."""
        try:
            self._execute(name, record)
        except (InterruptedWork, ReplayedFailure):
            self._runs.park(name.rpartition("/")[0], "queued", None, None)
        except StateError as error:
            self._on_failure(error)
            raise
        except EngineInterrupt:
            raise
        except SQLAlchemyError as error:  # the engine could not record what was done
            self._on_failure(StateError(f"run {name}: {type(error).__name__}: {error}"))
            raise
        except Exception as error:  # the run must neither hang as `running` nor stop all the others
            log.exception("run %s stopped at a fault of its own", name)
            self._give_up(name.rpartition("/")[0], f"it cannot be executed: {type(error).__name__}: {error}")
        finally:
            self._on_end(name)

    def _give_up(self, identity: str, error: str) -> None:
        run = self._runs.get(identity)
        if run is not None and run.ended is None:
            self._finish(run, "failed", self._opener.secrets.mask(error))

    def _execute(self, name: str, record: Recorder) -> None:
        identity, _, number = name.rpartition("/")
        if not self._runs.begin(identity, int(number)):
            return
        run = self._runs.get(identity)
        if run is None:
            raise StateError(f"the run {identity} is not in the store")
        if run.segment == 1 and not self._runs.steps(identity):
            self._figures.add("runs")
            self._call_hook("counterplay_run_started", RunRecord(run.id, run.playbook, run.tenant))
        finished = frozenset(record("load", lambda: self._finished(identity)))
        try:
            playbook = self._playbook_of(run)
        except CounterplayError as unreadable:
            self._finish(run, "failed", f"its playbook cannot be read: {unreadable}")
            return
        data = Event(run.event).data
        segment = _Segment(run, playbook, data, {}, finished)
        try:
            error = self._run_steps(segment, record)
        except _Parked:
            return
        outcome = "failed" if error else "succeeded"
        record("outcome", lambda: self._runs.set_outcome(identity, outcome, error))
        if self._run_sinks(segment, record, outcome, error):
            self._finish(run, outcome, error)

    def _finished(self, identity: str) -> list[str]:
        return [step.step_id for step in self._runs.steps(identity) if step.ended is not None]

    def _playbook_of(self, run: StoredRun) -> Playbook:
        import hashlib

        digest = hashlib.sha256(repr(run.document).encode("utf-8", "surrogatepass")).hexdigest()
        with self._parsing:
            if digest not in self._playbooks:
                self._playbooks[digest] = from_document(run.document, self._host)
            return self._playbooks[digest]

    # --- steps ---------------------------------------------------------------------------------

    def _run_steps(self, segment: _Segment, record: Recorder) -> str | None:
        """Run what is left of the steps; the error that stopped the run, or None."""
        for position, step in enumerate(segment.playbook.run_steps):
            if step.id not in segment.finished:
                if self._stop.is_set():
                    raise InterruptedWork("stopped between two steps")
                if record(step.id, partial(self._step, segment, step, position)) == "parked":
                    raise _Parked
            done = self._recall(segment, step.id)
            if done["status"] == "failed" and step.on_error == "stop":
                return f"step {step.id}: {done['error']}"
        return None

    def _recall(self, segment: _Segment, step_id: str) -> JsonObject:
        stored = next(one for one in self._runs.steps(segment.run.id) if one.step_id == step_id)
        about: JsonObject = {"status": stored.status, "error": stored.error}
        if stored.result is not None:
            about["result"] = stored.result
        segment.steps[step_id] = about
        return about

    def _step(self, segment: _Segment, step: Step, position: int) -> str:
        """One attempt of a step. Returns its status, for the engine's record."""
        identity = segment.run.id
        earlier = next((one for one in self._runs.steps(identity) if one.step_id == step.id), None)
        if earlier is not None and earlier.ended is not None:
            return earlier.status  # it ended before the engine could record it
        use = step.use
        assert use is not None
        attempt = self._runs.step_started(identity, step.id, position, use.uses)
        if step.when is not None:
            truth = step.when.evaluate(segment.scope())
            if truth.error is not None:
                self._figures.add("condition_errors")
                log.warning("run %s, step %s: `when` is false because %s", identity, step.id, truth.error)
            if not truth.value:
                self._runs.step_ended(identity, step.id, "skipped", error=truth.error)
                return "skipped"
        arguments: JsonObject | None = None
        try:
            arguments = self._arguments(use, step.arguments.render(segment.scope()))
            outcome = self._act(segment, step, use, arguments, attempt)
        except (InterruptedWork, StateError):
            raise
        except Exception as error:
            outcome = Outcome("failed", error=str(as_work_error(error, use.uses)))
        if outcome.status == "paused":
            return self._pause(segment, step.id, outcome.error or "")
        self._runs.step_ended(
            identity,
            step.id,
            outcome.status,
            arguments=self._opener.secrets.mask_json(arguments),
            result=outcome.result,
            error=outcome.error and self._opener.secrets.mask(outcome.error),
            effect_status=outcome.effect,
            verified=outcome.verified,
            settled=outcome.settled,
        )
        if outcome.status == "failed":
            self._figures.add("steps_failed")
        if outcome.effect is not None:
            self._figures.add(f"effects_{outcome.effect}")
        return outcome.status

    def _pause(self, segment: _Segment, step_id: str, reason: str) -> str:
        """Nothing was done: a person has to agree first."""
        run = segment.run
        text = self._opener.secrets.mask(f"step {step_id}: {reason}")
        self._runs.park(run.id, "blocked", None, text)
        self._figures.notice(
            f"run {run.id}",
            f"run {run.id} of {run.playbook} waits for a person: {text}; `playbook runs show {run.id}`",
        )
        return "parked"

    def _arguments(self, use: Use, rendered: object) -> JsonObject:
        """Rendered arguments with the schema's defaults, checked now that their values are known."""
        from jsonschema import Draft202012Validator

        if not isinstance(rendered, dict):
            raise PermanentError(f"`with` of {use.uses} is not a mapping")
        schema = self._host.module(use.uses).schema
        arguments = with_defaults(schema, rendered)
        for flaw in Draft202012Validator(schema).iter_errors(arguments):
            place = ".".join(["with", *(str(part) for part in flaw.absolute_path)])
            raise PermanentError(f"{place}: {flaw.message}", hint="the value comes from an expression")
        return arguments

    def _act(self, segment: _Segment, step: Step, use: Use, arguments: JsonObject, attempt: int) -> Outcome:
        run = segment.run
        info = self._host.module(use.uses)
        action = info.cls(arguments)
        if not isinstance(action, Action):
            raise PermanentError(f"{use.uses} is a {info.kind}, not an action")
        connection = self._opener.connection_for(use, segment.playbook, run.connections, run.meta)
        with self._opener.wire(connection) as http:
            context = StepContext(
                http=http,
                connection=connection,
                stop=self._stop,
                run_id=run.id,
                playbook=run.playbook,
                step_id=step.id,
                attempt=attempt,
            )
            known = next((one for one in self._runs.effects(run.id) if one.step_id == step.id), None)
            tenant = connection.tenant if connection is not None else run.tenant
            terms = terms_of(run.meta, step.id, self._opener)
            return self._effects.attempt(use.uses, action, context, tenant, known, terms)

    # --- sinks ---------------------------------------------------------------------------------

    def _run_sinks(self, segment: _Segment, record: Recorder, outcome: str, error: str | None) -> bool:
        """Deliver the outcome record to each sink; False when the run was parked on one."""
        offset = len(segment.playbook.run_steps)
        for index, use in enumerate(segment.playbook.sinks):
            step_id = f"sink:{index + 1}"
            if step_id in segment.finished:
                continue
            if self._stop.is_set():
                raise InterruptedWork("stopped before a sink")
            answer = record(
                step_id,
                partial(self._sink, segment, use, step_id, offset + index, outcome, error),
            )
            if answer == "parked":
                return False
        return True

    def _sink(
        self, segment: _Segment, use: Use, step_id: str, position: int, outcome: str, error: str | None
    ) -> str:
        identity = segment.run.id
        earlier = next((one for one in self._runs.steps(identity) if one.step_id == step_id), None)
        if earlier is not None and earlier.ended is not None:
            return earlier.status
        self._runs.step_started(identity, step_id, position, use.uses)
        first_try = from_text(earlier.started) if earlier is not None else now()
        patience = time.monotonic() + SINK_PATIENCE
        failures = 0
        while True:
            try:
                receipts, dead = self._send(segment, use, step_id, outcome, error)
            except (InterruptedWork, StateError):
                raise
            except RetryableError as failure:
                failures += 1
                delay = failure.retry_after or min(8.0, 2.0**failures / 2)
                if time.monotonic() + delay < patience:
                    if self._stop.wait(delay):
                        raise InterruptedWork("stopped while a sink was not ready") from failure
                    continue
                return self._park(segment, step_id, first_try, failure)
            except Exception as failure:
                return self._park(segment, step_id, first_try, as_work_error(failure, use.uses))
            status = "failed" if dead else "succeeded"
            self._runs.step_ended(identity, step_id, status, result={"receipts": receipts}, error=dead)
            self._figures.add("outcomes", 1 if not dead else 0)
            return status

    def _send(
        self, segment: _Segment, use: Use, step_id: str, outcome: str, error: str | None
    ) -> tuple[list[str], str | None]:
        """One delivery of the outcome record: receipts, and why it became a dead letter if it did."""
        run = segment.run
        arguments = self._arguments(use, use.template.render({"inputs": run.inputs}))
        sink = self._host.module(use.uses).cls(arguments)
        if not isinstance(sink, Sink):
            raise PermanentError(f"{use.uses} is not a sink")
        record = Event(encoded(self._outcome_record(segment, outcome, error)), {"run": run.id})
        receipts: list[str] = []
        flaws: list[str] = []

        def on_dead(event: Event, reason: str) -> None:
            letter = DeadLetter(reason, event.raw, run_id=run.id, playbook=run.playbook, sink=use.uses)
            with self._feeds.database.write() as connection:
                self._feeds.bury(connection, [letter])
            self._figures.add("dead_letters")
            self._figures.notice(
                f"{run.id} {step_id}", f"run {run.id}: its outcome is a dead letter: {reason}"
            )
            flaws.append(reason)

        connection = self._opener.connection_for(use, segment.playbook, run.connections, run.meta)
        with self._opener.wire(connection) as http:
            context = StepContext(
                http=http,
                connection=connection,
                stop=self._stop,
                run_id=run.id,
                playbook=run.playbook,
                step_id=step_id,
            )
            deliver(
                sink,
                context,
                [record],
                lambda _batch, given: receipts.extend(one.remote_id for one in given),
                on_dead,
            )
        return receipts, flaws[0] if flaws else None

    def _park(self, segment: _Segment, step_id: str, first_try: datetime, error: WorkError) -> str:
        """Wait for the sink as a row: it is tried again each minute, and reported."""
        run = segment.run
        passing = isinstance(error, RetryableError) and now() - first_try < BLOCKED_AFTER
        status = "waiting" if passing else "blocked"
        reason = self._opener.secrets.mask(f"{step_id}: {error}")
        self._runs.park(run.id, status, now() + PARKED_FOR, reason)
        self._figures.notice(f"run {run.id}", f"run {run.id} of {run.playbook} is {status} at {reason}")
        return "parked"

    def _outcome_record(self, segment: _Segment, outcome: str, error: str | None) -> JsonObject:
        run = segment.run
        return {
            "run": run.id,
            "playbook": run.playbook,
            "status": outcome,
            "error": error,
            "event": segment.event,
            "steps": segment.steps,
            "effects": [
                {
                    "step": one.step_id,
                    "uses": one.uses,
                    "tenant": one.tenant,
                    "target": one.target,
                    "status": one.status,
                    "verified": one.verified,
                }
                for one in self._runs.effects(run.id)
            ],
        }

    def _finish(self, run: StoredRun, status: str, error: str | None) -> None:
        self._runs.end(run.id, status, error)
        self._figures.add(f"runs_{status}")
        self._figures.notice(f"run {run.id}", None)
        if error:
            self._figures.notice(
                f"run {run.id}",
                f"run {run.id} of {run.playbook} failed: {error}; `playbook runs show {run.id}`",
            )
        steps = {one.step_id: one.status for one in self._runs.steps(run.id)}
        self._call_hook(
            "counterplay_run_finished", RunRecord(run.id, run.playbook, run.tenant, status, steps)
        )

    def _call_hook(self, name: str, record: RunRecord) -> None:
        try:
            getattr(self._host.hook, name)(run=record)
        except Exception as error:  # a listener's fault must not change the run
            log.warning("the hook %s failed: %s: %s", name, type(error).__name__, error)
