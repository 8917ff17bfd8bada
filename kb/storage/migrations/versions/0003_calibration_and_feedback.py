"""Add what `kb calibrate` measures of a base, and what users think of answers."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("knowledge_base", sa.Column("channel_weights", sa.JSON(), nullable=True))
    op.add_column("knowledge_base", sa.Column("calibration_report", sa.JSON(), nullable=True))
    op.create_table(
        "feedback",
        sa.Column("trace_id", sa.String(length=32), nullable=False),
        sa.Column("rating", sa.Text(), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.CheckConstraint("rating IN ('up', 'down')", name=op.f("ck_feedback_rating")),
        sa.ForeignKeyConstraint(
            ["trace_id"],
            ["trace.id"],
            name=op.f("fk_feedback_trace_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("trace_id", name=op.f("pk_feedback")),
    )
