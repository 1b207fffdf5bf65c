"""The other half of 0004: takes away the indexes by which older releases find what they take over and list."""

from alembic import op

from coordinator.journal.schema import raise_floor

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None
NEEDS = "0004"
"""What every node must know that is alive."""


def upgrade() -> None:
    """Rows stay as they are."""
    op.drop_index("ix_saga_unfinished", table_name="saga")
    op.drop_index("ix_saga_wake_at", table_name="saga")
    op.drop_index("ix_saga_definition_name_created_at_saga_id", table_name="saga")
    raise_floor(op.get_bind(), NEEDS)
