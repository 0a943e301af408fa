"""Deletes the engine's rows of segments that ended: our own tables hold what people see of a run."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from dbos import DBOSClient

from counterplay.clock import to_text
from counterplay.engine.dbos_engine import SCHEMA, WORKFLOW, JsonSerializer

BATCH = 200
_OVER = ["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]


def forget_ended(engine: sa.Engine, before: datetime) -> int:
    """Delete what the engine keeps of segments that ended before a time; returns how many.

    For whoever has a store at hand: no engine has to be launched, and one that works is not disturbed.
    """
    schema = None if engine.dialect.name == "sqlite" else SCHEMA
    if not sa.inspect(engine).has_table("workflow_status", schema=schema):
        return 0  # no run ever began here
    client = DBOSClient(
        system_database_url=engine.url.render_as_string(hide_password=False),
        dbos_system_schema=SCHEMA,
        serializer=JsonSerializer(),
        system_database_pool_size=1,
        retry_connection_errors=False,
    )
    total = 0
    try:
        while True:
            found = client.list_workflows(
                name=WORKFLOW,
                status=_OVER,
                completed_before=to_text(before),
                limit=BATCH,
                load_input=False,
                load_output=False,
            )
            if not found:
                return total
            client.delete_workflows([one.workflow_id for one in found])
            total += len(found)
    finally:
        client.destroy()
