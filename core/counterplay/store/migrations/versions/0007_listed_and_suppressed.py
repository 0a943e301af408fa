"""How far windows were listed, beside how far they are accounted for; suppressed events in the ledger."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("cp_subscription", sa.Column("listed", sa.String(32)))
    op.add_column("cp_subscription", sa.Column("seen", sa.String(32)))
    for name in ("suppressed", "known"):
        column = sa.Column(name, sa.Integer(), nullable=False, server_default="0")
        op.add_column("cp_acknowledgement", column)
