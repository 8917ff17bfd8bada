"""Add the flags of documents."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    # Documents that were stored before are read again by the next sync, which fills it.
    op.add_column("document", sa.Column("flags", sa.JSON(), nullable=False, server_default="[]"))
