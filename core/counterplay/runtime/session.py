"""One `playbook run`: feeds for the playbooks' triggers, a dispatcher for their runs, and an end.

With `once` it ends when everything that was listed is accounted for and the runs ended or wait; else
it follows the sources until it is asked to stop.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy.engine import make_url

from counterplay import audit
from counterplay._memory import settle_allocator, settle_collector
from counterplay.clock import now, to_text
from counterplay.errors import BlockedError, ConfigError, CounterplayError, StateError
from counterplay.events import JsonObject
from counterplay.hookspecs import Invocation
from counterplay.language import Labels, Playbook, Use, parse_duration, with_defaults
from counterplay.modules import (
    Connection,
    Context,
    FeedTrigger,
    PollTrigger,
    PushTrigger,
    Sink,
    Transform,
    Trigger,
)
from counterplay.people import this_person
from counterplay.plugin_lock import refuse_others
from counterplay.runtime import metrics
from counterplay.runtime.feeds import Feed
from counterplay.runtime.figures import Figures
from counterplay.runtime.holding import Watcher
from counterplay.runtime.keeping import Keeper
from counterplay.runtime.listener import Listener
from counterplay.runtime.opening import Opener
from counterplay.runtime.pipeline import Shared
from counterplay.runtime.segments import all_steps
from counterplay.runtime.standing import Standing, standing
from counterplay.runtime.subscribers import SinkPipe, Subscriber
from counterplay.store.database import Database, explained, open_database, session_name, worker_lock
from counterplay.store.feeds import FeedKey, FeedStore
from counterplay.store.figures import unfinished
from counterplay.store.losses import Losses
from counterplay.store.runs import RunStore, StoredEffect

if TYPE_CHECKING:
    from counterplay.runtime.fleet import Fleet

DEFAULT_INTERVAL = timedelta(seconds=60)
_UNFINISHED = ("queued", "running", "waiting", "blocked")

log = logging.getLogger("counterplay.session")


@dataclass(frozen=True, slots=True)
class Task:
    """A playbook to run, with the inputs it is given and the connections that its set renames."""

    playbook: Playbook
    inputs: JsonObject
    renames: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a session ended. `lines` are what plugins add to its summary."""

    exit_code: int
    figures: JsonObject
    notices: dict[str, str]
    runs: JsonObject
    changed: dict[str, list[str]]
    lines: tuple[str, ...]
    seconds: float


