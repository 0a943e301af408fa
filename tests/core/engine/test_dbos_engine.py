"""The engine port's contract, held against DBOS on SQLite and on PostgreSQL, crashes included."""

import base64
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from dbos._serialization import DefaultSerializer
from hypothesis import given
from hypothesis import strategies as st

from counterplay.engine import Recorder, ReplayedFailure
from counterplay.engine import dbos_engine as module
from counterplay.engine.dbos_engine import INTERPRETER_VERSION, DbosEngine, JsonSerializer, PickleRefused

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture
def launch(store: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., DbosEngine]]:
    """Launch an engine with a body; it is closed in the end, or when another one is launched."""
    monkeypatch.setattr(module, "LISTENER_INTERVAL", 0.01)
    open_engines: list[DbosEngine] = []

    def close() -> None:
        while open_engines:
            open_engines.pop().close()

    def launched(body: Callable[[str, Recorder], None]) -> DbosEngine:
        close()
        engine = DbosEngine(store, threads=4)
        open_engines.append(engine)
        engine.launch(body)
        return engine

    yield launched
    close()


def wait_for(fact: Callable[[], Any], seconds: float = 10.0) -> Any:
    """Look again and again until something is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := fact():
            return found
        time.sleep(0.005)
    raise AssertionError("it did not happen in time")


def rows(store: str, query: str, *values: Any) -> list[Any]:
    """Read or write the engine's own tables; `?` stands for the values."""
    for number in range(len(values)):
        query = query.replace("?", f":v{number}", 1)
    engine = sa.create_engine(store)
    try:
        with engine.begin() as connection:
            if store.startswith("postgresql"):
                connection.exec_driver_sql("SET search_path TO counterplay_engine")
            named = {f"v{number}": value for number, value in enumerate(values)}
            result = connection.execute(sa.text(query), named)
            return list(result) if result.returns_rows else []
    finally:
        engine.dispose()


CRASH = """
import os, sys
from counterplay.engine.dbos_engine import DbosEngine

store, marks = sys.argv[1], sys.argv[2]

def mark(text):
    with open(marks, "a") as file:
        file.write(text + "\\n")

def body(segment, record):
    record("one", lambda: (mark("one"), {"answer": 42})[1])
    try:
        record("two", lambda: WORK)
    finally:
        os._exit(9)

def stop():
    mark("two")
    os._exit(9)

def fail():
    mark("two")
    raise ValueError("no")

engine = DbosEngine(store, threads=4)
engine.launch(body)
engine.start("r-1/1")
import time
time.sleep(30)
"""


def crash(store: str, marks: Path, work: str) -> None:
    """A worker that ends without a word inside its second piece of work, or right after it."""
    code = CRASH.replace("lambda: WORK", work)
    ended = subprocess.run([sys.executable, "-c", code, store, str(marks)], timeout=30, check=False)
    assert ended.returncode == 9


def test_a_segment_is_executed_once_however_often_it_is_started(launch) -> None:
    """The second start attaches to the first; after the end as well."""
    seen: list[str] = []
    engine = launch(lambda segment, _record: seen.append(segment))
    engine.start("r-1/1")
    engine.start("r-1/1")
    wait_for(lambda: engine.status("r-1/1") == "ended")
    engine.start("r-1/1")
    engine.start("r-2/1")
    wait_for(lambda: engine.status("r-2/1") == "ended")
    assert seen == ["r-1/1", "r-2/1"]


def test_what_was_recorded_is_told_again_after_a_crash(launch, store: str, tmp_path: Path) -> None:
    """The finished piece is not repeated, the one in flight is, and the segment ends."""
    marks = tmp_path / "marks"
    crash(store, marks, "stop")
    told: list[Any] = []

    def body(_segment: str, record: Recorder) -> None:
        told.append(record("one", lambda: pytest.fail("repeated")))
        told.append(record("two", lambda: "done"))

    engine = launch(body)
    assert engine.recover() == ["r-1/1"]
    wait_for(lambda: engine.status("r-1/1") == "ended")
    assert told == [{"answer": 42}, "done"]
    assert engine.steps("r-1/1") == ["one", "two"]
    assert marks.read_text().split() == ["one", "two"]
    assert engine.recover() == []


def test_a_failure_that_was_recorded_is_told_as_such(launch, store: str, tmp_path: Path) -> None:
    """Work that raised before the crash: the recorder gives no result, and does not do it again."""
    crash(store, tmp_path / "marks", "fail")
    told: list[Any] = []

    def body(_segment: str, record: Recorder) -> None:
        record("one", lambda: None)
        try:
            record("two", lambda: told.append("repeated"))
        except ReplayedFailure as failure:
            told.append(str(failure))

    engine = launch(body)
    engine.recover()
    wait_for(lambda: engine.status("r-1/1") == "ended")
    assert told == ["ValueError: no"]


