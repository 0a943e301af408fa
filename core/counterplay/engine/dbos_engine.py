"""The engine port on DBOS Transact, with its dangerous defaults replaced.

* Rows that claim to be pickled are refused, never unpickled: a row names its own format, and with the
  default serializer anybody who can write a row could run code in every reader.
* The executor id is new for each launch, so that a start never "recovers" a run that is under way.
* The application version is pinned: the default hashes source code and strands runs after an upgrade.
* Its connections write in turn with our own (`connections`).
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import dbos._serialization as dbos_serialization
import sqlalchemy as sa
from dbos import DBOS, DBOSConfig, Serializer, SetWorkflowID
from dbos._error import DBOSBaseException, DBOSException
from sqlalchemy.engine import make_url

from counterplay.engine.connections import LAZY_COMMITS, sqlite_engine
from counterplay.engine.port import EngineInterrupt, ReplayedFailure, SegmentBody, SegmentStatus
from counterplay.store.turns import Turns

#: Raised only when the interpreter records other steps for the same playbook than before.
INTERPRETER_VERSION = "counterplay-segments-1"
LISTENER_INTERVAL = 0.2  # of a listener that we do not use; closing waits for it to wake (1 s by default)
SCHEMA = "counterplay_engine"  # on PostgreSQL; SQLite has none
POOL_SIZE = 2  # more connections only queue inside SQLite, where waiting is unfair

WORKFLOW = "counterplay_segment"
_STATUS: dict[str, SegmentStatus] = {
    "PENDING": "running",
    "ENQUEUED": "running",
    "DELAYED": "running",
    "SUCCESS": "ended",
    "ERROR": "failed",
    "CANCELLED": "cancelled",
    "MAX_RECOVERY_ATTEMPTS_EXCEEDED": "failed",
}


class PickleRefused(ValueError):
    """A row of the engine claims to be pickled; nothing here ever writes such a row."""


def _refuse_pickle(_self: object, _text: str) -> Any:
    raise PickleRefused("refused to unpickle a row of the engine's tables")


dbos_serialization.DefaultSerializer.deserialize = _refuse_pickle  # type: ignore[assignment, method-assign]


class JsonSerializer(Serializer):
    """JSON for everything the engine stores; exceptions become their type and text."""

    def serialize(self, data: Any) -> str:
        if isinstance(data, BaseException):
            data = {"__error__": type(data).__name__, "text": str(data)}
        return json.dumps(data, separators=(",", ":"))

    def deserialize(self, serialized_data: str) -> Any:
        data = json.loads(serialized_data)
        if isinstance(data, dict) and "__error__" in data:
            return ReplayedFailure(f"{data['__error__']}: {data['text']}")
        return data

    def name(self) -> str:
        return "counterplay_json"


_body: SegmentBody | None = None


def _record(name: str, work: Callable[[], Any]) -> Any:
    try:
        return DBOS.run_step({"name": name}, work)
    except (DBOSBaseException, DBOSException) as error:
        raise EngineInterrupt(str(error)) from error


@DBOS.workflow(name=WORKFLOW)
def _segment(name: str) -> None:
    if _body is None:
        raise RuntimeError("the engine was not launched with an interpreter")
    try:
        _body(name, _record)
    except EngineInterrupt as interrupt:
        raise interrupt.__cause__ or interrupt from None


class DbosEngine:
    """DBOS on the store's own database. One in a process, because DBOS is a singleton."""

    def __init__(
        self, database_url: str, threads: int, turns: Turns | None = None, name: str = "counterplay"
    ) -> None:
        """`turns` are those of the store, where both write to one SQLite file; `name` that of connections."""
        self._own: sa.Engine | None = None
        self._config: DBOSConfig = {
            "name": "counterplay",
            "system_database_url": database_url,
            "dbos_system_schema": SCHEMA,
            "sys_db_pool_size": POOL_SIZE,
            "notification_listener_polling_interval_sec": LISTENER_INTERVAL,
            "serializer": JsonSerializer(),
            "application_version": INTERPRETER_VERSION,
            "executor_id": f"worker-{uuid.uuid4()}",
            "max_executor_threads": threads,
            "log_level": "ERROR",
        }
        if make_url(database_url).get_backend_name() == "sqlite":
            self._own = sqlite_engine(database_url, POOL_SIZE, turns)
            self._config["system_database_engine"] = self._own
        else:
            self._config["db_engine_kwargs"] = {"connect_args": {**LAZY_COMMITS, "application_name": name}}

    def launch(self, body: SegmentBody) -> None:
        global _body
        _body = body
        _quiet()
        DBOS(config=self._config)
        _quiet()
        DBOS.launch()

    def start(self, segment: str) -> None:
        with SetWorkflowID(segment):
            DBOS.start_workflow(_segment, segment)

    def recover(self) -> list[str]:
        mine = DBOS.executor_id
        left = [
            status.workflow_id
            for status in DBOS.list_workflows(
                status=["PENDING", "ENQUEUED"], name=WORKFLOW, load_input=False, load_output=False
            )
            if status.executor_id != mine
        ]
        if left:
            DBOS.resume_workflows(left)
        return left

    def cancel(self, segment: str) -> None:
        DBOS.cancel_workflow(segment)

    def status(self, segment: str) -> SegmentStatus | None:
        found = DBOS.list_workflows(workflow_ids=[segment], load_input=False, load_output=False)
        return _STATUS[found[0].status] if found else None

    def steps(self, segment: str) -> list[str]:
        return [str(step["function_name"]) for step in DBOS.list_workflow_steps(segment)]

    def delete(self, segments: Sequence[str]) -> None:
        DBOS.delete_workflows(list(segments))

    def close(self) -> None:
        global _body
        DBOS.destroy(workflow_completion_timeout_sec=0)
        if self._own is not None:
            self._own.dispose()
        _body = None


def _quiet() -> None:
    """DBOS writes to the console by itself; here its records go through our own, masked logging."""
    logger = logging.getLogger("dbos")
    logger.handlers.clear()
    logger.addHandler(logging.NullHandler())
    logger.propagate = True
