"""Add what a stored answer was made from, for `kb replay`."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("trace", sa.Column("rewritten", sa.Text(), nullable=True))
    op.add_column("trace", sa.Column("answer_span", sa.Text(), nullable=True))
    op.add_column("trace", sa.Column("request", sa.JSON(), nullable=True))
    op.add_column("trace", sa.Column("candidates", sa.JSON(), nullable=True))
    op.add_column("trace", sa.Column("prompt", sa.JSON(), nullable=True))
    op.add_column(
        "trace", sa.Column("has_foreign_text", sa.Boolean(), nullable=False, server_default="0")
    )
    op.create_index("trace_by_time", "trace", ["created_at"], unique=False)
