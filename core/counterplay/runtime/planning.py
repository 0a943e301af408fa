"""Walks a playbook for one event without changing anything: reads are made, writes are written down.

What a step that was not sent will return, what people will answer and what a wait will see is unknown;
whatever depends on it is listed with its condition. Nothing is written to the store.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from counterplay.clock import now, to_text
from counterplay.directives import Ask, Call, Pause, Stop
from counterplay.errors import CounterplayError, InterruptedWork, PermanentError, WorkError, as_work_error
from counterplay.events import Event, JsonObject, encoded
from counterplay.hookspecs import EffectIntent
from counterplay.language import Playbook, Step, Use, expressions_of, with_defaults
from counterplay.language.unknown import UNKNOWN, holds_unknown, rendered, truth, unknown_paths, value
from counterplay.modules import Action, Connection, Context, Control, Sink, StepContext, Transform
from counterplay.runtime.given import DEEPEST, arguments_of, inputs_of
from counterplay.runtime.guards import Guards
from counterplay.runtime.opening import Opener
from counterplay.runtime.plans import CANNOT, Does, Plan, PlannedStep
from counterplay.store.database import Database

if TYPE_CHECKING:
    from counterplay.runtime.terms import Terms

_DOES: dict[type[object], Does] = {Ask: "asks", Pause: "waits", Call: "calls", Stop: "stops"}
_LATER = {"status": UNKNOWN, "result": UNKNOWN, "error": UNKNOWN}


class _Stopped(Exception):
    """The run would end here; `finally` and the sinks still follow."""


class Planner:
    """Makes plans of one playbook."""

    def __init__(
        self,
        opener: Opener,
        playbook: Playbook,
        inputs: JsonObject,
        renames: JsonObject,
        *,
        database: Database | None = None,
        terms: Callable[[str], Terms | None] = lambda _: None,
    ) -> None:
        """`terms`: what was agreed about a step beforehand, as a run would hold it to."""
        self._opener = opener
        self._terms = terms
        self._host = opener.host
        self._playbook = playbook
        self._inputs = inputs
        self._renames = renames
        self._expressions = expressions_of(opener.host)
        self._guards = Guards(opener.host, database, opener.workspace.guardrails)
        self._stop = threading.Event()

    def plan(self, event: Event, tenant: str) -> Plan:
        """What a run for this event would do."""
        playbook = self._playbook
        about: JsonObject = {
            "playbook": playbook.name,
            "document": playbook.document,
            "meta": dict(event.meta),
            "inputs": self._inputs,
            "connections": self._renames,
            "tenant": tenant,
            "made": to_text(now()),
        }
        scope = {"event": event.data, "meta": event.meta, "inputs": self._inputs}
        if playbook.selects_by_internal:
            scope["internal"] = self._opener.internal.for_event(event.meta)
        if not playbook.run_steps:
            walk = _Walk(self, playbook, event.data, dict(event.meta), self._inputs)
            return Plan(event=event.data, steps=tuple(walk.run()), **about)
        if playbook.filter is not None and not playbook.filter.evaluate(scope):
            return Plan(event=event.data, filtered=f"filter: {playbook.filter.source}", **about)
        passed = self._batch(event)
        if passed is None:
            return Plan(event=event.data, filtered="a transform drops it", **about)
        once_per = None
        if playbook.once_per is not None:
            once_per = str(playbook.once_per.key.render({**scope, "event": passed.data}))
        walk = _Walk(self, playbook, passed.data, dict(event.meta), self._inputs)
        return Plan(event=passed.data, steps=tuple(walk.run()), once_per=once_per, **about)

    def _batch(self, event: Event) -> Event | None:
        """The event after the leading transforms."""
        batch: list[Event] = [event]
        for step in self._playbook.batch_steps:
            assert step.use is not None
            arguments = step.use.template.render({"inputs": self._inputs})
            info = self._host.module(step.use.uses)
            transform = info.cls(with_defaults(info.schema, arguments))
            assert isinstance(transform, Transform)
            connection = self._connection(step.use, self._playbook, event.meta)
            with self._opener.planning_wire(connection, writes=False) as http:
                batch = list(transform.apply(Context(http=http, connection=connection), batch))
        return batch[0] if batch else None

    def _connection(self, use: Use, playbook: Playbook, meta: Mapping[str, Any]) -> Connection | None:
        return self._opener.connection_for(use, playbook, self._renames, meta)


class _Walk:
    """One way through a playbook; a called playbook is a walk of its own."""

    def __init__(
        self,
        planner: Planner,
        playbook: Playbook,
        event: JsonObject,
        meta: JsonObject,
        inputs: JsonObject,
        *,
        prefix: str = "",
        conditions: tuple[str, ...] = (),
        depth: int = 0,
        touched: set[tuple[str, str]] | None = None,
    ) -> None:
        self._planner = planner
        self._opener = planner._opener
        self._host = planner._host
        self._expressions = planner._expressions
        self._playbook = playbook
        self._prefix = prefix
        self._depth = depth
        self._steps: dict[str, Any] = {}
        self._scope: dict[str, Any] = {
            "event": event,
            "meta": meta,
            "inputs": inputs,
            "steps": self._steps,
            "run": {"id": UNKNOWN, "playbook": playbook.name, "created": UNKNOWN},
        }
        if playbook.asks_internal:
            self._scope["internal"] = self._opener.internal.for_event(meta)
        self._conditions = conditions
        self._found: list[PlannedStep] = []
        self._touched = set() if touched is None else touched

    def run(self) -> list[PlannedStep]:
        """Every step in order, then `finally`, then the sinks."""
        certain = self._conditions
        try:
            for step in self._playbook.run_steps:
                self._step(step)
        except _Stopped:
            pass
        self._conditions = certain
        try:
            for step in self._playbook.finally_steps:
                self._step(step)
        except _Stopped:
            pass
        for index, use in enumerate(self._playbook.sinks):
            self._deliver(f"sink:{index + 1}", use, use.arguments)
        return self._found

    @property
    def result(self) -> JsonObject:
        return self._steps

    # --- the forms of steps ------------------------------------------------------------------------

    def _step(self, step: Step, name: str | None = None) -> None:
        """A step of any form: once, or once for each element; `when` belongs to each."""
        name = name or step.id
        if step.for_each is None:
            self._wanted(step, name)
            return
        try:
            items = value(step.for_each.source, "for_each", self._scope, self._expressions)
            if items is not UNKNOWN and not isinstance(items, list):
                raise PermanentError("for_each does not give a list")
        except CounterplayError as error:
            self._failed(step, name, str(error))
            return
        outer = self._scope
        results: list[Any] = []
        if isinstance(items, list):
            for place, item in enumerate(items):
                self._scope = {**outer, "item": item}
                self._wanted(step, f"{name}[{place}]")
                results.append(self._steps.get(step.id, {}).get("result"))
        else:
            self._scope = {**outer, "item": UNKNOWN}
            with self._if(f"for each of {step.for_each.source}"):
                self._wanted(step, f"{name}[]")
        self._scope = outer
        known = isinstance(items, list) and step.form == "module" and not holds_unknown(results)
        self._steps[step.id] = {"status": "succeeded", "result": results} if known else dict(_LATER)

    def _wanted(self, step: Step, name: str) -> None:
        if step.when is not None:
            said = truth(step.when, self._scope, self._expressions)
            if said is False:
                self._skip(step, name)
                return
            if said is None:
                with self._if(f"if {step.when.source}"):
                    self._formed(step, name)
                self._steps[step.id] = dict(_LATER)
                return
        self._formed(step, name)

    def _skip(self, step: Step, name: str) -> None:
        assert step.when is not None
        uses = step.use.uses if step.use else step.form
        note = f"not: {step.when.source}"
        self._add(PlannedStep(self._prefix + name, uses, "skipped", note=note))
        self._steps[step.id] = {"status": "skipped", "error": None}

    def _formed(self, step: Step, name: str) -> None:
        if step.form == "module":
            self._module(step, name)
            return
        inner = name[len(step.id) :]
        failed: list[_Stopped] = []
        for child in step.steps:
            try:
                self._step(child, child.id + inner)
            except _Stopped as stopped:
                failed.append(stopped)
                if step.form == "group":
                    break
        self._steps.setdefault(step.id, dict(_LATER))
        if failed:
            self._handle(step, name)

    def _module(self, step: Step, name: str) -> None:
        use = step.use
        assert use is not None
        kind = self._host.module(use.uses).kind
        if kind == "sink":
            self._deliver(name, use, rendered(step.arguments, self._scope, self._expressions))
            self._steps[step.id] = dict(_LATER)
            return
        try:
            arguments = self._arguments(use, rendered(step.arguments, self._scope, self._expressions))
            if kind == "transform":
                self._transform(step, name, use, arguments)
                return
            self._action(step, name, use, arguments)
        except InterruptedWork:
            raise
        except _Stopped:
            raise
        except Exception as error:
            self._failed(step, name, str(as_work_error(error, use.uses)))

    def _transform(self, step: Step, name: str, use: Use, arguments: JsonObject) -> None:
        """Behind the first run step, a transform maps the run's own event; its result is what came of it."""
        self._add(PlannedStep(self._prefix + name, use.uses, "transforms", self._conditions))
        if holds_unknown(arguments):
            self._steps[step.id] = dict(_LATER)
            return
        transform = self._host.module(use.uses).cls(arguments)
        assert isinstance(transform, Transform)
        event = self._scope["event"]
        with self._opener.planning_wire(None, writes=False) as http:
            kept = list(transform.apply(Context(http=http), [Event(encoded(event), self._scope["meta"])]))
        if kept:
            self._steps[step.id] = {"status": "succeeded", "result": dict(kept[0].data), "error": None}
        else:
            self._steps[step.id] = {"status": "skipped", "error": "the event was dropped by it"}

    # --- what a step does --------------------------------------------------------------------------

    def _arguments(self, use: Use, given: Any) -> JsonObject:
        if holds_unknown(given):
            return with_defaults(self._host.module(use.uses).schema, given)
        return arguments_of(self._host, use, given)

    def _action(self, step: Step, name: str, use: Use, arguments: JsonObject) -> None:
        info = self._host.module(use.uses)
        action = info.cls(arguments)
        if not isinstance(action, Action):
            raise PermanentError(f"{use.uses} is a {info.kind}, not an action")
        if isinstance(action, Control):
            self._directed(step, name, use, action, arguments)
            return
        connection = self._opener.connection_for(
            use, self._playbook, self._planner._renames, self._scope["meta"]
        )
        if holds_unknown(arguments):
            self._unknown(step, name, use, action, connection, arguments)
        elif action.effect:
            self._change(step, name, use, action, connection, arguments)
        else:
            self._read(step, name, use, action, connection, arguments)

    def _read(
        self,
        step: Step,
        name: str,
        use: Use,
        action: Action,
        connection: Connection | None,
        arguments: JsonObject,
    ) -> None:
        with self._opener.planning_wire(connection, writes=False) as http:
            result = action.run(self._context(http, connection, name))
        self._steps[step.id] = {"status": "succeeded", "result": result, "error": None}
        self._add(
            PlannedStep(
                self._prefix + name,
                use.uses,
                "reads",
                self._conditions,
                **self._who(connection),
                arguments=self._masked(arguments),
            )
        )

    def _unknown(
        self,
        step: Step,
        name: str,
        use: Use,
        action: Action,
        connection: Connection | None,
        arguments: JsonObject,
    ) -> None:
        """Its arguments are not known yet, so neither is what it would send."""
        reads = unknown_paths(step.arguments.source, self._scope, self._expressions)
        self._add(
            PlannedStep(
                self._prefix + name,
                use.uses,
                "changes" if action.effect else "reads",
                self._conditions,
                **self._who(connection),
                arguments=self._masked(arguments),
                calls=None if action.effect else (),
                permissions=self._permissions(use) if action.effect else (),
                undo_note=CANNOT if action.effect and _one_way(action) else None,
                note=f"depends on {', '.join(dict.fromkeys(reads))}",
            )
        )
        self._after(step, name)

    def _change(
        self,
        step: Step,
        name: str,
        use: Use,
        action: Action,
        connection: Connection | None,
        arguments: JsonObject,
    ) -> None:
        with self._opener.planning_wire(connection, writes=True) as http:
            context = self._context(http, connection, name)
            before, calls, note = rehearse(action, context)
            terms = self._planner._terms(self._prefix + name)
            ends = terms.check(action, context, before) if terms is not None else None
            tenant = connection.tenant if connection is not None else ""
            intent = EffectIntent(
                run_id="",
                playbook=self._playbook.name,
                step_id=name,
                uses=use.uses,
                connection=connection.label if connection else "",
                tenant=tenant,
                target=action.target(),
                before=before,
                arguments=self._masked(action.arguments),
                subject=action.subject(before),
                planned=True,
            )
            verdict = self._planner._guards.verdict(intent, context)
        objects = {
            (tenant, str(one).casefold()) for one in (intent.target, intent.subject, before.get("id")) if one
        }
        if objects & self._touched:
            ends = None  # by then the target is not as it is now
        if ends is not None and ends.status == "skipped":
            self._add(PlannedStep(self._prefix + name, use.uses, "skipped", note=ends.error))
            self._steps[step.id] = {"status": "skipped", "error": None}
            return
        if ends is not None:
            self._failed(step, name, ends.error or ends.status)
            return
        undo, undo_note = way_back(action, before)
        self._add(
            PlannedStep(
                self._prefix + name,
                use.uses,
                "changes",
                self._conditions,
                **self._who(connection),
                target=intent.target,
                subject=intent.subject,
                arguments=self._masked(arguments),
                before=self._masked(before),
                calls=tuple(self._masked(calls)),
                complete=note is None,
                permissions=self._permissions(use),
                undo=undo,
                undo_note=undo_note,
                guard=None
                if verdict is None
                else ("asks: " if verdict.ask else "refuses: ") + verdict.reason,
                note="; ".join(filter(None, (note, action.caution(before)))) or None,
                shares_target=bool(objects & self._touched),
            )
        )
        self._touched |= objects
        if verdict is not None and verdict.refuse:
            self._steps[step.id] = {"status": "failed", "error": f"refused: {verdict.reason}"}
            self._handle(step, name)
            return
        self._after(step, name)

    def _after(self, step: Step, name: str) -> None:
        """Behind an effect that was not sent: its result is unknown, and its error is handled if it fails."""
        self._steps[step.id] = dict(_LATER)
        if isinstance(step.on_error, tuple):
            outer = self._scope
            self._scope = {**outer, "error": UNKNOWN}
            with self._if(f"if {name} fails"):
                for child in step.on_error:
                    self._step(child)
            self._scope = outer

    def _directed(self, step: Step, name: str, use: Use, control: Control, arguments: JsonObject) -> None:
        """A step that waits, asks, calls a playbook or stops the run."""
        self._steps[step.id] = dict(_LATER)
        place, shown = self._prefix + name, self._masked(arguments)
        if holds_unknown(arguments):
            self._add(PlannedStep(place, use.uses, "waits", self._conditions, arguments=shown))
            return
        with self._opener.planning_wire(None, writes=False) as http:
            directive = control.direct(self._context(http, None, name))
        self._add(PlannedStep(place, use.uses, _DOES[type(directive)], self._conditions, arguments=shown))
        if isinstance(directive, Call):
            self._call(name, directive)
        elif isinstance(directive, Stop):
            if not self._conditions:
                raise _Stopped
            self._conditions = (*self._conditions, f"if {name} does not stop the run")

    def _call(self, name: str, call: Call) -> None:
        if self._depth >= DEEPEST:
            raise PermanentError(
                f"runs are nested more than {DEEPEST} deep: do the playbooks call each other?"
            )
        called = self._opener.playbook(call.playbook)
        walk = _Walk(
            self._planner,
            called,
            self._scope["event"] if call.event is None else call.event,
            self._scope["meta"],
            inputs_of(called, call.inputs),
            prefix=f"{self._prefix}{name}/",
            conditions=self._conditions,
            depth=self._depth + 1,
            touched=self._touched,
        )
        self._found += walk.run()

    def _deliver(self, name: str, use: Use, arguments: Any) -> None:
        connection = self._opener.connection_for(
            use, self._playbook, self._planner._renames, self._scope["meta"]
        )
        sink = self._host.module(use.uses).cls
        assert issubclass(sink, Sink)
        self._add(
            PlannedStep(
                self._prefix + name,
                use.uses,
                "delivers",
                self._conditions,
                **self._who(connection),
                arguments=self._masked(arguments),
            )
        )

    def _failed(self, step: Step, name: str, error: str) -> None:
        uses = step.use.uses if step.use else step.form
        self._steps[step.id] = {"status": "failed", "error": error}
        self._add(PlannedStep(self._prefix + name, uses, "fails", self._conditions, note=self._mask(error)))
        self._handle(step, name)

    def _handle(self, step: Step, name: str) -> None:
        """What follows a step that would fail."""
        if isinstance(step.on_error, tuple):
            outer = self._scope
            self._scope = {**outer, "error": UNKNOWN}
            for child in step.on_error:
                self._step(child)
            self._scope = outer
        elif step.on_error == "stop":
            if not self._conditions:
                raise _Stopped
            self._conditions = (*self._conditions, f"if {name} does not stop the run")

    # --- small things ------------------------------------------------------------------------------

    @contextmanager
    def _if(self, condition: str) -> Iterator[None]:
        outer = self._conditions
        self._conditions = (*outer, condition)
        try:
            yield
        finally:
            stopping = [one for one in self._conditions[len(outer) + 1 :] if one.endswith("stop the run")]
            self._conditions = (*outer, *stopping)

    def _context(self, http: Any, connection: Connection | None, name: str) -> StepContext:
        return StepContext(
            http=http,
            connection=connection,
            stop=self._planner._stop,
            run_id="plan",
            playbook=self._playbook.name,
            step_id=name,
            internal=self._planner._opener.inside(connection),
        )

    def _who(self, connection: Connection | None) -> Any:
        if connection is None:
            return {}
        return {"connection": connection.label, "tenant": connection.tenant}

    def _permissions(self, use: Use) -> tuple[str, ...]:
        return tuple(
            f"{need['resource']}: {' or '.join(need['any'])} ({need['for']})"
            for need in self._host.module(use.uses).permissions
        )

    def _masked(self, found: Any) -> Any:
        return self._opener.secrets.mask_json(found)

    def _mask(self, text: str) -> str:
        return self._opener.secrets.mask(text)

    def _add(self, step: PlannedStep) -> None:
        self._found.append(step)


