"""Runs files of cases: each case by itself, on all processors, with what came of it and what it covers."""

from __future__ import annotations

import multiprocessing.util
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path

from counterplay._data_files import shipped_playbooks
from counterplay.cases.compare import differences
from counterplay.cases.model import Case, TestFile
from counterplay.cases.play import play
from counterplay.cases.read import named_playbook, read_cases
from counterplay.cases.seen import Fact, Seen
from counterplay.cases.stage import CaseStore
from counterplay.cases.stand_ins import CaseHost
from counterplay.errors import CounterplayError
from counterplay.language import Playbook, PlaybookSet, load
from counterplay.workspace import Workspace, shown

FEW = 4
"""Up to so many cases are played in this process: starting others takes longer."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of one case: nothing in `wrong` means that it passed."""

    file: str
    playbook: str
    case: str
    line: int
    seconds: float
    wrong: tuple[str, ...]
    facts: frozenset[Fact]


class Bench:
    """What cases are played with: the workspace's plugins with stand-ins, its playbooks, and a store.

    `close` it, or use it as a context manager.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.host = CaseHost(workspace.host)
        self._playbooks: dict[str, Playbook | PlaybookSet] = {}
        self._store: CaseStore | None = None

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Delete the store, if there was need of one."""
        if self._store is not None:
            self._store.close()
            self._store = None

    def play(self, case: Case, playbook: Playbook) -> Seen:
        """What comes of a case."""
        if self._store is None:
            self._store = CaseStore()
        return play(case, playbook, self.host, self.workspace, self._store)

    def find(self, name: str, beside: Path | Traversable | None = None) -> Playbook | PlaybookSet:
        """A playbook by name, or by its file relative to the file of cases that names it."""
        file = self.file_of(name, beside)
        key = str(file)
        if key not in self._playbooks:
            self._playbooks[key] = load(shown(file), self.workspace.host, None)
        return self._playbooks[key]

    def file_of(self, name: str, beside: Path | Traversable | None = None) -> Path | Traversable:
        """The file of a playbook that a file of cases names. ConfigError: there is none."""
        if name.endswith((".yaml", ".yml")) and isinstance(beside, Path):
            name = str(shown(beside.parent / name))
        return self.workspace.playbook_file(name)

    def read(self, path: Path | Traversable) -> TestFile:
        """A file of cases, checked. PlaybookError: everything that is wrong with it."""
        return read_cases(path, str(shown(path)), self.workspace.host, lambda name: self.find(name, path))

    def may_be_about(self, path: Path | Traversable, names: Sequence[str]) -> bool:
        """Whether a file that is wrong may hold cases of these: it names one, or none that there is."""
        try:
            about = named_playbook(path)
            self.file_of(about, path)
        except CounterplayError:
            return True
        return about in names

    def try_case(self, path: Path | Traversable, file: TestFile, case: Case) -> Verdict:
        """Play a case, and hold what came of it against what it expects."""
        began = time.perf_counter()
        facts: frozenset[Fact] = frozenset()
        try:
            playbook = self.find(file.playbook, path)
            assert isinstance(playbook, Playbook)
            seen = self.play(case, playbook)
            wrong, facts = differences(case.expect, seen), seen.facts
        except CounterplayError as error:
            wrong = [str(error)]
        seconds = time.perf_counter() - began
        return Verdict(file.path, file.playbook, case.name, case.line, seconds, tuple(wrong), facts)


def run_cases(
    bench: Bench,
    files: Mapping[Path | Traversable, TestFile],
    wanted: Callable[[Case], bool],
    jobs: int,
) -> Iterator[Verdict]:
    """The verdicts as they come in."""
    work = [(path, file, case) for path, file in files.items() for case in file.cases if wanted(case)]
    if jobs == 1 or len(work) <= FEW:
        for path, file, case in work:
            yield bench.try_case(path, file, case)
        return
    yield from _in_parallel(bench, work, min(jobs, len(work)))


def _in_parallel(
    bench: Bench, work: Sequence[tuple[Path | Traversable, TestFile, Case]], jobs: int
) -> Iterator[Verdict]:
    global _bench
    # A fork has everything imported; where it is not safe, each process imports for itself.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    _bench = bench if context.get_start_method() == "fork" else None
    with ProcessPoolExecutor(jobs, context, _begin, (str(Path.cwd()),)) as pool:
        futures: list[Future[Verdict]] = [pool.submit(_try, *one) for one in work]
        for future in as_completed(futures):
            yield future.result()
    _bench = None


_bench: Bench | None = None


def _begin(folder: str) -> None:
    global _bench
    os.chdir(folder)
    if _bench is None:
        from counterplay.plugins import PluginHost

        _bench = Bench(Workspace(PluginHost.load()))
    multiprocessing.util.Finalize(None, _bench.close, exitpriority=10)  # such processes skip `atexit`


def _try(path: Path | Traversable, file: TestFile, case: Case) -> Verdict:
    assert _bench is not None
    return _bench.try_case(path, file, case)


def case_files(workspace: Workspace, *, everything: bool = False) -> list[Path | Traversable]:
    """The workspace's files of cases; the shipped ones where it has none, or with `everything` too.

    A playbook of the workspace may have the name of a shipped one, whose cases are about other steps then.
    """
    own = _files_in(workspace.root / "playbooks" / "tests") if workspace.root else []
    names = {file.name for file in own} | {file.name for file in workspace.own_playbooks().values()}
    shipped = [file for file in _files_in(shipped_playbooks() / "tests") if file.name not in names]
    return [*own, *shipped] if everything or not own else own


def _files_in(folder: Path | Traversable) -> list[Path | Traversable]:
    if not folder.is_dir():
        return []
    files = [file for file in folder.iterdir() if file.name.endswith((".yaml", ".yml")) and file.is_file()]
    return sorted(files, key=lambda file: file.name)
