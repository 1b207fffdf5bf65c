"""Sagas that sleep are found by when they wake, and the others without looking at them. Nodes say which tables their release knows."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds three indexes, a column and a table. Rows stay as they are: what is PENDING sleeps."""
    _partial_index("ix_saga_awake", ["shard", "saga_id"], "unfinished AND wake_at IS NULL AND quarantine_code IS NULL")
    _partial_index("ix_saga_asleep", ["shard", "wake_at", "saga_id"], "unfinished AND wake_at IS NOT NULL AND quarantine_code IS NULL")
    op.create_index("ix_saga_definition_name_status_created_at_saga_id", "saga", ["definition_name", "status", "created_at", "saga_id"])
    op.add_column("node", sa.Column("knows", sa.String(32)))
    floor = op.create_table(
        "schema_floor", sa.Column("revision", sa.String(32), nullable=False), sa.PrimaryKeyConstraint("revision", name="pk_schema_floor")
    )
    op.bulk_insert(floor, [{"revision": "0003"}])


def _partial_index(name: str, columns: list[str], where: str) -> None:
    op.create_index(name, "saga", columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))
