"""Child runs, attempts, waits, `once_per` and approvals."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    if op.get_bind().dialect.name != "sqlite":  # SQLite does not look at the length
        for table, column in (("cp_run", "id"), ("cp_step", "run_id"), ("cp_effect", "run_id")):
            op.alter_column(table, column, type_=sa.Text())
    op.add_column("cp_run", sa.Column("rank", sa.String(length=32), nullable=False, server_default=""))
    for name in ("parent", "parent_step", "origin", "stop", "cancel", "failed_at"):
        op.add_column("cp_run", sa.Column(name, sa.Text(), nullable=True))
    op.add_column("cp_run", sa.Column("place", sa.Integer(), nullable=True))
    op.execute("UPDATE cp_run SET rank = created")
    op.create_index("cp_run_rank", "cp_run", ["status", "rank"], unique=False)
    op.create_index("cp_run_wake", "cp_run", ["status", "wake"], unique=False)
    op.create_index("cp_run_parent", "cp_run", ["parent", "parent_step", "place"], unique=False)
    op.add_column("cp_step", sa.Column("due", sa.String(length=32), nullable=True))
    op.create_table(
        "cp_attempt",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("step_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("started", sa.String(length=32), nullable=False),
        sa.Column("ended", sa.String(length=32), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["cp_run.id"]),
        sa.PrimaryKeyConstraint("run_id", "step_id", "number"),
    )
    op.create_table(
        "cp_once",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("playbook", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("opened", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "playbook", "key"),
    )
    op.create_table(
        "cp_suppressed",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("playbook", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("run_key", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("at", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("cp_suppressed_run", "cp_suppressed", ["run_id"], unique=False)
    op.create_table(
        "cp_approval",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("step_id", sa.Text(), nullable=False),
        sa.Column("purpose", sa.String(length=16), nullable=False),
        sa.Column("playbook", sa.Text(), nullable=False),
        sa.Column("question", sa.Text(), nullable=False),
        sa.Column("form", sa.Text(), nullable=True),
        sa.Column("people", sa.Integer(), nullable=False),
        sa.Column("starter", sa.Text(), nullable=True),
        sa.Column("on_timeout", sa.String(length=16), nullable=False),
        sa.Column("deadline", sa.String(length=32), nullable=True),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("created", sa.String(length=32), nullable=False),
        sa.Column("decided", sa.String(length=32), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["cp_run.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("cp_approval_status", "cp_approval", ["status", "created"], unique=False)
    op.create_index("cp_approval_run", "cp_approval", ["run_id", "step_id"], unique=False)
    op.create_table(
        "cp_answer",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("approval_id", sa.String(length=32), nullable=False),
        sa.Column("person", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("decision", sa.String(length=16), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("form", sa.Text(), nullable=True),
        sa.Column("question", sa.Text(), nullable=False),
        sa.Column("at", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(["approval_id"], ["cp_approval.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("approval_id", "person"),
    )
    op.create_table(
        "cp_token",
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("approval_id", sa.String(length=32), nullable=False),
        sa.Column("person", sa.Text(), nullable=False),
        sa.Column("expires", sa.String(length=32), nullable=False),
        sa.Column("used", sa.String(length=32), nullable=True),
        sa.ForeignKeyConstraint(["approval_id"], ["cp_approval.id"]),
        sa.PrimaryKeyConstraint("hash"),
    )