def rehearse(action: Action, context: StepContext) -> tuple[JsonObject, list[JsonObject], str | None]:
    """The state before, the writes in order, and why there may be more, on a wire that cannot write.

    Whatever the action raises before its first write passes through: the step would fail like this.
    """
    from counterplay.runtime.planning_wire import PlanningWire

    http = context.http
    assert isinstance(http, PlanningWire)
    before = action.capture(context)
    if http.calls:
        raise PermanentError(
            "it writes while it reads the state before", hint="this is a fault of the plugin"
        )
    try:
        action.run(context)
    except InterruptedWork:
        raise
    except Exception:
        if not http.calls:
            raise
        return before, http.calls, "what follows depends on the answer"
    return before, http.calls, None


def _one_way(action: Action) -> bool:
    return type(action).inverse is Action.inverse


def way_back(
    action: Action, before: JsonObject, result: JsonObject | None = None
) -> tuple[str | None, str | None]:
    """(The module that takes the effect back, or None and why there is none)."""
    if _one_way(action):
        return None, CANNOT
    try:
        inverse = action.inverse(before, result or {})
    except WorkError as error:
        return None, f"{CANNOT}: {error.message}"
    except Exception:  # it needs the result, which is not known before the run
        return None, "whether it can be taken back shows when it runs"
    if inverse is None:
        return None, "there is nothing to take back: it changes nothing"
    return inverse.uses, None
