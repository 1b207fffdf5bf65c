"""The table of idempotency in a service's own database."""

from typing import Final

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, String, Table
from sqlalchemy.dialects import mysql

IDEMPOTENCY_TABLE_NAME: Final = "saga_idempotency"
"""Its name unless chosen otherwise."""
OPERATION_CHARACTERS_MAX: Final = 255
"""What is kept of an operation's name, for people."""

_BYTES: Final = LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")


def idempotency_table(metadata: MetaData, name: str = IDEMPOTENCY_TABLE_NAME) -> Table:
    """Adds the table to `metadata`, for teams that make their tables by migrations of their own.

    Instants are microseconds since 1970-01-01T00:00Z by the database's clock. About 300 bytes a row, and the stored answers, which are as
    confidential as what the service answers. The index serves the clean-up.
    """
    table = Table(
        name,
        metadata,
        Column("record_key", String(64), primary_key=True),
        Column("client_key", String(255), nullable=False),
        Column("operation", String(OPERATION_CHARACTERS_MAX), nullable=False),
        Column("fingerprint", LargeBinary(32), nullable=False),
        Column("owner", String(32), nullable=False),
        Column("locked_until_us", BigInteger, nullable=False),
        Column("status", Integer),
        Column("headers", _BYTES),
        Column("body", _BYTES),
        Column("created_at_us", BigInteger, nullable=False),
        Column("expires_at_us", BigInteger, nullable=False),
    )
    Index(f"ix_{name}_expires_at_us", table.c.expires_at_us)
    return table