def test_a_failure_of_the_moment_reaches_the_body_as_it_is(launch) -> None:
    """Live errors keep their type; the runtime goes by it."""
    told: list[BaseException] = []

    def body(_segment: str, record: Recorder) -> None:
        try:
            record("one", lambda: {}["missing"])
        except KeyError as error:
            told.append(error)

    engine = launch(body)
    engine.start("r-1/1")
    wait_for(lambda: engine.status("r-1/1") == "ended")
    assert [type(one) for one in told] == [KeyError]


def test_a_live_segment_is_not_recovered(launch) -> None:
    """A second look while it works leaves it alone."""
    go, seen = threading.Event(), []

    def body(segment: str, _record: Recorder) -> None:
        seen.append(segment)
        go.wait(10)

    engine = launch(body)
    engine.start("r-1/1")
    wait_for(lambda: seen)
    assert engine.recover() == []
    assert engine.status("r-1/1") == "running"
    go.set()
    wait_for(lambda: engine.status("r-1/1") == "ended")
    assert seen == ["r-1/1"]


def test_the_version_is_pinned_and_the_executor_is_new_each_time(launch, store: str) -> None:
    """An upgrade strands no run; a second launch does not take itself for the first."""
    for number in (1, 2):
        engine = launch(lambda _segment, _record: None)
        engine.start(f"r-{number}/1")
        wait_for(lambda: engine.status(f"r-{number}/1") == "ended")  # noqa: B023  # called at once
    found = rows(store, "SELECT executor_id, application_version FROM workflow_status")
    assert len({executor for executor, _ in found}) == 2
    assert {version for _, version in found} == {INTERPRETER_VERSION}


def test_a_segment_that_fails_says_so(launch) -> None:
    """And one that was never started says nothing."""

    def body(_segment: str, _record: Recorder) -> None:
        raise RuntimeError("a fault")

    engine = launch(body)
    engine.start("r-1/1")
    wait_for(lambda: engine.status("r-1/1") == "failed")
    assert engine.status("r-2/1") is None
    engine.delete(["r-1/1"])
    assert engine.status("r-1/1") is None


def test_a_cancelled_segment_ends_at_its_next_piece_of_work(launch) -> None:
    """What was done stays done."""
    cancelled, seen = threading.Event(), []

    def body(_segment: str, record: Recorder) -> None:
        record("one", lambda: seen.append("one"))
        cancelled.wait(10)
        record("two", lambda: seen.append("two"))

    engine = launch(body)
    engine.start("r-1/1")
    wait_for(lambda: seen)
    engine.cancel("r-1/1")
    cancelled.set()
    wait_for(lambda: engine.status("r-1/1") == "cancelled")
    assert seen == ["one"]


class Harmful:
    """What unpickling it would do: make a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.target,))


@pytest.mark.filterwarnings("default::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_row_that_claims_to_be_pickled_runs_no_code(launch, store: str, tmp_path: Path) -> None:
    """Whoever can write a row cannot run code in whoever lists, asks about or recovers it."""
    crash(store, tmp_path / "marks", "stop")
    proof = tmp_path / "harm"
    payload = base64.b64encode(pickle.dumps(Harmful(proof))).decode()
    changed = "SET serialization = 'py_pickle',"
    rows(store, f"UPDATE workflow_status {changed} inputs = ?, output = ?", payload, payload)
    rows(store, "UPDATE workflow_input SET inputs = ?", payload)
    rows(store, f"UPDATE operation_outputs {changed} output = ?", payload)
    engine = launch(lambda _segment, record: record("one", lambda: None))
    assert engine.status("r-1/1") == "running"
    try:
        assert engine.steps("r-1/1") in ([], ["one"])
    except PickleRefused:
        pass
    assert engine.recover() == ["r-1/1"]
    engine.start("r-2/1")
    wait_for(lambda: engine.status("r-2/1") == "ended")
    wait_for(lambda: engine.status("r-1/1") == "failed")
    assert not proof.exists()
    assert pickle.loads(base64.b64decode(payload)) is None  # the payload is a real one
    assert proof.exists()


def test_the_default_serializer_is_disarmed() -> None:
    """For the whole process, not for our own instances alone."""
    with pytest.raises(PickleRefused):
        DefaultSerializer().deserialize(base64.b64encode(pickle.dumps({"a": 1})).decode())


@given(JSON)
def test_json_values_survive_the_engine(value: Any) -> None:
    """What is written reads back equal."""
    serializer = JsonSerializer()
    assert serializer.deserialize(serializer.serialize(value)) == value


def test_errors_become_their_type_and_text() -> None:
    """Nothing of an exception but two texts is stored."""
    serializer = JsonSerializer()
    back = serializer.deserialize(serializer.serialize(KeyError("k")))
    assert isinstance(back, ReplayedFailure)
    assert str(back) == "KeyError: 'k'"