class Session:
    """Runs tasks on one store. `run()` is called once."""

    def __init__(
        self,
        opener: Opener,
        name: str,
        tasks: Sequence[Task],
        *,
        once: bool,
        stop: threading.Event,
        events: Sequence[bytes] | None = None,
        listen: str = "127.0.0.1:8787",
        metrics_at: str | None = None,
        command: str = "run",
        service: Listener | None = None,
        figures: Figures | None = None,
    ) -> None:
        """`service` is the listener of a process that holds the worker's lock, and works on after this."""
        self.name = name
        self._metrics = metrics_at
        self._service = service
        self._command = command
        self.figures = figures or Figures()
        self.urls: list[str] = []
        self.metrics_url = ""
        self._opener = opener
        self._tasks = tasks
        by_hand = service is None and all(map(self._only_by_hand, tasks))
        self._once = once or events is not None or by_hand
        self._stop = stop
        self._events = events
        self._listen = listen
        self._used: set[str] = set()
        self._shared = Shared()
        self._failures: list[CounterplayError] = []
        self._began = to_text(now())
        self._dispatching: Any = None
        self._working: Sequence[Feed] = ()
        self._added: set[str] = set()
        self._shown: Database | None = None
        self._showing = threading.Lock()

    @property
    def host(self) -> Any:
        return self._opener.host

    def run(self, on_started: Callable[[], None] = lambda: None) -> Ended:
        """Work to the end. StateError and ConfigError: it could not begin, or the store failed it."""
        began = time.monotonic()
        refuse_others(self.host, self._opener.workspace.root)
        settle_allocator()
        settle_collector()
        with ExitStack() as stack:
            database = self._open_store(stack)
            self._log_start(database)
            feeds = FeedStore(database)
            runs = RunStore(database)
            fleet = self._join_fleet(database, stack)
            # feeds first: they open every connection, and what cannot be opened is told before a run works
            with database.alone("subscribe"):
                working = self._working = self._feeds(feeds, runs, fleet)
            dispatcher = self._dispatching = self._dispatcher(runs, feeds, fleet, stack)
            push = [feed for feed in working if isinstance(feed.trigger, PushTrigger)]
            if self._service is not None:
                self.urls = self._service.serve(push)
                stack.callback(self._service.rest)
            elif push and not self._once:
                self.urls = stack.enter_context(Listener(self._listen, push)).urls
            if self._metrics is not None:
                exporter = metrics.Exporter(self._metrics, self.metrics)
                self.metrics_url = stack.enter_context(exporter).url
            self._watch(database, stack)
            self._keep(database, stack)
            on_started()
            self._follow(working)
            if dispatcher is not None and self._once:
                dispatcher.wait_idle(self._added)
            interrupted = self._stop.is_set() and not self._failures
            if dispatcher is not None:
                self._stop.set()
                dispatcher.close()
            failure = next((one for one in self._failures if isinstance(one, StateError)), None)
            if failure is not None:
                raise failure if fleet is None else fleet.reason(failure)
            return self._ended(working, runs, interrupted, began)

    def _open_store(self, stack: ExitStack) -> Database:
        url = self._opener.workspace.store_url
        if self._service is None:
            stack.enter_context(worker_lock(url, self._purpose))
        database = open_database(url)
        stack.callback(database.close)
        self._show(database)
        stack.callback(self._show, None)
        return database

    def _show(self, database: Database | None) -> None:
        with self._showing:
            self._shown = database

    def metrics(self) -> str:
        """The figures for Prometheus; with what is open in the store as long as the session has it."""
        open_now = None
        with self._showing:
            if self._shown is not None:
                try:
                    open_now = unfinished(self._shown)
                except StateError as error:  # the rest is told all the same, and an absent metric shows
                    log.warning("metrics: %s", error)
        opener = self._opener
        return metrics.text(self.figures, self._working, opener.budgets, open_now, opener.token_ages())

    def standing(self) -> Standing:
        """How far the sources are, for the progress display."""
        return standing(self._working, self._opener.budgets)

    @property
    def _purpose(self) -> str:
        return "playbook up" if self._service is not None else f"playbook run {self.name}"

    def _join_fleet(self, database: Database, stack: ExitStack) -> Fleet | None:
        """On PostgreSQL this is one of several workers."""
        if database.sqlite:
            return None
        from counterplay.runtime.fleet import Fleet

        patience = self._opener.workspace.dead_after
        fleet = Fleet(database, self._purpose, patience, self._stop, self._fail, self._look_around)
        fleet.start()
        stack.callback(fleet.close)
        return fleet

    def _look_around(self) -> None:
        """Other workers and commands put units and runs into the store, too."""
        for feed in self._working:
            feed.nudge()
        self._runs_added(())

    def _watch(self, database: Database, stack: ExitStack) -> None:
        """Look at effects that are to hold: those that are due, and as long as this works, those to come."""
        watcher = Watcher(database, self._opener, self.figures, self._stop)
        if self._once:
            watcher.sweep()
            return
        watcher.start()
        stack.callback(watcher.join)
        stack.callback(self._stop.set)

    def _keep(self, database: Database, stack: ExitStack) -> None:
        """A service deletes what is old; other sessions are too short for it."""
        if self._service is None:
            return
        keeper = Keeper(database, self._opener.workspace.retention, self._stop)
        keeper.start()
        stack.callback(keeper.join)
        stack.callback(self._stop.set)

    def _log_start(self, database: Database) -> None:
        """The audit log knows of every start, and of what was configured otherwise than at the last one."""
        playbooks = {task.playbook.name: task.playbook.document for task in self._tasks}
        audit.configured(database, self._opener.workspace.config_without_secrets, playbooks)
        about = {
            "command": self._command,
            "name": self.name,
            "playbooks": sorted(playbooks),
            "once": self._once,
        }
        audit.record(database, "command", about)

    def _dispatcher(self, runs: RunStore, feeds: FeedStore, fleet: Fleet | None, stack: ExitStack) -> Any:
        """The dispatcher, when there are runs to do; the engine costs half a second to import."""
        idle = not any(task.playbook.run_steps for task in self._tasks) and self._service is None
        if idle and not runs.with_status(*_UNFINISHED) and not runs.untold(now()):
            return None
        from counterplay.engine.dbos_engine import DbosEngine
        from counterplay.runtime.dispatch import NEWCOMERS, SLOTS, Dispatcher
        from counterplay.runtime.interpreter import Interpreter

        database = runs.database
        engine = DbosEngine(
            self._opener.workspace.store_url,
            2 * SLOTS + NEWCOMERS,
            database.turns,
            session_name(database.session),
        )
        dispatcher = Dispatcher(engine, runs, self._stop, on_failure=self._fail, fleet=fleet)

        def close() -> None:
            self._stop.set()
            dispatcher.close()

        stack.callback(close)  # whatever goes wrong from here on, no run works on behind our back
        interpreter = Interpreter(
            self.host, runs, feeds, self._opener, self.figures, self._stop, dispatcher.ended, self._fail
        )
        with explained(make_url(self._opener.workspace.store_url)):
            dispatcher.launch(interpreter.segment, lambda: interpreter.catch_up(self._surely_ended(fleet)))
        return dispatcher

    def _surely_ended(self, fleet: Fleet | None) -> datetime:
        """Who ended a run before this, and has not told it, is no longer there."""
        return now() if fleet is None else now() - self._opener.workspace.dead_after

    def _runs_added(self, added: Sequence[str]) -> None:
        if self._once:
            self._added.update(added)
        if self._dispatching is not None:
            self._dispatching.notify()

    def _fail(self, error: CounterplayError) -> None:
        """Something failed that no single feed or run can answer for: everything stops."""
        self._failures.append(error)
        self._stop.set()

    # --- feeds -----------------------------------------------------------------------------------

    def _feeds(self, store: FeedStore, runs: RunStore, fleet: Fleet | None) -> list[Feed]:
        """One feed for each distinct source, with all the playbooks that subscribe to it."""
        feeds: dict[FeedKey, Feed] = {}
        for task in self._tasks:
            for connection in self._trigger_connections(task):
                for key, trigger, interval, look_back in self._sources(task, connection, store):
                    subscriber = self._subscriber(task, connection)
                    if key in feeds:
                        feeds[key].join(subscriber, interval, look_back)
                        continue
                    feeds[key] = Feed(
                        key,
                        trigger,
                        self._context(connection, Losses(store.database)),
                        [subscriber],
                        store=store,
                        runs=runs,
                        figures=self.figures,
                        stop=self._stop,
                        runs_added=self._runs_added,
                        poll_interval=interval,
                        once=self._once,
                        look_back=look_back,
                        shared=self._shared,
                        worker=fleet.identity if fleet is not None else None,
                    )
        opened = [one for feed in feeds.values() for one in feed.open()]
        for feed in opened:
            feed.neighbours = opened
        self._spool_given_events(opened)
        return opened

    def _trigger_connections(self, task: Task) -> list[Connection | None]:
        use = task.playbook.trigger
        kind = self.host.module(use.uses).cls.connection
        if kind is None:
            return [None]
        if isinstance(use.connection, Labels):
            names = list(self._opener.workspace.labelled(use.connection.labels, kind))
            if not names:
                raise ConfigError(
                    f"no connection of kind {kind} has the labels {', '.join(use.connection.labels)}",
                    hint="label connections in counterplay.yaml",
                )
        elif use.connection is None:
            raise ConfigError(f"the trigger {use.uses} needs a connection", hint="write `connection:`")
        else:
            names = [task.renames.get(use.connection, use.connection)]
        return [self._connection(name, kind) for name in names]

    def _connection(self, name: str, kind: str) -> Connection:
        self._used.add(name)
        return self._opener.connection(name, kind)

    def _sources(
        self, task: Task, connection: Connection | None, store: FeedStore
    ) -> list[tuple[FeedKey, Trigger, timedelta, timedelta | None]]:
        """The feeds that a trigger stands for: one for each element of an `x-feed-key: each` argument."""
        use = task.playbook.trigger
        info = self.host.module(use.uses)
        arguments = with_defaults(info.schema, use.template.render({"inputs": task.inputs}))
        interval = parse_duration(str(arguments["poll_interval"])) if "poll_interval" in arguments else None
        look_back = parse_duration(str(arguments["look_back"])) if "look_back" in arguments else None
        tenant = connection.tenant if connection is not None else "local"
        label = connection.label if connection is not None else ""

        def key_of(part: JsonObject) -> FeedKey:
            return FeedKey(use.uses, label, tenant, json.dumps(part, sort_keys=True))

        found: list[tuple[FeedKey, Trigger, timedelta, timedelta | None]] = []
        by_hand = key_of({"by": "hand", "playbook": task.playbook.name})  # given to this playbook alone
        plain = info.cls(arguments)
        only_by_hand = self._only_by_hand(task)
        if only_by_hand and self._events is None and not store.has_subscription(by_hand, task.playbook.name):
            raise ConfigError(
                f"{use.uses} has no events of its own", hint="give them with --event FILE (or - for stdin)"
            )
        if self._events is not None or store.has_subscription(by_hand, task.playbook.name):
            found.append((by_hand, HandTrigger(plain), DEFAULT_INTERVAL, None))
        if self._events is None and not only_by_hand:
            for part in _expanded(info.schema, arguments):
                key = {name: value for name, value in part.items() if _is_key(info.schema, name)}
                found.append((key_of(key), info.cls(part), interval or DEFAULT_INTERVAL, look_back))
        return found

    def _only_by_hand(self, task: Task) -> bool:
        """Is this a trigger without a source of its own?"""
        return not issubclass(
            self.host.module(task.playbook.trigger.uses).cls, (FeedTrigger, PollTrigger, PushTrigger)
        )

    def _subscriber(self, task: Task, connection: Connection | None) -> Subscriber:
        meta = {"connection": connection.label} if connection is not None else {}
        playbook = task.playbook
        transforms = []
        for step in playbook.batch_steps:
            assert step.use is not None
            transform = self._instance(step.use, task)
            assert isinstance(transform, Transform)
            transforms.append((transform, self._context(self._for_use(step.use, task, meta))))
        sinks = []
        for index, use in enumerate(playbook.sinks if not playbook.run_steps else ()):
            sink = self._instance(use, task)
            assert isinstance(sink, Sink)
            opened = self._for_use(use, task, meta)
            name = f"{index + 1}:{use.uses}@{opened.label if opened else ''}"
            sinks.append(SinkPipe(name, sink, self._context(opened)))
        inside = all_steps((*playbook.run_steps, *playbook.finally_steps)).values()
        for needed in [*(step.use for step in inside), *playbook.sinks]:
            if needed is not None:  # a connection that cannot be opened is told before anything runs
                self._for_use(needed, task, meta)
        starter = this_person() if self._events is not None else None
        return Subscriber(
            playbook,
            task.inputs,
            task.renames,
            transforms,
            sinks,
            internal=self._opener.internal.for_event,
            starter=starter,
        )

    def _for_use(self, use: Use, task: Task, meta: JsonObject) -> Connection | None:
        opened = self._opener.connection_for(use, task.playbook, task.renames, meta)
        if opened is not None:
            self._used.add(opened.label)
        return opened

    def _instance(self, use: Use, task: Task) -> Any:
        info = self.host.module(use.uses)
        return info.cls(with_defaults(info.schema, use.template.render({"inputs": task.inputs})))

    def _context(self, connection: Connection | None, losses: Losses | None = None) -> Context:
        http = self._opener.wire(connection)
        return Context(http=http, connection=connection, stop=self._stop, losses=losses)

    def _spool_given_events(self, feeds: Sequence[Feed]) -> None:
        if self._events is None:
            return
        for feed in feeds:
            feed.spool(f"hand-{uuid.uuid4()}", self._events)
        self._events = ()

    def _follow(self, feeds: Sequence[Feed]) -> None:
        threads = [threading.Thread(target=feed.run, name=feed.label, daemon=True) for feed in feeds]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            for thread in threads:
                thread.join(0.05)
            for feed in feeds:
                if isinstance(feed.failure, StateError) and not self._failures:
                    self._fail(feed.failure)
        if not self._once and not self._failures:
            self._stop.wait()

    # --- the end ---------------------------------------------------------------------------------

    def _ended(self, feeds: Sequence[Feed], runs: RunStore, interrupted: bool, began: float) -> Ended:
        waiting = self._waiting(runs)
        failed = any(
            feed.failure is not None and not isinstance(feed.failure, BlockedError) for feed in feeds
        )
        failed = failed or any(self.figures[name] for name in _FAILING)
        failed = self._still_quarantined(feeds, FeedStore(runs.database)) or failed
        blocked = bool(waiting) or any(
            isinstance(feed.failure, BlockedError) or any(one.pause.blocked for one in feed.subscribers)
            for feed in feeds
        )
        left = self._left(runs) if self._once and not interrupted else []
        for identity in left:
            self.figures.notice(f"run {identity}", f"run {identity} has not ended; start again to go on")
        code = 130 if interrupted else 1 if failed or left else 3 if blocked else 0
        figures = self.figures.to_dict()
        figures["runs_waiting"] = len(waiting)
        invocation = Invocation(self.name, tuple(sorted(self._used)), code == 0, figures)
        lines = [
            line
            for answer in self.host.hook.counterplay_invocation_finished(invocation=invocation)
            for line in answer or ()
        ]
        return Ended(
            exit_code=code,
            figures=figures,
            notices=self.figures.notices,
            runs={"waiting": waiting},
            changed=_changed(runs.effects_since(self._began)),
            lines=tuple(lines),
            seconds=time.monotonic() - began,
        )

    def _waiting(self, runs: RunStore) -> list[str]:
        """Runs of these playbooks that wait; those of others, which this worker serves too, are told only.

        Without a playbook (a plan that is carried out, an undo) all are its own.
        """
        waiting = runs.playbooks_of("waiting", "blocked")
        own = {task.playbook.name for task in self._tasks} or {playbook for _, playbook in waiting}
        others = sorted({playbook for _, playbook in waiting} - own)
        if others:
            count = sum(playbook not in own for _, playbook in waiting)
            self.figures.notice(
                "runs of other playbooks",
                f"{count:,} run{' of another playbook waits' if count == 1 else 's of other playbooks wait'} "
                f"({', '.join(others[:3])}{' and more' if len(others) > 3 else ''}): `playbook runs list`",
            )
        return [identity for identity, playbook in waiting if playbook in own]

    def _still_quarantined(self, feeds: Sequence[Feed], store: FeedStore) -> bool:
        """Units that are set aside until somebody tries them again, whichever invocation set them aside.

        Events that were given by hand are the business of the invocation that they were given to.
        """
        found = False
        for feed in feeds:
            if isinstance(feed.trigger, HandTrigger):
                continue
            aside = store.set_aside_of([feed.feed_id])
            count = sum(status == "quarantined" for _, status, _ in aside)
            if count:
                found = True
                text = "1 unit is quarantined" if count == 1 else f"{count:,} units are quarantined"
                self.figures.notice(
                    f"quarantine {feed.label}",
                    f"{feed.label}: {text}: see `playbook ledger gaps`; `playbook ledger retry` tries again",
                )
        return found

    def _left(self, runs: RunStore) -> list[str]:
        """Runs that should have ended and have not; other workers' own are none of ours."""
        if runs.database.sqlite:
            return [identity for identity, _ in runs.with_status("running", "queued")]
        return runs.any_open(self._added)


