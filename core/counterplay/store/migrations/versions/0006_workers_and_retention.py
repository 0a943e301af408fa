"""Workers and what they hold, ids of runs that were deleted, large values, hooks still to be told."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "cp_worker",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("started", sa.String(length=32), nullable=False),
        sa.Column("beat", sa.Float(), nullable=False),
        sa.Column("lasts", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "cp_past_run",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("deleted", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "cp_artifact",
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("hash"),
    )
    op.create_table(
        "cp_artifact_use",
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["hash"], ["cp_artifact.hash"]),
        sa.PrimaryKeyConstraint("hash", "run_id"),
    )
    op.create_index("cp_artifact_use_run", "cp_artifact_use", ["run_id"], unique=False)
    op.add_column("cp_run", sa.Column("worker", sa.Text(), nullable=True))
    op.add_column("cp_run", sa.Column("tell", sa.String(length=16), nullable=True))
    op.add_column("cp_feed", sa.Column("worker", sa.Text(), nullable=True))
    for column in ("tell", "worker"):
        few = sa.text(f"{column} IS NOT NULL")
        op.create_index(f"cp_run_{column}", "cp_run", [column], sqlite_where=few, postgresql_where=few)
