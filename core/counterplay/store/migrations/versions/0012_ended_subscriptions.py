"""When a playbook's subscription was ended."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.add_column("cp_subscription", sa.Column("ended", sa.String(32), nullable=True))
