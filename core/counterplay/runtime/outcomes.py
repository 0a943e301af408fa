"""The sinks of a run: its last durable steps, or a step among the others."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

from counterplay.clock import from_text, now, to_text
from counterplay.errors import (
    InterruptedWork,
    PermanentError,
    RetryableError,
    StateError,
    WorkError,
    as_work_error,
)
from counterplay.events import Event, JsonObject, encoded
from counterplay.language import Use
from counterplay.modules import Connection, Sink, StepContext
from counterplay.plugins import PluginHost
from counterplay.runtime.delivery import deliver
from counterplay.runtime.figures import Figures
from counterplay.runtime.opening import Opener
from counterplay.runtime.results import Outcome
from counterplay.runtime.segments import Frame, Segment, earliest
from counterplay.store.feeds import DeadLetter, FeedStore
from counterplay.store.runs import LeaseLost, RunStore, StoredStep

if TYPE_CHECKING:
    from counterplay.runtime.walk import Walk

PATIENCE = 30.0
"""Seconds that a run waits for its sink inside a segment; longer waits are parked rows."""
PARKED_FOR = timedelta(seconds=60)
BLOCKED_AFTER = timedelta(hours=24)


class OutcomeSender:
    """Delivers the record of a run, with the patience that sinks get."""

    def __init__(
        self,
        host: PluginHost,
        runs: RunStore,
        feeds: FeedStore,
        opener: Opener,
        figures: Figures,
        stop: threading.Event,
    ) -> None:
        self._host = host
        self._runs = runs
        self._feeds = feeds
        self._opener = opener
        self._figures = figures
        self._stop = stop

    def at_end(self, walk: Walk, index: int, use: Use, status: str, error: str | None) -> None:
        """Deliver the outcome to one of the playbook's sinks. Parked while it cannot be."""
        from counterplay.runtime.given import arguments_of

        segment = walk.segment
        step_id = f"sink:{index + 1}"
        row = segment.rows.get(step_id)
        if row is not None and row.ended is not None:
            return
        if row is None:
            row = StoredStep(
                step_id, use.uses, "running", 1, None, None, None, to_text(now()), None,
                position=len(segment.positions) + index,
            )  # fmt: skip
        else:
            row = replace(row, attempts=row.attempts + 1)
        run = segment.run

        def opened() -> tuple[Sink, Connection | None]:
            arguments = arguments_of(self._host, use, use.template.render({"inputs": run.inputs}))
            sink = self._host.module(use.uses).cls(arguments)
            if not isinstance(sink, Sink):
                raise PermanentError(f"{use.uses} is not a sink")
            return sink, self._opener.connection_for(use, segment.playbook, run.connections, run.meta)

        record = self._record(segment, status, error)
        outcome = self._until_taken(walk, step_id, use, opened, row, Frame(), record)
        walk._end(row, outcome.status, outcome=outcome)
        self._figures.add("outcomes", 1 if outcome.status == "succeeded" else 0)

    def as_step(
        self,
        walk: Walk,
        step_id: str,
        use: Use,
        sink: Sink,
        connection: Connection | None,
        row: StoredStep,
        frame: Frame,
    ) -> Outcome:
        """Deliver the record of the run as far as it is, as one of its steps."""
        record = self._record(walk.segment, "running", None)
        return self._until_taken(walk, step_id, use, lambda: (sink, connection), row, frame, record)

    def _until_taken(
        self,
        walk: Walk,
        step_id: str,
        use: Use,
        opened: Callable[[], tuple[Sink, Connection | None]],
        row: StoredStep,
        frame: Frame,
        record: bytes,
    ) -> Outcome:
        patience = time.monotonic() + PATIENCE
        failures = 0
        while True:
            try:
                sink, connection = opened()
                receipts, dead = self._send(walk.segment, step_id, use, sink, connection, frame, record)
            except (InterruptedWork, StateError, LeaseLost, sa.exc.SQLAlchemyError):
                raise
            except RetryableError as failure:
                failures += 1
                if frame.expired:
                    return Outcome("failed", error=str(failure))
                delay = failure.retry_after or min(8.0, 2.0**failures / 2)
                if time.monotonic() + delay < patience:
                    if self._stop.wait(delay):
                        raise InterruptedWork("stopped while a sink was not ready") from failure
                    continue
                self._park(walk, step_id, row, frame, failure)
            except Exception as failure:
                error = as_work_error(failure, use.uses)
                if frame.expired:
                    return Outcome("failed", error=str(error))
                self._park(walk, step_id, row, frame, error)
            result: JsonObject = {"receipts": receipts}
            self._figures.notice(f"run {walk.segment.run.id}", None)
            delivery: JsonObject = {
                "uses": use.uses,
                "connection": connection.label if connection is not None else "",
                "sha256": hashlib.sha256(record).hexdigest(),
                "bytes": len(record),
                "receipts": receipts,
                "refused": dead and self._opener.secrets.mask(dead),
            }
            if dead is not None:
                return Outcome("failed", result, error=dead, delivery=delivery)
            return Outcome("succeeded", result, delivery=delivery)

    def _send(
        self,
        segment: Segment,
        step_id: str,
        use: Use,
        sink: Sink,
        connection: Connection | None,
        frame: Frame,
        body: bytes,
    ) -> tuple[list[str], str | None]:
        """One delivery of the record: receipts, and why it became a dead letter if it did."""
        run = segment.run
        record = Event(body, {"run": run.id})
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

        left = None
        if frame.deadline is not None:
            left = max(0.001, (frame.deadline - now()).total_seconds())
        with self._opener.wire(connection, left) as http:
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

    def _park(self, walk: Walk, step_id: str, row: StoredStep, frame: Frame, error: WorkError) -> None:
        """Wait for the sink as a row: it is tried again each minute, and reported."""
        run = walk.segment.run
        passing = isinstance(error, RetryableError) and now() - from_text(row.started) < BLOCKED_AFTER
        status = "waiting" if passing else "blocked"
        reason = self._opener.secrets.mask(f"{step_id}: {error}")
        self._figures.notice(f"run {run.id}", f"run {run.id} of {run.playbook} is {status} at {reason}")
        wake = earliest(now() + PARKED_FOR, frame.deadline)
        kept = replace(row, status="running", error=reason, due=to_text(wake or now()))
        walk.park(wake, reason, lambda connection: walk._put(connection, kept), status=status)

    def _record(self, segment: Segment, status: str, error: str | None) -> bytes:
        run = segment.run
        return encoded(
            {
                "run": run.id,
                "playbook": run.playbook,
                "status": status,
                "error": error,
                "event": segment.event,
                "steps": segment.steps,
                "effects": self._effects(run.id),
            }
        )

    def _effects(self, run_id: str) -> list[JsonObject]:
        return [
            {
                "step": one.step_id,
                "uses": one.uses,
                "tenant": one.tenant,
                "target": one.target,
                "status": one.status,
                "verified": one.verified,
            }
            for one in self._runs.effects_within(run_id)
        ]
