"""A store that can only be read: its audit log is checked all the same, or the error says what it takes."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from counterplay.errors import StateError
from counterplay.store.reading import readable_database

GREET = """
name: greet
description: It writes what it gets.
trigger: {uses: std.manual}
steps: []
sinks: [{uses: std.jsonl, with: {path: out.jsonl}}]
"""


@pytest.fixture
def state(desk: Any) -> Path:
    """The folder with the state file of a workspace in which something ran."""
    desk.write("playbooks/greet.yaml", GREET)
    desk.write("event.json", "{}")
    assert desk.playbook("run", "greet", "--event", "event.json").code == 0
    return Path(desk.root / ".counterplay")


@pytest.fixture
def in_the_log(desk: Any, state: Path) -> Iterator[Path]:
    """The same in the middle of work: what was committed last stands in the log beside the file."""
    with closing(sqlite3.connect(state / "state.db")) as reader:
        reader.execute("SELECT count(*) FROM cp_audit").fetchall()  # who ends last would empty the log
        assert desk.playbook("run", "greet", "--event", "event.json").code == 0
        assert (state / "state.db-wal").stat().st_size > 0
        yield state


def locked(state: Path) -> dict[str, bytes]:
    """Take the right to write from the folder and all in it; what it holds."""
    for file in (*state.iterdir(), state):
        file.chmod(file.stat().st_mode & 0o555)
    return {file.name: file.read_bytes() for file in state.iterdir() if file.suffix != ".db-shm"}


def played(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command as a process that permissions bind, also where the tests run as root."""
    bound: list[str] = []
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root may write everywhere")
        bound = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
    return subprocess.run(
        [*bound, sys.executable, "-m", "counterplay", *words], cwd=root, capture_output=True, text=True
    )


def entries(root: Path) -> int:
    """How many entries the whole log of a store has, as its owner sees it."""
    with closing(sqlite3.connect(root / ".counterplay" / "state.db")) as database:
        return int(database.execute("SELECT count(*) FROM cp_audit").fetchone()[0])


def test_a_store_at_rest_is_verified_and_nothing_is_written(desk: Any, state: Path) -> None:
    """Neither the file nor its folder: an auditor's account leaves no file that a worker cannot write."""
    count = entries(desk.root)
    before = locked(state)

    said = played(desk.root, "audit", "verify", "--json")

    assert said.returncode == 0, said.stderr
    assert (json.loads(said.stdout)["entries"], json.loads(said.stdout)["flaws"]) == (count, [])
    assert locked(state) == before
    exported = played(desk.root, "audit", "export")
    assert exported.stdout.count("\n") == count


def test_a_store_at_work_is_verified_with_what_was_committed_last(desk: Any, in_the_log: Path) -> None:
    """The end of the chain stands in the log beside the file."""
    count = entries(desk.root)
    locked(in_the_log)

    said = played(desk.root, "audit", "verify", "--json")

    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout)["entries"] == count


def test_a_log_that_cannot_be_read_is_told_and_not_left_out(desk: Any, in_the_log: Path) -> None:
    """A copy without the index: to leave the log out would show an older end as the true one."""
    copy = desk.root / "copy"
    copy.mkdir()
    for name in ("state.db", "state.db-wal"):
        shutil.copy(in_the_log / name, copy / name)
    desk.write("counterplay.yaml", "store: sqlite:///copy/state.db\n")
    locked(copy)

    said = played(desk.root, "audit", "verify")

    assert (said.returncode, said.stdout) == (1, "")
    assert said.stderr == (
        f"error: {copy}/state.db can only be read, and the last of what was written to it stands in "
        "state.db-wal, which takes state.db-shm to be read; copy it with all files of its name into a "
        "folder that can be written, and look there\n"
    )


def test_a_store_of_another_version_that_can_only_be_read_is_told(desk: Any, state: Path) -> None:
    """Nothing can bring its tables up to date."""
    with closing(sqlite3.connect(state / "state.db", isolation_level=None)) as database:
        database.execute("UPDATE cp_schema_version SET version_num = '0003'")
    locked(state)

    said = played(desk.root, "audit", "verify")

    assert said.returncode == 1
    assert "is of another version (schema 0003, this one knows" in said.stderr
    assert "and can only be read; use that version of counterplay" in said.stderr


def test_who_writes_meanwhile_makes_the_answer_void(
    desk: Any, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is read without a lock may change under the reader."""
    monkeypatch.setattr(os, "access", lambda *_args, **_rest: False)  # the tests may run as root
    with (
        pytest.raises(StateError, match=r"state\.db: somebody wrote it while it was read; try again"),
        readable_database(f"sqlite:///{state / 'state.db'}"),
        closing(sqlite3.connect(state / "state.db", isolation_level=None)) as writer,
    ):
        writer.execute("CREATE TABLE new (a)")
