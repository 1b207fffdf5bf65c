"""Nodes that share a database: where each is reached, until when it counts as alive, and whether it takes shards."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the columns. Whoever wrote rows without them was the only node."""
    op.add_column("node", sa.Column("address", sa.String(512), nullable=False, server_default=sa.text("''")))
    op.add_column("node", sa.Column("lease_until", sa.BigInteger))
    op.add_column("node", sa.Column("cordoned", sa.Boolean, nullable=False, server_default=sa.false()))
