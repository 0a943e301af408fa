"""One module under the rules: its stage, opened when a rule needs it, and what was seen of it at work."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from counterplay.events import Event, JsonObject, Page, Unit, encoded
from counterplay.modules import (
    Action,
    Connection,
    Control,
    FeedTrigger,
    PollTrigger,
    PushTrigger,
    Sink,
    StepContext,
    Transform,
    Trigger,
)
from counterplay.plugins import ModuleInfo, PluginHost
from counterplay.runtime.plans import Plan
from counterplay.testing.bench import Bench
from counterplay.testing.stage import Ran, Stage

BenchSource = Callable[[str, Path], Generator[Bench, None, None]]
"""Called with the plugin's name and an empty folder; yields one bench and cleans up afterwards."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a module's contract, ready to be made: its name and what makes it."""

    name: str
    make: Callable[[], object]


@dataclass
class Heard:
    """Everything that came out while something was done."""

    texts: list[str] = field(default_factory=list)

    def add(self, value: object) -> None:
        self.texts.append(value if isinstance(value, str) else json.dumps(value, default=_plain))


@dataclass(frozen=True, slots=True)
class Journey:
    """An effect planned, done, settled, taken back and done again, with the service's state in between."""

    plan: Plan
    planned_writes: list[tuple[str, str]]
    states: dict[str, object]
    ran: Ran
    run_writes: list[tuple[str, str]]
    settled_before: JsonObject | None
    settled_after: JsonObject | None
    not_undone: str | None
    undone: Ran | None


