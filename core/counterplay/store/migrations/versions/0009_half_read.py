"""Whether a polled source was left between two pages."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.add_column("cp_feed", sa.Column("half_read", sa.Boolean(), nullable=True))
