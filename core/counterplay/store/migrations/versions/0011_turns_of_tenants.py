"""Runs that wait are found by tenant, because tenants take turns."""

from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.create_index("cp_run_turn", "cp_run", ["status", "tenant", "rank", "id"], unique=False)
    op.drop_index("cp_run_rank", "cp_run")