class Case:
    """A module and how it can be shown at work. Close it, so that its benches end."""

    def __init__(self, host: PluginHost, info: ModuleInfo, source: BenchSource | None, folder: Path) -> None:
        self.host = host
        self.info = info
        self.heard = Heard()
        self._source = source
        self.folder = folder
        self._made = 0
        self._open = ExitStack()

    def close(self) -> None:
        """End the benches."""
        self._open.close()

    @cached_property
    def stage(self) -> Stage:
        """The module on a bench, which later rules find as earlier ones left it."""
        stage = self.fresh()
        if self.info.kind != "action" and stage.lacks is None:
            stage.prepare()
        return stage

    def fresh(self) -> Stage:
        """The module on a bench of its own."""
        self._made += 1
        folder = self.folder / str(self._made)
        folder.mkdir(parents=True)
        bench = Bench()
        if self._source is not None:
            bench = self._open.enter_context(contextmanager(self._source)(self.info.plugin, folder / "bench"))
        return Stage(self.host, self.info, bench, folder / "work")

    @property
    def hidden(self) -> str | None:
        """Why the module cannot be seen at work; None when it can."""
        if issubclass(self.info.cls, Control):
            return "it directs its run, and does nothing by itself"
        return self.stage.lacks

    @property
    def shown(self) -> bool:
        """Can the module be seen at work?"""
        return self.hidden is None

    @property
    def has_effect(self) -> bool:
        """Does it change something, with its example's arguments?"""
        return self.shown and issubclass(self.info.cls, Action) and bool(self.stage.module().effect)

    @property
    def module_name(self) -> str:
        """What the plugin's entry point names."""
        return self.host.plugins[self.info.plugin].point.module

    # --- at work -----------------------------------------------------------------------------------

    @cached_property
    def journey(self) -> Journey:
        """What happened to the module's effect. Only for a case with one."""
        stage = self.stage
        with self.listening(stage):
            stage.prepare()
            states = {"before": stage.bench.state()}
            sent = len(stage.watch.writes)
            plan = stage.plan()
            states["planned"] = stage.bench.state()
            planned_writes = stage.watch.writes[sent:]
        if states["planned"] != states["before"]:  # the rest is told from an undisturbed beginning
            stage = self.__dict__["stage"] = self.fresh()
            stage.prepare()
        with self.listening(stage):
            action = stage.module()
            with stage.context() as context:
                before = action.capture(context)
                early = action.settled(context, before) if action.settle == "read" else None
            sent = len(stage.watch.writes)
            ran = stage.run()
            run_writes = stage.watch.writes[sent:]
            states["done"] = stage.bench.state()
            late = None
            with stage.context() as context:
                if action.settle == "read":
                    late = action.settled(context, before)
                if action.settle == "repeat" and ran.run.status == "succeeded":
                    action.run(context)
            states["again"] = stage.bench.state()
            why, undone = stage.undo(ran) if ran.effect is not None else ("there was no effect", None)
            states["undone"] = stage.bench.state()
        for one in (plan.to_document(), ran.run, ran.step, ran.effect, undone and undone.run):
            self.heard.add(one)
        return Journey(plan, planned_writes, states, ran, run_writes, early, late, why, undone)

    @cached_property
    def result(self) -> JsonObject | None:
        """What the action returned, as the run keeps it; None when it failed."""
        ran = self.journey.ran if self.has_effect else self._plain_run
        return ran.step.result if ran.step is not None and ran.step.status == "succeeded" else None

    @cached_property
    def failure(self) -> str | None:
        """Why the action's run did not succeed."""
        ran = self.journey.ran if self.has_effect else self._plain_run
        return None if ran.run.status == "succeeded" else str(ran.run.error or ran.run.status)

    @cached_property
    def _plain_run(self) -> Ran:
        with self.listening(self.stage):
            self.stage.prepare()
            ran = self.stage.run()
        self.heard.add(ran.step)
        return ran

    @contextmanager
    def calls(self) -> Iterator[list[Call]]:
        """The calls of the module's contract. What a call needs beforehand was got while nothing failed."""
        with self.stage.context() as context:
            yield list(self._calls(context))

    def _calls(self, context: StepContext) -> Iterable[Call]:
        module = self.stage.module() if self.info.kind != "connection" else context.connection
        example = self.stage.example
        if isinstance(module, Connection):
            yield Call("check", lambda: list(module.check(context)))
        elif isinstance(module, FeedTrigger):
            start, end = self.window(module, context)
            module.prepare(context)
            units = list(module.discover(context, start, end))
            yield Call("prepare", lambda: module.prepare(context))
            yield Call("discover", lambda: list(module.discover(context, start, end)))
            if units:
                yield Call("fetch", lambda: bytes(module.fetch(context, units[0])))
        elif isinstance(module, PollTrigger):
            since = self.window(module, context)[0]
            yield Call("poll", lambda: module.poll(context, None, since))
        elif isinstance(module, PushTrigger):
            request = example.request
            if request is not None:
                yield Call("receive", lambda: module.receive(context, request))
        elif isinstance(module, Transform):
            yield Call("apply", lambda: module.apply(context, self.events()))
        elif isinstance(module, Sink):
            yield Call("deliver", lambda: module.deliver(context, self.events()))
        elif isinstance(module, Action):
            if module.effect:
                yield Call("capture", lambda: module.capture(context))
            yield Call("run", lambda: module.run(context))

    def window(self, module: Trigger, context: StepContext) -> tuple[Any, Any]:
        """From where to where a trigger is asked."""
        end = context.now()
        return self.stage.example.since or end - module.look_back, end

    def events(self) -> list[Event]:
        """What a transform or a sink is given."""
        return [
            Event(encoded(one), {"feed": "bench", "unit": "u1"}, position=number, key=f"k{number}")
            for number, one in enumerate(self.stage.example.events)
        ]

    @contextmanager
    def listening(self, stage: Stage) -> Iterator[None]:
        """What is printed and logged inside the block is heard, secrets masked as in service."""
        out, logged = io.StringIO(), io.StringIO()
        handler = logging.StreamHandler(logged)
        handler.addFilter(stage.masking)
        root = logging.getLogger()
        level = root.level
        root.addHandler(handler)
        root.setLevel(logging.DEBUG)
        try:
            with redirect_stdout(out), redirect_stderr(out):
                yield
        finally:
            root.setLevel(level)
            root.removeHandler(handler)
            self.heard.texts += [out.getvalue(), logged.getvalue()]


def _plain(value: object) -> object:
    if isinstance(value, Page):
        return [one.decode("utf-8", "replace") for one in value.events]
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).decode("utf-8", "replace")
    if isinstance(value, Event):
        return value.raw.decode("utf-8", "replace")
    if isinstance(value, Unit):
        return [value.id, dict(value.locator)]
    fields = getattr(value, "__dataclass_fields__", None)
    return {name: getattr(value, name) for name in fields} if fields else str(value)
