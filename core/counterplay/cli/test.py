"""`playbook test`: what playbooks do in given circumstances, tried offline."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from counterplay.cli.output import counted, json_option, print_json
from counterplay.errors import ConfigError

if TYPE_CHECKING:
    from counterplay.cases.coverage import Coverage
    from counterplay.cases.model import Case, TestFile
    from counterplay.cases.runner import Bench, Verdict
    from counterplay.language.findings import Finding

_LOOK = 0.5
"""Seconds between two looks at the files in watch mode."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """What the command line asks for."""

    names: tuple[str, ...]
    everything: bool
    words: tuple[str, ...]
    jobs: int
    coverage: bool
    fail_under: float


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of one round."""

    verdicts: tuple[Verdict, ...]
    findings: tuple[Finding, ...]
    coverage: tuple[Coverage, ...]
    seconds: float
    enough: bool

    @property
    def exit_code(self) -> int:
        if self.findings:
            return 2
        return 1 if any(one.wrong for one in self.verdicts) or not self.enough else 0


@click.command()
@click.argument("names", nargs=-1, metavar="[PLAYBOOK|FILE]...")
@click.option("--all", "everything", is_flag=True, help="Run the shipped tests besides the workspace's.")
@click.option("-k", "words", multiple=True, metavar="WORD", help="Only cases that have WORD in their name.")
@click.option("--coverage", is_flag=True, help="Show which branches of each playbook no case takes.")
@click.option(
    "--fail-under",
    type=click.FloatRange(0, 100),
    default=0.0,
    metavar="PERCENT",
    help="Exit 1 when fewer of all branches are taken (implies --coverage).",
)
@click.option("--junit", "junit_file", metavar="FILE", help="Write the results as JUnit XML, too.")
@click.option("--watch", is_flag=True, help="Run again whenever a playbook or a test changes, until Ctrl-C.")
@click.option(
    "-j",
    "--jobs",
    type=click.IntRange(1),
    default=lambda: os.cpu_count() or 1,
    help="How many cases are tried at once.  [default: one a processor]",
)
@json_option
def test(
    names: tuple[str, ...],
    everything: bool,
    words: tuple[str, ...],
    coverage: bool,
    fail_under: float,
    junit_file: str | None,
    watch: bool,
    jobs: int,
    as_json: bool,
) -> None:
    """Run the tests of playbooks, `playbooks/tests/*.yaml`: offline, in an empty store and their own time.

    Without a name it runs the workspace's tests, or the shipped ones where there are none. A PLAYBOOK is
    tested by all files that name it.

    Exits 0 when every case passes, 1 when one does not, 2 when a test file is wrong or no case is chosen.
    """
    chosen = Chosen(names, everything, words, jobs, coverage or fail_under > 0, fail_under)
    while True:
        before = _stamps(names) if watch else {}  # what changes while the cases run is seen, too
        try:
            tried = _tried(chosen, quiet=as_json)
        except ConfigError as error:
            if not watch:
                raise
            click.echo(str(error), err=True)  # a file that is not there now may be so in a moment
        else:
            if junit_file is not None:
                from counterplay.cases.junit import junit

                Path(junit_file).write_bytes(junit(tried.verdicts, tried.findings))
            _print_json(tried) if as_json else _print_summary(tried)
            if not watch:
                sys.exit(tried.exit_code)
        while _stamps(names) == before:
            time.sleep(_LOOK)


def _tried(chosen: Chosen, *, quiet: bool) -> Tried:
    from counterplay.cases.runner import Bench
    from counterplay.cli.loading import open_workspace

    with Bench(open_workspace()) as bench:
        return _tried_on(bench, chosen, quiet=quiet)


def _tried_on(bench: Bench, chosen: Chosen, *, quiet: bool) -> Tried:
    from counterplay.cases.runner import run_cases
    from counterplay.language import PlaybookError

    began = time.monotonic()
    files: dict[Path | Traversable, TestFile] = {}
    findings: list[Finding] = []
    for path in _paths(bench, chosen):
        try:
            file = bench.read(path)
        except PlaybookError as error:
            if _is_named(chosen.names, path, None) or bench.may_be_about(path, chosen.names):
                findings += error.findings
            continue
        if _is_named(chosen.names, path, file):
            files[path] = file
    _no_stray_names(chosen, files, findings)
    for finding in findings if not quiet else ():
        click.echo(str(finding))
    words = [word.casefold() for word in chosen.words]

    def wanted(case: Case) -> bool:
        return all(word in case.name.casefold() for word in words)

    cases = [case for file in files.values() for case in file.cases]
    if cases and not findings and not any(map(wanted, cases)):
        said = " and ".join(map(repr, chosen.words))
        raise ConfigError(f"no case has {said} in its name", hint="`playbook test` without -k shows them all")
    verdicts: list[Verdict] = []
    for verdict in run_cases(bench, files, wanted, chosen.jobs):
        verdicts.append(verdict)
        if not quiet:
            _print_verdict(verdict)
    verdicts.sort(key=lambda one: (one.file, one.line))
    covered = tuple(_covered(bench, chosen, files, verdicts)) if chosen.coverage else ()
    from counterplay.cases.coverage import whole

    enough = not chosen.coverage or whole(covered) >= chosen.fail_under
    return Tried(tuple(verdicts), tuple(findings), covered, time.monotonic() - began, enough)


