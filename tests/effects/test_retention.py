"""Retention as people set it: what `playbook store prune` deletes, and what the commands say afterwards."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from counterplay.errors import ConfigError

LONG_AGO = "2020-01-02T03:04:05.000000Z"


def age(bench: Any) -> None:
    """All runs, and the engine's rows of them, are years old."""
    with closing(sqlite3.connect(bench.root / ".counterplay" / "state.db")) as database, database:
        database.execute("UPDATE cp_run SET created = ?, ended = ?", (LONG_AGO, LONG_AGO))
        database.execute("UPDATE workflow_status SET completed_at = 1577934245000")


def engine_rows(bench: Any) -> int:
    """What the engine keeps: segments, and what belongs to them."""
    with closing(sqlite3.connect(bench.root / ".counterplay" / "state.db")) as database:
        tables = ("workflow_status", "workflow_input", "operation_outputs")
        return sum(database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables)


@pytest.fixture
def one_run(bench: Any, block: Callable[..., Any]) -> str:
    """A run that changed something."""
    bench.write(block(bench.user()["id"]))
    assert bench.run().exit_code == 0
    identity: str = bench.runs()[0].id
    return identity


def test_the_engines_rows_go_before_the_runs_evidence(bench: Any, one_run: str) -> None:
    """By default after a week and after a year; what can be undone still can be."""
    assert engine_rows(bench) > 0
    with closing(sqlite3.connect(bench.root / ".counterplay" / "state.db")) as database, database:
        database.execute("UPDATE workflow_status SET completed_at = completed_at - 8 * 86400000")

    result = bench.call("store", "prune", "--json")

    assert json.loads(result.stdout) == {"runs": 0, "segments": 1, "units": 0, "dry_run": False}
    assert engine_rows(bench) == 0
    assert bench.call("undo", one_run, "--plan").exit_code == 0


def test_old_runs_go_by_the_workspaces_own_setting(bench: Any, one_run: str) -> None:
    """A dry run deletes nothing; afterwards the commands say what became of the run, and the log has it."""
    bench.configure(retention={"runs": "30d", "engine": "1d"})
    age(bench)
    dry = bench.call("store", "prune", "--dry-run")
    assert "1 runs would be deleted: they ended more than 30d ago" in dry.output
    assert len(bench.runs()) == 1

    assert "1 runs deleted, and 1 rows of the engine" in bench.call("store", "prune").output

    assert bench.runs() == []
    shown = bench.call("runs", "show", one_run)
    assert shown.exit_code == 1
    assert isinstance(shown.exception, ConfigError)
    assert shown.exception.message.startswith(f"run {one_run} was deleted at ")
    assert shown.exception.hint == "`playbook audit export` still has what it changed"
    log = [json.loads(line) for line in bench.call("audit", "export").stdout.splitlines()]
    assert any(one["kind"] == "effect" and one["run_id"] == one_run for one in log)
    assert json.loads(log[-1]["body"])["command"] == "prune"
    assert bench.call("audit", "verify").exit_code == 0


def test_the_store_says_what_it_holds_and_for_how_long(bench: Any, one_run: str) -> None:
    """For people and for programs."""
    text = bench.call("store", "show").output
    assert "ended runs are kept for 365d, the engine's rows of them for 7d\n" in text
    assert "units that every playbook acknowledged are kept for 365d\n" in text
    about = json.loads(bench.call("store", "show", "--json").stdout)
    assert about["rows"]["runs"] == about["rows"]["effects"] == 1
    assert about["retention"] == {"runs": "365d", "engine": "7d", "units": "365d"}
    assert about["bytes"] > 0


def test_evidence_is_not_kept_for_less_than_the_engines_rows(bench: Any, one_run: str) -> None:
    """A configuration that says so is refused, and says where."""
    bench.configure(retention={"runs": "2d"})
    result = bench.call("store", "prune")
    assert "the engine's rows would be kept for longer than the runs" in str(result.exception)
    bench.configure()
    assert len(bench.runs()) == 1