_FAILING = ("runs_failed", "effects_not_held", "broken", "quarantined", "lost", "gaps", "dead_letters")


def _changed(effects: Sequence[StoredEffect]) -> dict[str, list[str]]:
    """What was done, by whom or what it was done to, as people call them."""
    names = {one.target: one.subject for one in effects if one.subject and one.subject != one.target}
    found: dict[str, list[str]] = {}
    for one in effects:
        if one.status == "done":
            found.setdefault(names.get(one.target) or one.target or one.connection, []).append(one.uses)
    return found


class HandTrigger(Trigger):
    """Events that somebody gave by hand: each invocation is a new occurrence, whatever they hold."""

    name = "by_hand"

    def __init__(self, instead_of: Trigger) -> None:
        super().__init__(instead_of.arguments)


def _expanded(schema: JsonObject, arguments: JsonObject) -> list[JsonObject]:
    """The arguments once for each element of the argument that says `x-feed-key: each`."""
    for name, described in schema.get("properties", {}).items():
        if described.get("x-feed-key") == "each" and isinstance(arguments.get(name), list):
            return [{**arguments, name: [element]} for element in arguments[name]]
    return [arguments]


def _is_key(schema: JsonObject, name: str) -> bool:
    """Does the argument tell sources apart? All do but two, unless the schema says otherwise."""
    described = schema.get("properties", {}).get(name, {})
    return name not in ("poll_interval", "look_back") and described.get("x-feed-key") is not False
