"""One module on a bench: a host, a workspace in a folder, watched wires, and shorthand to see it at work."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from counterplay.engine import dbos_engine
from counterplay.errors import CounterplayError
from counterplay.events import JsonObject
from counterplay.hookspecs import ConnectionOffer
from counterplay.language import Playbook, from_document, with_defaults
from counterplay.modules import Connection, Module, StepContext
from counterplay.places import STATE
from counterplay.plugins import ModuleInfo, PluginHost
from counterplay.runtime.planning import Planner
from counterplay.runtime.plans import Plan
from counterplay.runtime.session import Ended, Session, Task
from counterplay.runtime.undo import prospects, undo_run
from counterplay.secrets import MaskingFilter
from counterplay.store.database import open_database
from counterplay.store.runs import NewRun, RunStore, StoredEffect, StoredRun, StoredStep
from counterplay.testing.bench import CONNECTION, Bench, Example
from counterplay.testing.watch import Watch, WatchedOpener
from counterplay.workspace import Workspace

__all__ = ["Ran", "Stage"]


@cache
def _empty_store() -> bytes:
    """A new store's file, migrated once for all stages."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.db"
        open_database(f"sqlite:///{path}").close()
        return path.read_bytes()


def _put_store(path: Path) -> None:
    if not path.exists():
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.touch(mode=0o600)
        path.write_bytes(_empty_store())


class _Impatient(threading.Event):
    """For modules that wait between requests: nobody waits long here."""

    def wait(self, timeout: float | None = None) -> bool:
        return super().wait(0.01 if timeout is None else min(timeout, 0.01))


class _BenchWorkspace(Workspace):
    """A workspace that has the bench's connections, and no others."""

    def __init__(self, host: PluginHost, root: Path, bench: Bench) -> None:
        super().__init__(host, root)
        self._bench = bench

    @property
    def offers(self) -> dict[tuple[str, str], ConnectionOffer]:
        return {
            (CONNECTION, kind): ConnectionOffer(CONNECTION, kind, partial(dict, settings))
            for kind, settings in self._bench.connections.items()
        }


@dataclass(frozen=True, slots=True)
class Ran:
    """One run of one step: how the command would have ended, and what it left in the store."""

    ended: Ended
    run: StoredRun
    step: StoredStep | None
    effect: StoredEffect | None


