"""Sessions in this process: a workspace, the lab plugin, and a third party's plugin with its service."""

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import yaml

from counterplay.clock import now
from counterplay.engine import dbos_engine
from counterplay.language import Playbook, load_text
from counterplay.plugins import PluginHost
from counterplay.runtime import dispatch, feeds, outcomes, reception
from counterplay.runtime.opening import Opener
from counterplay.runtime.session import Ended, Session, Task
from counterplay.store.database import Database, open_database
from counterplay.store.runs import RunStore
from counterplay.workspace import Workspace

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
PATHS = [str(Path(__file__).parent / "lab"), str(FIXTURES), str(FIXTURES / "acme_plugin" / "src")]
PLUGINS = {"lab": "lab_plugin", "acme": "acme_counterplay", "std": "counterplay_std"}


@pytest.fixture(scope="module")
def host() -> Iterator[PluginHost]:
    """The plugins, importable for these tests only."""
    sys.path[:0] = PATHS
    yield PluginHost.load([EntryPoint(name, module, "counterplay") for name, module in PLUGINS.items()])
    for entry in PATHS:
        sys.path.remove(entry)
    for name in [name for name in sys.modules if name.partition(".")[0].startswith(("acme_", "lab_plugin"))]:
        del sys.modules[name]


@pytest.fixture
def lab(host: PluginHost) -> Any:
    """What the lab's modules answer; fresh for each test."""
    import lab_plugin

    lab_plugin.LAB = lab_plugin.Lab()
    return lab_plugin.LAB


@pytest.fixture
def acme(host: PluginHost) -> Iterator[Any]:
    """A running Acme with one open ticket."""
    from acme_service import AcmeService

    with AcmeService() as running:
        running.tickets["T-1"] = "open"
        yield running


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes seconds in service takes moments here."""
    monkeypatch.setattr(outcomes, "PATIENCE", 0.05)
    monkeypatch.setattr(dispatch, "SWEEP", 0.05)
    monkeypatch.setattr(dbos_engine, "LISTENER_INTERVAL", 0.01)
    monkeypatch.setattr(feeds, "_LONGEST_DELAY", 0.05)
    monkeypatch.setattr(reception, "LONGEST_DELAY", 0.05)


@dataclass
class Bench:
    """A workspace and the sessions that are run in it, one after the other."""

    root: Path
    host: PluginHost
    config: dict[str, Any] = field(default_factory=dict)

    def playbook(self, name: str, **rest: Any) -> Playbook:
        """A checked playbook; `trigger` and the like as in YAML."""
        document = {"name": name, "description": "A test.", "steps": [], **rest}
        found = load_text(yaml.safe_dump(document).encode(), f"{name}.yaml", self.host, None)
        assert isinstance(found, Playbook)
        return found

    def run(
        self,
        *playbooks: Playbook,
        events: Sequence[bytes] | None = None,
        stop: threading.Event | None = None,
        once: bool = True,
        metrics_at: str | None = None,
    ) -> Ended:
        """One session, to its end."""
        self.root.mkdir(exist_ok=True)
        (self.root / "counterplay.yaml").write_text(
            yaml.safe_dump(self.config) if self.config else "# empty\n"
        )
        stop = stop or threading.Event()
        opener = Opener(Workspace(self.host, self.root), stop)
        tasks = [Task(one, one.inputs_from({})) for one in playbooks]
        session = Session(
            opener, playbooks[0].name, tasks, once=once, stop=stop, events=events, metrics_at=metrics_at
        )
        return session.run()

    @contextmanager
    def store(self) -> Iterator[Database]:
        """What the sessions left on disk."""
        database = open_database(f"sqlite:///{self.root / '.counterplay' / 'state.db'}")
        try:
            yield database
        finally:
            database.close()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with self.store() as database, database.read() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(query)]

    def runs(self) -> list[Any]:
        with self.store() as database:
            return RunStore(database).newest(playbook=None, status=None, limit=50)

    def steps(self, run: str) -> dict[str, Any]:
        with self.store() as database:
            return {one.step_id: one for one in RunStore(database).steps(run)}

    def effects(self, run: str) -> list[Any]:
        with self.store() as database:
            return RunStore(database).effects(run)


@pytest.fixture
def bench(tmp_path: Path, host: PluginHost, lab: Any) -> Bench:
    return Bench(tmp_path / "work", host)


@pytest.fixture
def put(lab: Any) -> Callable[..., datetime]:
    """Put a unit into the lab's source: `put("u1", body, ...)`, one answer a fetch, the last for ever."""

    def _put(name: str, *answers: Any, minutes_ago: float = 90) -> datetime:
        at = now() - timedelta(minutes=minutes_ago)
        lab.units[name] = (at, list(answers))
        return at

    return _put
