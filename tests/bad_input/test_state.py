"""State that cannot be used: unreadable, corrupt, newer, full, in use. Told in one line, and nothing lost."""

import contextlib
import os
import resource
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from counterplay.store.database import HEAD, open_database
from counterplay_sim.testing import Simulator

GREET = """\
name: greet
description: Writes each event to a file.
trigger: {uses: std.manual}
sinks:
  - uses: std.jsonl
    with: {path: out.jsonl}
"""
FORWARD = ("run", "alerts-to-intake", "--once")


def greeted(desk: Any) -> Any:
    return desk.playbook("run", "greet", "--event", "-", stdin=b'{"a": 1}')


@pytest.fixture
def used(desk: Any) -> Path:
    """The state file of a workspace in which something has run."""
    desk.write("playbooks/greet.yaml", GREET)
    assert greeted(desk).code == 0
    path: Path = desk.root / ".counterplay" / "state.db"
    assert path.is_file()
    return path


def overwritten(path: Path) -> None:
    path.write_bytes(b"These are no tables." * 500)


def cut_off(path: Path) -> None:
    os.truncate(path, 20_000)


def damaged_inside(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * 40_000)


def replaced_by_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def written_by_a_newer_version(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute("UPDATE cp_schema_version SET version_num = '9999'")
    database.commit()
    database.close()


ANEW = "restore it from a backup, or move it away to begin anew"


@pytest.mark.parametrize(
    ("harm", "fact"),
    [
        (overwritten, f": this is not a state file of counterplay; {ANEW}"),
        (cut_off, f": the file is damaged; {ANEW}"),
        (damaged_inside, f": the file is damaged; {ANEW}"),
        (replaced_by_a_folder, ": the file cannot be opened; check its path and permissions"),
        (
            written_by_a_newer_version,
            f" was written by a newer counterplay (schema 9999, this one knows {HEAD}); upgrade counterplay,"
            " or use another store",
        ),
    ],
)
@pytest.mark.parametrize("command", ["run", "runs"])
def test_a_state_file_that_cannot_be_used_is_left_as_it_is(
    desk: Any, used: Path, harm: Callable[[Path], None], fact: str, command: str
) -> None:
    """The file, what is wrong and what to do; not one byte of it is changed, and moving it away helps."""
    harm(used)
    before = used.read_bytes() if used.is_file() else None

    said = greeted(desk) if command == "run" else desk.playbook("runs")

    assert (said.code, said.out, said.err) == (1, "", f"error: {used}{fact}\n")
    assert (used.read_bytes() if used.is_file() else None) == before
    for file in used.parent.glob("state.db*"):
        file.rename(desk.root / file.name)
    assert greeted(desk).code == 0
    assert (desk.root / "out.jsonl").read_text() == '{"a": 1}\n' * 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_state_file_that_may_not_be_read_is_told(desk: Any, used: Path) -> None:
    """Permissions are named as what to look at."""
    used.chmod(0)

    said = greeted(desk)

    assert (said.code, said.err) == (
        1,
        f"error: {used}: the file cannot be opened; check its path and permissions\n",
    )


def test_a_store_below_a_file_is_told(desk: Any) -> None:
    """A path that can never exist names the path and the system's reason."""
    desk.write("playbooks/greet.yaml", GREET)
    desk.write("counterplay.yaml", "store: sqlite:///counterplay.yaml/state.db\n")

    said = greeted(desk)

    assert said.code == 1
    assert said.err.startswith(f"error: cannot open {desk.root}/counterplay.yaml/state.db.lock: ")
    assert not (desk.root / "out.jsonl").exists()


@contextlib.contextmanager
def room_for(pages: int) -> Iterator[None]:
    """SQLite finds the disk full when a file would grow beyond so many pages."""

    def limit(connection: Any, _record: Any) -> None:
        connection.execute(f"PRAGMA max_page_count={pages}")

    sa.event.listen(sa.engine.Engine, "connect", limit)
    try:
        yield
    finally:
        sa.event.remove(sa.engine.Engine, "connect", limit)


@pytest.fixture(scope="module")
def pages_of_tables(tmp_path_factory: pytest.TempPathFactory) -> int:
    """How many pages a state file has in which nothing has run yet."""
    path = tmp_path_factory.mktemp("fresh") / "state.db"
    open_database(f"sqlite:///{path}").close()
    database = sqlite3.connect(path)
    try:
        return int(database.execute("PRAGMA page_count").fetchone()[0])
    finally:
        database.close()


def packed(path: Path) -> int:
    """Make a state file in which nothing has run and no page is free; returns how many pages it has."""
    path.parent.mkdir(exist_ok=True)
    open_database(f"sqlite:///{path}").close()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("VACUUM")
        return int(database.execute("PRAGMA page_count").fetchone()[0])


@pytest.mark.parametrize("room", [-30, -1, 0, 1])
def test_a_full_disk_stops_the_run_and_loses_nothing(
    desk: Any, tenant: Simulator, connect: Any, pages_of_tables: int, room: int
) -> None:
    """Told in one line wherever it strikes; with room again, the next run delivers what was missing."""
    connect(tenant)
    pages = pages_of_tables if room < 0 else packed(desk.root / ".counterplay" / "state.db")

    with room_for(pages + room):
        said = desk.playbook(*FORWARD)
    delivered = tenant.oracle().verdict().alerts_arrived
    good = desk.playbook(*FORWARD)
    verdict = tenant.oracle().verdict()

    assert said.code == 1
    assert said.err.splitlines()[-1] == (
        f"error: {desk.root}/.counterplay/state.db: the disk is full; free some space and start again; "
        "nothing that was recorded is lost"
    )
    assert "Traceback" not in said.err
    assert good.code == 0
    assert (
        verdict.alerts_arrived - delivered == verdict.alerts_offered
    )  # the chunk in flight, if there was one
    assert verdict.alerts_offered > 0
    for secret in (tenant.tenant.client_secret, tenant.tenant.intake_key):
        assert desk.leaks(secret) == []


def test_a_file_that_may_not_grow_is_told_by_the_real_command(desk: Any) -> None:
    """The system refuses a write in the middle (a quota): one line, no traceback, and the next run works."""
    desk.write("playbooks/greet.yaml", GREET)
    desk.write("events.json", b'{"a": 1}')

    process = desk.start(
        "run", "greet", "--event", "events.json",
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},  # it would leave cut byte code to everybody else
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )  # fmt: skip
    out, err = process.communicate(timeout=20)

    assert (process.returncode, out) == (1, "")
    assert err == (
        f"error: {desk.root}/.counterplay/state.db: the disk reports an error; check the disk; "
        "nothing that was recorded is lost\n"
    )
    assert greeted(desk).code == 0
    assert (desk.root / "out.jsonl").read_text() == '{"a": 1}\n'


