"""Plays one case: the real language and interpreter, in an empty store, with time that passes on demand.

Segments are executed one after the other in this thread. When none is due, time jumps to whatever is
next: a wait that ends, somebody's answer, or a later look at an effect. The case goes on until the last
look is made; how long it took is told without the looks that come after everything else.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from counterplay import clock as clocks
from counterplay.cases.clock import CaseClock, CaseStop
from counterplay.cases.facts import facts_of
from counterplay.cases.model import Case, Given, GivenEvent
from counterplay.cases.offline import offline
from counterplay.cases.seen import Seen, SeenLook, SeenRun, SeenStep
from counterplay.cases.stage import CaseOpener, CaseStage, CaseStore, CaseWorkspace, folder
from counterplay.cases.stand_ins import CaseHost, GivenTrigger
from counterplay.clock import from_text
from counterplay.errors import ConfigError, CounterplayError
from counterplay.events import encoded
from counterplay.hookspecs import Simulation
from counterplay.language import Playbook
from counterplay.language.build import all_steps, step_ids
from counterplay.modules import Connection, Trigger
from counterplay.runtime.approvals import Approvals, RefusedAnswer
from counterplay.runtime.feeds import Feed
from counterplay.runtime.figures import Figures
from counterplay.runtime.given import inputs_of
from counterplay.runtime.holding import Watcher
from counterplay.runtime.interpreter import Interpreter
from counterplay.runtime.session import DEFAULT_INTERVAL, Session, Task
from counterplay.store.approvals import ApprovalStore, StoredApproval
from counterplay.store.database import Database
from counterplay.store.feeds import FeedKey, FeedStore
from counterplay.store.runs import RunStore, StoredRun
from counterplay.store.watches import Watch, WatchStore
from counterplay.workspace import Workspace

Looked = tuple[str, str, str]
"""A later look: run, step, and the time as the playbook writes it."""
MOST_SEGMENTS = 5_000
"""A case that needs more does not come to an end."""


def play(case: Case, playbook: Playbook, host: CaseHost, workspace: Workspace, store: CaseStore) -> Seen:
    """Try the case. What the playbook does about failures is seen; what keeps it from being tried raises.

    ConfigError: the circumstances make no sense (an input is missing, the simulation refuses its state).
    """
    given = case.given
    clock = CaseClock(given.now)
    with ExitStack() as stack:
        place = Path(stack.enter_context(folder()))
        stack.enter_context(clocks.read_from(clock.now))
        stack.enter_context(offline())
        simulation = None
        if given.tenant is not None:
            simulation = _simulated(host, place, given)
            stack.callback(simulation.close)
            clock.followers.append(simulation.tell_time)
        database = store.emptied()
        own = CaseWorkspace(host, place, workspace, given)
        stage = CaseStage(given, RunStore(database), clock)
        stack.enter_context(_on(host, stage))
        player = _Player(given, playbook, own, database, clock, stage, simulation, host.parsed)
        return player.play()


@contextmanager
def _on(host: CaseHost, stage: CaseStage) -> Iterator[None]:
    host.theatre.stage = stage
    try:
        yield
    finally:
        host.theatre.stage = None


def _simulated(host: CaseHost, place: Path, given: Given) -> Simulation:
    found: Simulation | None = host.hook.counterplay_simulation(
        state_dir=place / "simulation", state=given.tenant, moment=given.now
    )
    if found is None:
        raise ConfigError(
            "no plugin simulates a tenant here", hint="enable the plugin `sim`, or give `answers` instead"
        )
    return found


class _Player:
    def __init__(
        self,
        given: Given,
        playbook: Playbook,
        workspace: CaseWorkspace,
        database: Database,
        clock: CaseClock,
        stage: CaseStage,
        simulation: Simulation | None,
        parsed: dict[str, Playbook],
    ) -> None:
        self._given = given
        self._playbook = playbook
        self._clock = clock
        self._stage = stage
        self._simulation = simulation
        self._feeds = FeedStore(database)
        self._runs = RunStore(database)
        self._approvals = ApprovalStore(database)
        self._figures = Figures()
        self._stop = threading.Event()
        self._opener = CaseOpener(workspace, CaseStop(clock), simulation)
        inputs = inputs_of(playbook, given.inputs)
        self._task = Task(playbook, inputs)
        self._session = Session(self._opener, playbook.name, [self._task], once=True, stop=self._stop)
        self._interpreter = Interpreter(
            workspace.host, self._runs, self._feeds, self._opener, self._figures, CaseStop(clock),
            on_end=lambda _segment: None, on_failure=self._failed, parsed=parsed,
        )  # fmt: skip
        self._watches = WatchStore(database)
        self._watcher = Watcher(database, self._opener, self._figures, CaseStop(clock), self._reported)
        self._reports: dict[Looked, str] = {}
        self._meanwhile = sorted(given.meanwhile, key=lambda one: one.after)
        self._began = self._worked = clock.now()
        self._failures: list[CounterplayError] = []
        self._said: set[tuple[str, int]] = set()
        self._segments = 0

    def play(self) -> Seen:
        connection = self._session._trigger_connections(self._task)[0]
        raws = [encoded(one.event) for one in self._given.events]
        moment = self._began
        for number, (one, raw) in enumerate(zip(self._given.events, raws, strict=True)):
            moment += one.after
            self._work(moment)
            self._arrive(number, one, raw, connection)
            self._worked = self._clock.now()
        self._work(None)
        return self._seen(tuple(raws))

    def _failed(self, error: CounterplayError) -> None:
        self._failures.append(error)

    def _reported(self, look: Watch, text: str) -> None:
        self._reports[_looked(look)] = text

    # --- events ----------------------------------------------------------------------------------

    def _arrive(self, number: int, one: GivenEvent, raw: bytes, connection: Connection | None) -> None:
        """The event goes the way of all events: dedupe, filter, transforms, sinks or a run."""
        use = self._playbook.trigger
        real = self._session._instance(use, self._task)
        assert isinstance(real, Trigger)
        key = FeedKey(
            use.uses,
            connection.label if connection is not None else "",
            connection.tenant if connection is not None else "local",
            json.dumps({"by": "case"}),
        )
        feed = Feed(
            key,
            GivenTrigger(real, one.meta),
            self._session._context(connection),
            [self._session._subscriber(self._task, connection)],
            store=self._feeds,
            runs=self._runs,
            figures=self._figures,
            stop=self._stop,
            runs_added=lambda _added: None,
            poll_interval=DEFAULT_INTERVAL,
            once=True,
        )
        (opened,) = feed.open()
        opened.spool(f"given-{number + 1}", [raw])
        opened.run()
        if opened.failure is not None:
            self._stage.trouble.append(f"event {number + 1}: {opened.failure}")

    # --- time ------------------------------------------------------------------------------------

    def _work(self, until: datetime | None) -> None:
        """Do what is due, and let time pass, up to a moment or until nothing is left that time brings."""
        while not self._failures:
            due = self._runs.due(1)
            if due:
                self._segments += 1
                if self._segments > MOST_SEGMENTS:
                    self._stage.trouble.append("the playbook does not come to an end")
                    return
                identity, number = due[0]
                self._interpreter.segment(f"{identity}/{number}", lambda _name, work: work())
                self._worked = self._clock.now()
                continue
            moment, act = self._next()
            if moment is None or (until is not None and moment > until):
                break
            self._clock.advance_to(moment)
            act()
        if until is not None:
            self._clock.advance_to(until)
            self._worked = self._clock.now()

    def _next(self) -> tuple[datetime | None, Callable[[], None]]:
        """What time brings next, and what happens then."""
        found: list[tuple[datetime, Callable[[], None]]] = []
        wake = self._runs.next_wake()
        if wake is not None:
            found.append((wake, lambda: None))
        for one in self._approvals.listed("open"):
            found += self._sayings(one)
        if self._meanwhile:
            found.append((self._began + self._meanwhile[0].after, self._change))
        look = self._watches.next_due()
        if look is not None:
            found.append((look, self._look))
        return min(found, key=lambda each: each[0]) if found else (None, lambda: None)

    def _change(self) -> None:
        """Somebody else changes the simulated tenant."""
        assert self._simulation is not None  # the reader of cases has seen to it
        self._simulation.change(self._meanwhile.pop(0).tenant)

    def _look(self) -> None:
        """Look whether effects still hold."""
        for one in self._watches.due(self._clock.now()):
            self._stage.look = one
            try:
                self._watcher.look(one)
            finally:
                self._stage.look = None

    def _sayings(self, one: StoredApproval) -> Iterator[tuple[datetime, Callable[[], None]]]:
        name = self._stage.name(one.run_id, one.step_id)
        said = self._given.approvals.get(name) or self._given.approvals.get(name.partition("[")[0], ())
        for place, saying in enumerate(said):
            if saying.say != "nothing" and (one.id, place) not in self._said:
                yield from_text(one.created) + saying.after, self._saying(one, name, place)

    def _saying(self, one: StoredApproval, name: str, place: int) -> Callable[[], None]:
        said = self._given.approvals.get(name) or self._given.approvals[name.partition("[")[0]]
        saying = said[place]
        assert saying.say != "nothing"
        decision = saying.say

        def act() -> None:
            self._said.add((one.id, place))
            self._worked = self._clock.now()
            try:
                Approvals(self._approvals).answer(
                    one.id,
                    decision,
                    person=saying.by,
                    source="case",
                    comment=saying.comment,
                    form=saying.form,
                )
            except RefusedAnswer as error:
                self._stage.trouble.append(f"what {saying.by} says to {name} does not count: {error}")

        return act

    # --- what came of it -------------------------------------------------------------------------

    def _seen(self, raws: tuple[bytes, ...]) -> Seen:
        figures = self._figures
        trouble = [*self._stage.trouble, *map(str, self._failures)]
        runs = self._runs.newest(playbook=None, status=None, limit=MOST_SEGMENTS, inside=False)
        runs.sort(key=lambda run: int(run.meta["unit"].removeprefix("given-")))
        names = {self._stage.name(one.run_id, one.step_id) for one in self._approvals.listed(None)}
        for step in self._given.asked:
            if step not in names and not any(name.partition("[")[0] == step for name in names):
                trouble.append(f"`approvals: {step}`: nobody was asked there")
        return Seen(
            runs=tuple(
                seen_run(self._runs, self._approvals, self._watches, run, self._stage.name, self._reports)
                for run in runs
            ),
            records={uses: tuple(records) for uses, records in self._stage.records.items()},
            given=raws,
            counts={
                "filtered": figures["filtered"],
                "duplicates": figures["duplicates"],
                "suppressed": figures["runs_suppressed"],
                "quarantined": figures["dead_letters"] + figures["broken"],
            },
            took=self._worked - self._began,
            tenant=self._simulation.state() if self._simulation is not None else None,
            trouble=tuple(trouble),
            facts=facts_of(
                self._playbook,
                [
                    {"event": one.event, "meta": one.meta, "inputs": self._task.inputs}
                    for one in self._given.events
                ],
                self._runs,
                self._approvals,
                figures["runs_suppressed"],
            ),
        )


def seen_run(
    runs: RunStore,
    approvals: ApprovalStore,
    watches: WatchStore,
    run: StoredRun,
    named: Callable[[str, str], str],
    reports: Mapping[Looked, str],
) -> SeenRun:
    """A run with all that belongs to it; `named` says what a step of a run is called.

    `reports`: what people were told of looks. Looks that are to come are left out.
    """
    parts = [run, *(one for one in runs.within(run.id) if one.id != run.id)]
    found: list[tuple[str, int, SeenStep]] = []
    for part in parts:
        ids = step_ids(part.document)
        documents = {ids[id(step)]: step for step in all_steps(part.document)}
        for row in runs.steps(part.id):
            step: dict[str, Any] = documents.get(row.step_id, {})
            element = part.origin.get("role") == "element" and part.parent_step == row.step_id
            whole = row.uses in ("group", "parallel") or ("for_each" in step and not element)
            status = row.status if row.ended is not None else "waiting"
            if not row.step_id.startswith("sink:"):
                name = named(part.id, row.step_id)
                seen = SeenStep(name, status, row.result, row.error, whole)
                found.append((row.started, len(found), seen))
    effects = [
        {
            "step": named(one.run_id, one.step_id),
            "uses": one.uses,
            "status": one.status,
            "target": one.target,
            "subject": one.subject,
            "connection": one.connection,
            "arguments": one.arguments,
            "before": one.before,
            "verified": one.verified,
            "calls": one.calls,
        }
        for one in runs.effects_within(run.id)
    ]
    asked = [
        (one.created, number, one.question)
        for part in parts
        for number, one in enumerate(approvals.of_run(part.id))
    ]
    return SeenRun(
        run.id,
        run.status,
        run.error,
        {step.name: step for _, _, step in sorted(found, key=lambda each: each[:2])},
        tuple(effects),
        tuple(question for _, _, question in sorted(asked)),
        tuple(
            SeenLook(named(one.run_id, one.step_id), one.after, one.held, reports.get(_looked(one)))
            for one in sorted(watches.of_run(run.id), key=lambda one: (one.checked or "", one.due))
            if one.checked is not None
        ),
    )


def _looked(look: Watch) -> Looked:
    return look.run_id, look.step_id, look.after