def _paths(bench: Bench, chosen: Chosen) -> Iterator[Path | Traversable]:
    """Files that are named, and the folders' files when a playbook is named or nothing is."""
    from counterplay.cases.runner import case_files

    for name in filter(_is_file, chosen.names):
        if not Path(name).is_file():
            raise ConfigError("there is no such file", path=name)
        yield Path(name)
    if not chosen.names or not all(map(_is_file, chosen.names)):
        yield from case_files(bench.workspace, everything=chosen.everything or bool(chosen.names))


def _is_file(name: str) -> bool:
    return name.endswith((".yaml", ".yml")) or os.sep in name


def _is_named(names: Sequence[str], path: Path | Traversable, file: TestFile | None) -> bool:
    if not names or str(path) in names:
        return True
    return path.name.rpartition(".")[0] in names or (file is not None and file.playbook in names)


def _no_stray_names(
    chosen: Chosen, files: dict[Path | Traversable, TestFile], findings: Collection[Finding]
) -> None:
    for name in chosen.names:
        known = any(_is_named((name,), path, file) for path, file in files.items())
        if not known and not findings:
            raise ConfigError(
                f"no test is about a playbook {name!r}",
                hint=f"write one in playbooks/tests/{name}.yaml, or begin with `playbook new`",
            )


def _covered(
    bench: Bench,
    chosen: Chosen,
    files: dict[Path | Traversable, TestFile],
    verdicts: Sequence[Verdict],
) -> Iterator[Coverage]:
    """The tested playbooks, and without names those that have no test at all."""
    from counterplay.cases.coverage import coverage_of
    from counterplay.language import Playbook
    from counterplay.workspace import shown

    facts = frozenset(fact for one in verdicts for fact in one.facts)
    names = {file.playbook: path for path, file in files.items()}
    if not chosen.names:
        workspace = bench.workspace
        own = workspace.own_playbooks()
        for name in own if own and not chosen.everything else workspace.playbooks():
            names.setdefault(name, Path("."))
    for name, beside in sorted(names.items()):
        playbook = bench.find(name, beside)
        if not isinstance(playbook, Playbook):
            continue  # a set has no branches of its own
        path = bench.file_of(name, beside)
        yield coverage_of(playbook, path.read_bytes(), str(shown(path)), bench.host, facts)


def _print_verdict(one: Verdict) -> None:
    if not one.wrong:
        click.echo(f"{click.style('pass', fg='green')}  {one.playbook}: {one.case}")
        return
    click.echo(f"{click.style('FAIL', fg='red')}  {one.playbook}: {one.case}  ({one.file}:{one.line})")
    for text in one.wrong:
        click.echo(f"      {text}")


def _print_summary(tried: Tried) -> None:
    for one in tried.coverage:
        share = f"{one.taken} of {one.branches} branches"
        click.echo(f"{one.playbook:<40} {share}{'' if one.missing else '  complete'}")
        for missing in one.missing:
            click.echo(f"      {missing}")
    failed = sum(bool(one.wrong) for one in tried.verdicts)
    files = len({finding.path for finding in tried.findings})
    text = f"{counted(len(tried.verdicts), 'case')} in {tried.seconds:.1f} s, {failed} failed"
    if files:
        text += f"; {files} file{'s' if files != 1 else ''} could not be used"
    if not tried.enough:
        text += "; the coverage is too low"
    click.echo(text)


def _print_json(tried: Tried) -> None:
    print_json(
        {
            "seconds": round(tried.seconds, 3),
            "cases": [
                {
                    "file": one.file,
                    "line": one.line,
                    "playbook": one.playbook,
                    "case": one.case,
                    "passed": not one.wrong,
                    "wrong": list(one.wrong),
                    "seconds": round(one.seconds, 3),
                }
                for one in tried.verdicts
            ],
            "findings": [
                {"file": one.path, "line": one.line, "column": one.column, "message": one.message}
                for one in tried.findings
            ],
            "coverage": [
                {
                    "playbook": one.playbook,
                    "branches": one.branches,
                    "taken": one.taken,
                    "missing": [str(missing) for missing in one.missing],
                }
                for one in tried.coverage
            ],
        }
    )


def _stamps(names: Sequence[str]) -> dict[Path, tuple[int, int]]:
    """When each playbook and each test was changed, those files included that are named."""
    from counterplay._data_files import shipped_playbooks
    from counterplay.places import find_root

    root = find_root()
    folder = root / "playbooks" if root is not None else Path(str(shipped_playbooks()))
    found = {}
    for file in {*folder.rglob("*.y*ml"), *(Path(name).resolve() for name in names if _is_file(name))}:
        try:
            about = file.stat()
        except OSError:
            continue  # it is just being replaced
        found[file] = (about.st_mtime_ns, about.st_size)
    return found
