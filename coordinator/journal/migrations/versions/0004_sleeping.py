"""Sagas that sleep are found by when they wake, and the others without looking at them."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Replaces two indexes. Rows stay as they are: what was PENDING is asleep."""
    _partial_index("ix_saga_awake", ["shard", "saga_id"], "unfinished AND wake_at IS NULL AND quarantine_code IS NULL")
    _partial_index("ix_saga_asleep", ["shard", "wake_at", "saga_id"], "unfinished AND wake_at IS NOT NULL AND quarantine_code IS NULL")
    op.drop_index("ix_saga_unfinished", table_name="saga")
    op.drop_index("ix_saga_wake_at", table_name="saga")


def _partial_index(name: str, columns: list[str], where: str) -> None:
    op.create_index(name, "saga", columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))
