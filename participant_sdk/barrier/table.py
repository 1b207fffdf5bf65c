"""The barrier's table in a participant's own database."""

from typing import Final

from sqlalchemy import VARBINARY, BigInteger, Boolean, Column, Index, LargeBinary, MetaData, String, Table
from sqlalchemy.dialects.mysql import MEDIUMBLOB

from participant_sdk.barrier.mysql import BYTES_OF_CHARACTER_MAX, DIALECT_NAMES, ExactText

BARRIER_TABLE_NAME: Final = "saga_barrier"
"""Its name unless chosen otherwise."""
KEY_CHARS_MAX: Final = 255
_FINGERPRINT_BYTES: Final = 32


def barrier_table(metadata: MetaData, name: str = BARRIER_TABLE_NAME) -> Table:
    """Adds the barrier's table to `metadata`, for teams that make their tables by migrations of their own.

    Instants are microseconds since 1970-01-01T00:00Z: they are compared exactly, and SQLite has no instants with a zone. About
    300 bytes a row, and the stored replies. The index serves retention; it is on a column that never changes, so that storing a
    reply touches no index. On MySQL and MariaDB keys are bytes, and replies a MEDIUMBLOB: a BLOB ends at 64 KiB, a reply at 1 MiB.
    Without metadata, `participant_sdk.barrier.migrations` makes the same table.
    """
    table = Table(
        name,
        metadata,
        Column(
            "key", String(KEY_CHARS_MAX).with_variant(ExactText(KEY_CHARS_MAX * BYTES_OF_CHARACTER_MAX), *DIALECT_NAMES), primary_key=True
        ),
        Column("saga_id", String(36), nullable=False),
        Column("step_id", String(64), nullable=False),
        Column("action", String(129), nullable=False),
        Column("fingerprint", LargeBinary(_FINGERPRINT_BYTES).with_variant(VARBINARY(_FINGERPRINT_BYTES), *DIALECT_NAMES), nullable=False),
        Column("execution", String(9), nullable=False),
        Column("reply", LargeBinary().with_variant(MEDIUMBLOB(), *DIALECT_NAMES)),
        Column("locked_until_us", BigInteger, nullable=False),
        Column("compensation", String(7), nullable=False),
        Column("compensation_locked_until_us", BigInteger, nullable=False),
        Column("handler_ran", Boolean, nullable=False),
        Column("created_at_us", BigInteger, nullable=False),
        Column("updated_at_us", BigInteger, nullable=False),
        # Other engines of theirs know no database transactions.
        mysql_engine="InnoDB",
        mariadb_engine="InnoDB",
        mysql_charset="utf8mb4",
        mariadb_charset="utf8mb4",
    )
    Index(f"ix_{name}_created_at_us", table.c.created_at_us)
    return table
