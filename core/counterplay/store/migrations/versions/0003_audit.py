"""The audit log, chained by hashes, and the watch over effects that are to hold."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("cp_effect", sa.Column("after", sa.Text(), nullable=True))
    op.create_table(
        "cp_audit",
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("at", sa.String(length=32), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=True),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("previous", sa.String(length=64), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
    )
    op.create_index("cp_audit_run", "cp_audit", ["run_id"], unique=False)
    head = op.create_table(
        "cp_audit_head",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.bulk_insert(head, [{"id": 1, "seq": 0, "hash": "0" * 64}])
    if op.get_bind().dialect.name == "sqlite":  # a mistake is stopped here, an intent shows in the chain
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER cp_audit_no_{verb.lower()} BEFORE {verb} ON cp_audit "
                "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
            )
    op.create_table(
        "cp_watch",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("step_id", sa.Text(), nullable=False),
        sa.Column("after", sa.Text(), nullable=False),
        sa.Column("due", sa.String(length=32), nullable=False),
        sa.Column("checked", sa.String(length=32), nullable=True),
        sa.Column("held", sa.Integer(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["cp_run.id"]),
        sa.PrimaryKeyConstraint("run_id", "step_id", "after"),
    )
    op.create_index("cp_watch_due", "cp_watch", ["checked", "due"], unique=False)
