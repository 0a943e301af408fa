"""The index that orders the runs to be started: all that one commit brought have one rank."""

from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.drop_index("cp_run_rank", "cp_run")
    op.create_index("cp_run_rank", "cp_run", ["status", "rank", "id"])
