"""Event ids as one blob a unit, found by the hour; what a unit holds of other units' events."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("cp_feed", sa.Column("swept", sa.Text(), nullable=True))
    op.add_column("cp_unit", sa.Column("duplicates", sa.Text(), nullable=True))
    op.create_index("cp_unit_due", "cp_unit", ["feed_id", "retry_at"], unique=False)
    op.create_table(
        "cp_unit_keys",
        sa.Column("unit_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("keys", sa.LargeBinary(), nullable=False),
        sa.Column("checks", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["unit_id"], ["cp_unit.id"]),
        sa.PrimaryKeyConstraint("unit_id"),
    )
    op.create_table(
        "cp_key_hour",
        sa.Column("feed_id", sa.Integer(), nullable=False),
        sa.Column("hour", sa.Integer(), nullable=False),
        sa.Column("unit_id", sa.Integer(), nullable=False),
        sa.Column("first", sa.Integer(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("feed_id", "hour", "unit_id", "first"),
        sqlite_with_rowid=False,
    )
    op.create_index("cp_key_hour_unit", "cp_key_hour", ["unit_id"], unique=False)
    # The old table does not say when its events happened. An event that was collected before this
    # migration and is repeated by the service after it is delivered a second time.
    op.drop_table("cp_event_key")