class Stage:
    """The module `info` on a bench. `folder` becomes a workspace."""

    def __init__(self, host: PluginHost, info: ModuleInfo, bench: Bench, folder: Path) -> None:
        self.host = host
        self.info = info
        self.bench = bench
        self.folder = folder
        self._found: JsonObject = {}
        self.watch = Watch()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "counterplay.yaml").touch()
        _put_store(folder / STATE / "state.db")
        self.opener = WatchedOpener(_BenchWorkspace(host, folder, bench), self.watch)

    # --- the module by itself --------------------------------------------------------------------

    @property
    def example(self) -> Example:
        """How the module is used: the bench's example, or no arguments at all."""
        return self.bench.examples.get(self.info.uses, Example())

    @property
    def lacks(self) -> str | None:
        """What the bench would have to know to show this module at work; None when it can be shown."""
        kind = self.info.uses if self.info.kind == "connection" else self.info.cls.connection
        if kind is not None and kind not in self.bench.connections:
            return f"`connections` of the bench has no settings for {kind}"
        missing = set(self.info.schema.get("required", ())) - set(self.example.arguments)
        if missing and not self.example.first and self.info.kind != "connection":
            return f"`examples` of the bench gives no {', '.join(sorted(missing))} for {self.info.uses}"
        return None

    def module(self, uses: str | None = None, arguments: JsonObject | None = None) -> Any:
        """An instance, with the schema's defaults filled in."""
        info = self.host.module(uses or self.info.uses)
        given = self.arguments if arguments is None else arguments
        made: Module = info.cls(with_defaults(info.schema, dict(given)))
        return made

    def connection(self) -> Connection | None:
        """The bench's connection of the kind that the module needs, or that it is."""
        kind = self.info.uses if self.info.kind == "connection" else self.info.cls.connection
        return None if kind is None else self.opener.connection(CONNECTION, kind)

    @contextmanager
    def context(self) -> Iterator[StepContext]:
        """A context on a watched wire."""
        connection = self.connection()
        with self.opener.wire(connection) as http:
            yield StepContext(
                http=http,
                connection=connection,
                stop=_Impatient(),
                run_id="run",
                playbook="conformance",
                step_id="act",
            )

    # --- the module in a playbook ------------------------------------------------------------------

    def playbook(self, uses: str, arguments: JsonObject, name: str = "conformance") -> Playbook:
        """A playbook started by hand, with one step."""
        kind = self.host.module(uses).cls.connection
        # Arguments go through the event, as in an undo: in the document their texts would be templates.
        step: JsonObject = {
            "id": "act",
            "uses": uses,
            "with": {key: "{{ " + f'event["{key}"]' + " }}" for key in arguments},
        }
        if kind is not None:
            step["connection"] = CONNECTION
        document = {"name": name, "trigger": {"uses": "std.manual"}, "steps": [step]}
        return from_document(document, self.host)

    @property
    def arguments(self) -> JsonObject:
        """What the example gives the module; `prepare` may have to find it out first."""
        return dict(self.example.arguments or self._found)

    def prepare(self) -> None:
        """Bring the service into the state in which the module has something to do."""
        for uses, arguments in self.example.first:
            ran = self.run(uses, arguments)
            if ran.run.status != "succeeded" or ran.effect is None:
                raise AssertionError(f"`first` of the example: {uses} failed: {ran.run.error}")
            back = prospects(self.host, [ran.effect])[0].inverse
            if back is not None and back.uses == self.info.uses:
                self._found = back.arguments

    def plan(self) -> Plan:
        """What a run of the module would do."""
        from counterplay.events import Event, encoded

        playbook = self.playbook(self.info.uses, self.arguments)
        connection = self.connection()
        meta = {"connection": connection.label} if connection is not None else {}
        planner = Planner(self.opener, playbook, {}, {}, database=None)
        return planner.plan(
            Event(encoded(self.arguments), meta), connection.tenant if connection else "local"
        )

    def run(self, uses: str | None = None, arguments: JsonObject | None = None) -> Ran:
        """Run one step, as `playbook run` does."""
        from counterplay.events import encoded

        given = self.arguments if arguments is None else arguments
        playbook = self.playbook(uses or self.info.uses, given)
        task = Task(playbook, {})
        ended = self._session([task], [encoded(given)])
        (run, *_) = self.runs()
        return self._ran(ended, run)

    def undo(self, ran: Ran) -> tuple[str | None, Ran | None]:
        """Take the run's effect back: why that cannot be done, or the run that did it."""
        assert ran.effect is not None
        (prospect,) = prospects(self.host, [ran.effect])
        if prospect.inverse is None:
            return prospect.why, None
        made = undo_run(ran.run, [prospect], force=False, by="the kit")
        self.add(made)
        ended = self._session([], None)
        with closing(open_database(self.opener.workspace.store_url)) as database:
            run = RunStore(database).get(made.id)
        assert run is not None
        return None, self._ran(ended, run)

    def add(self, made: NewRun) -> None:
        """Put a run into the store; whoever works next carries it out."""
        store = closing(open_database(self.opener.workspace.store_url))
        with store as database, database.write() as connection:
            RunStore(database).add(connection, [made])

    def runs(self) -> list[StoredRun]:
        """The runs in the store, newest first."""
        with closing(open_database(self.opener.workspace.store_url)) as database:
            return RunStore(database).newest(playbook=None, status=None, limit=20)

    def _ran(self, ended: Ended, run: StoredRun) -> Ran:
        with closing(open_database(self.opener.workspace.store_url)) as database:
            store = RunStore(database)
            steps, effects = store.steps(run.id), store.effects(run.id)
        return Ran(ended, run, steps[0] if steps else None, effects[0] if effects else None)

    def _session(self, tasks: Sequence[Task], events: Sequence[bytes] | None) -> Ended:
        stop = threading.Event()
        opener = WatchedOpener(self.opener.workspace, self.watch, stop)
        session = Session(opener, "conformance", tasks, once=True, stop=stop, events=events)
        before = dbos_engine.LISTENER_INTERVAL
        dbos_engine.LISTENER_INTERVAL = 0.01  # what takes a second in service takes a moment here
        try:
            return session.run()
        finally:
            dbos_engine.LISTENER_INTERVAL = before

    # --- what it said ------------------------------------------------------------------------------

    def said(self, error: BaseException) -> str:
        """An error as the host would show it, secrets masked."""
        text = str(error) if isinstance(error, CounterplayError) else f"{type(error).__name__}: {error}"
        return self.opener.secrets.mask(text)

    @property
    def masking(self) -> MaskingFilter:
        """The filter that stands before everything that is logged."""
        return MaskingFilter(self.opener.secrets)

    def secrets(self) -> dict[str, str]:
        """The bench's secrets by the name of their setting."""
        found: dict[str, str] = {}
        for kind, settings in self.bench.connections.items():
            described = self.host.module(kind).schema.get("properties", {})
            for key, value in settings.items():
                if described.get(key, {}).get("writeOnly") and isinstance(value, str):
                    found[f"{kind}.{key}"] = value
        return found
