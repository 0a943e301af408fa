"""What became known to be missing, one row each, for whoever wants to be told."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.create_table(
        "cp_loss",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("feed_id", sa.Integer(), sa.ForeignKey("cp_feed.id"), nullable=False),
        sa.Column("playbook", sa.Text(), nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("start", sa.String(32)),
        sa.Column("end", sa.String(32)),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("at", sa.String(32), nullable=False),
    )
