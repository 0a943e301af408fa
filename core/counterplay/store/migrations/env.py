"""Alembic's entry: the connection is handed over by `counterplay.store.database`."""

from __future__ import annotations

from alembic import context

from counterplay.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table="cp_schema_version",
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
