"""Pages of event ids hold entries. Those that are there go: the ids of units say the same."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.drop_table("cp_key_page")
    op.create_table(
        "cp_key_page",
        sa.Column("feed_id", sa.Integer(), nullable=False),
        sa.Column("hour", sa.Integer(), nullable=False),
        sa.Column("page", sa.Integer(), nullable=False),
        sa.Column("entries", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("feed_id", "hour", "page"),
    )
