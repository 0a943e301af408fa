"""Where a case is played: a store of its own, connections that lead nowhere or to a simulated tenant."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Collection, Sequence
from contextlib import closing
from datetime import timedelta
from functools import cached_property
from importlib.resources.abc import Traversable
from pathlib import Path
from tempfile import TemporaryDirectory

from counterplay.cases.clock import CaseClock
from counterplay.cases.examples import example_of
from counterplay.cases.model import Answer, Given
from counterplay.cases.stand_ins import CaseHost, OfflineWire, stand_in_connection
from counterplay.errors import ConfigError, RetryableError
from counterplay.events import JsonObject
from counterplay.hookspecs import ConnectionOffer, Simulation
from counterplay.language import with_defaults
from counterplay.modules import Connection, StepContext
from counterplay.runtime.opening import Opener
from counterplay.runtime.terms import planned_name
from counterplay.store.database import Database, open_database
from counterplay.store.runs import RunStore
from counterplay.store.watches import Watch
from counterplay.wire import Wire
from counterplay.workspace import ConnectionEntry, Workspace

_SHM = Path("/dev/shm")


class CaseWorkspace(Workspace):
    """An empty workspace in a folder of its own, with the playbooks of the author's workspace."""

    def __init__(self, host: CaseHost, folder: Path, real: Workspace, given: Given) -> None:
        super().__init__(host, folder)
        self._real = real
        self._given = given

    @cached_property
    def config(self) -> JsonObject:
        return {"guardrails": self._given.guardrails, "internal": self._given.internal}

    @cached_property
    def entries(self) -> dict[str, ConnectionEntry]:
        return {}

    @cached_property
    def offers(self) -> dict[tuple[str, str], ConnectionOffer]:
        return {}

    def labelled(self, labels: Sequence[str], kind: str) -> Sequence[str]:
        return ["-".join(labels)]

    def playbooks(self) -> dict[str, Path | Traversable]:
        return self._real.playbooks()

    def playbook_file(self, name: str) -> Path | Traversable:
        return self._real.playbook_file(name)


class CaseOpener(Opener):
    """Opens stand-ins for connections, or the simulated ones."""

    def __init__(
        self, workspace: CaseWorkspace, stop: threading.Event, simulation: Simulation | None
    ) -> None:
        super().__init__(workspace, stop)
        self._simulation = simulation
        self._kinds: Collection[str] = simulation.kinds() if simulation is not None else ()

    def wire(self, connection: Connection | None, timeout: float | None = None) -> Wire:
        if connection is not None and self.simulated(connection):
            return super().wire(connection, timeout)
        return OfflineWire(connection, stop=self._stop, mask=self.secrets.mask, timeout=timeout)

    def simulated(self, connection: Connection) -> bool:
        return any(one is connection and kind in self._kinds for (_, kind), one in self._open.items())

    def _opened(self, name: str, kind: str) -> Connection:
        info = self.host.module(kind)
        cls = info.cls
        if not issubclass(cls, Connection):
            raise ConfigError(f"{kind} is not a connection")
        if self._simulation is not None and kind in self._kinds:
            settings = self._offered(self._simulation.settings(kind, name), kind)
        else:
            settings = example_of(info.schema)
            cls = stand_in_connection(cls)
        return cls(name, with_defaults(info.schema, settings), self.secrets)


class CaseStage:
    """The case that is played, as the stand-ins ask it."""

    def __init__(self, given: Given, runs: RunStore, clock: CaseClock) -> None:
        self._given = given
        self._runs = runs
        self._clock = clock
        self.records: dict[str, list[bytes]] = {}
        self.trouble: list[str] = []
        self.look: Watch | None = None
        """The later look that is being made."""
        self._names: dict[tuple[str, str], str] = {}

    def name(self, run_id: str, step_id: str) -> str:
        """What a step is called in a case: as in a plan."""
        key = (run_id, step_id)
        if key not in self._names:
            run = self._runs.get(run_id)
            self._names[key] = planned_name(run, step_id) if run is not None else step_id
        return self._names[key]

    def answer(self, context: StepContext) -> Answer | None:
        name = self.name(context.run_id, context.step_id)
        answers = self._given.answers.get(name) or self._given.answers.get(_plain(name))
        if answers is None:
            return None
        attempt = context.attempt if self.look is None else self._attempts(self.look)
        return answers[min(attempt, len(answers)) - 1]

    def _attempts(self, look: Watch) -> int:
        """The attempt that had the effect which is looked at: the last one."""
        return next(one.attempts for one in self._runs.steps(look.run_id) if one.step_id == look.step_id)

    def held(self, answer: Answer) -> bool | None:
        if self.look is None:
            return answer.verified
        shown = answer.looks.get(self.look.after, answer.verified)
        if isinstance(shown, str):
            raise RetryableError(shown)
        return shown

    def unanswered(self, context: StepContext, request: str) -> None:
        name = self.name(context.run_id, context.step_id)
        text = (
            f"the step {name} asks for {request}, and nothing answers: "
            f"give `answers: {{{name}: {{result: ...}}}}`, or simulate the services with `tenant: {{}}`"
        )
        if text not in self.trouble:
            self.trouble.append(text)

    def pass_time(self, by: timedelta) -> None:
        self._clock.advance(by)

    def take(self, uses: str, records: Sequence[bytes]) -> None:
        self.records.setdefault(uses, []).extend(records)


def _plain(name: str) -> str:
    """A step's name without the places of elements."""
    parts = [part.partition("[")[0] for part in name.split("/")]
    return "/".join(parts)


def folder() -> TemporaryDirectory[str]:
    """A folder for a case, in memory where the system has such a place."""
    return TemporaryDirectory(prefix="counterplay-case-", dir=_SHM if _SHM.is_dir() else None)


class CaseStore:
    """The store of one case after the other: emptied each time, opened once.

    What SQLAlchemy has compiled is kept with the engine, and takes longer than a case's own work.
    """

    def __init__(self) -> None:
        self._folder = folder()
        self._file = Path(self._folder.name) / "state.db"
        self.database = open_database(f"sqlite:///{self._file}")
        self._empty = sqlite3.connect(":memory:", check_same_thread=False)
        with closing(sqlite3.connect(self._file)) as made:
            made.backup(self._empty)

    def emptied(self) -> Database:
        """The database as it was when it was new."""
        with closing(sqlite3.connect(self._file)) as used:
            self._empty.backup(used)
        return self.database

    def close(self) -> None:
        """Delete it."""
        self.database.close()
        self._empty.close()
        self._folder.cleanup()