@pytest.fixture
def slow_intake() -> Iterator[tuple[str, threading.Event]]:
    """An intake that tells when somebody is at its door, and answers nobody until the test is over."""
    arrived, over = threading.Event(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            arrived.set()
            over.wait(30)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", arrived
    over.set()
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_second_worker_is_refused_and_names_the_first(
    desk: Any, slow_intake: tuple[str, threading.Event]
) -> None:
    """It says which process works there; the first is not disturbed, and readers still work beside it."""
    url, arrived = slow_intake
    desk.write(
        "counterplay.yaml",
        f"connections:\n  siem: {{uses: intake.key, url: '{url}', intake_key: key-of-the-intake}}\n",
    )
    desk.write("playbooks/greet.yaml", GREET)
    desk.write("playbooks/send.yaml", GREET.replace("greet", "send").split("sinks:")[0]
               + "sinks:\n  - {uses: intake.forward, connection: siem}\n")  # fmt: skip
    desk.write("event.json", "{}")
    first = desk.start("run", "send", "--event", "event.json")
    try:
        assert arrived.wait(20), first.communicate(timeout=5)

        said = greeted(desk)
        runs = desk.playbook("runs", "--json")
    finally:
        first.send_signal(signal.SIGTERM)
        first.send_signal(signal.SIGKILL) if first.poll() is None else None
        first.communicate(timeout=20)

    head, since, tail = said.err.partition(", since ")
    assert said.code == 1
    assert head == (
        f"error: another process works on {desk.root}/.counterplay/state.db (process {first.pid}, "
        "`playbook run send`"
    )
    assert since
    assert tail.partition(")")[2] == (
        "; wait for it or end it; several workers at once need PostgreSQL (`store:`)\n"
    )
    assert (runs.code, runs.data) == (0, [])
    assert not (desk.root / "out.jsonl").exists()
    assert greeted(desk).code == 0, "a dead worker holds no lock"


def test_a_full_disk_at_a_sink_keeps_the_events(desk: Any) -> None:
    """A file sink that cannot write holds its events back; they are written when it can."""
    desk.write("playbooks/greet.yaml", GREET)
    (desk.root / "out.jsonl").symlink_to("/dev/full")

    said = greeted(desk)
    (desk.root / "out.jsonl").unlink()
    good = desk.playbook("run", "greet", "--once", "--json")

    assert said.code == 3
    assert good.code == 0
    assert (desk.root / "out.jsonl").read_text() == '{"a": 1}\n'
