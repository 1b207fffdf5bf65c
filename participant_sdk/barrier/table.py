"""The barrier's table in a participant's own database."""

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, Index, LargeBinary, MetaData, String, Table

BARRIER_TABLE_NAME: Final = "saga_barrier"
"""Its name unless chosen otherwise."""


def barrier_table(metadata: MetaData, name: str = BARRIER_TABLE_NAME) -> Table:
    """Adds the barrier's table to `metadata`, for teams that make their tables by migrations of their own.

    Instants are microseconds since 1970-01-01T00:00Z: they are compared exactly, and SQLite has no instants with a zone. About
    300 bytes a row, and the stored replies. The index serves retention; it is on a column that never changes, so that storing a
    reply touches no index.
    """
    table = Table(
        name,
        metadata,
        Column("key", String(255), primary_key=True),
        Column("saga_id", String(36), nullable=False),
        Column("step_id", String(64), nullable=False),
        Column("action", String(129), nullable=False),
        Column("fingerprint", LargeBinary(32), nullable=False),
        Column("execution", String(9), nullable=False),
        Column("reply", LargeBinary),
        Column("locked_until_us", BigInteger, nullable=False),
        Column("compensation", String(7), nullable=False),
        Column("compensation_locked_until_us", BigInteger, nullable=False),
        Column("handler_ran", Boolean, nullable=False),
        Column("created_at_us", BigInteger, nullable=False),
        Column("updated_at_us", BigInteger, nullable=False),
    )
    Index(f"ix_{name}_created_at_us", table.c.created_at_us)
    return table
