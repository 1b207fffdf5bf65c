"""Nodes that share a database: where each is reached, until when it counts as alive, whether it takes shards. And sagas by their end, so
that those that ended long ago are found and forgotten.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds columns and an index. Whoever wrote rows of nodes without them was the only one."""
    op.add_column("node", sa.Column("address", sa.String(512), nullable=False, server_default=sa.text("''")))
    op.add_column("node", sa.Column("lease_until", sa.BigInteger))
    op.add_column("node", sa.Column("cordoned", sa.Boolean, nullable=False, server_default=sa.false()))
    where = sa.text("ended_at IS NOT NULL AND NOT unfinished AND NOT needs_person AND quarantine_code IS NULL")
    op.create_index("ix_saga_forgettable", "saga", ["ended_at"], sqlite_where=where, postgresql_where=where)
