"""The outbox's table in a service's own database."""

import hashlib
from enum import StrEnum
from typing import Any, Final, NewType

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, String, Table, Text, text

from participant_sdk.payloads import PAYLOAD_BYTES_MAX

OUTBOX_TABLE_NAME: Final = "saga_outbox"
"""Its name unless chosen otherwise."""
NAME_CHARS_MAX: Final = 255
"""Longest topic, key and message type."""
CONTENT_TYPE_CHARS_MAX: Final = 127
HEADERS_BYTES_MAX: Final = 16 * 1024
"""All headers of one event, as JSON."""
TRACE_STATE_CHARS_MAX: Final = 512
ERROR_CHARS_MAX: Final = 1_000
"""What is kept of the last error."""
START_EXTRA_BYTES: Final = 64 * 1024
"""Around the input of a start: its labels, keys and names."""
ROW_BYTES_MAX: Final = PAYLOAD_BYTES_MAX + START_EXTRA_BYTES
"""Largest `payload`."""


def _partial(condition: str) -> dict[str, Any]:
    return dict.fromkeys(("postgresql_where", "sqlite_where"), text(condition))


_UNPUBLISHED: Final = _partial("published_at_us IS NULL")
"""The rows that the relay's indexes hold. Its queries say so, too, or no database would see that the index will do."""
_PUBLISHED: Final = _partial("published_at_us IS NOT NULL")
"""Those of retention. Were it for all rows, SQLite would look there for what is not published, and sort it each time."""

OutboxId = NewType("OutboxId", str)
"""Names what was put into an outbox: a UUID, equal for all tries to publish it. Consumers know a repetition by it."""


class OutboxStatus(StrEnum):
    """How far a row has come."""

    PENDING = "PENDING"
    """To be published, or being published."""
    PUBLISHED = "PUBLISHED"
    """The broker has it, or the coordinator."""
    FAILED = "FAILED"
    """Given up: a person looks at it, then redrives or discards it."""


class OutboxKind(StrEnum):
    """What a row is."""

    EVENT = "EVENT"
    """Goes to the publisher."""
    SAGA_START = "SAGA_START"
    """Goes to the coordinator."""


def outbox_table(metadata: MetaData, name: str = OUTBOX_TABLE_NAME) -> Table:
    """Adds the outbox's table to `metadata`, for teams that make their tables by migrations of their own.

    Instants are microseconds since 1970-01-01T00:00Z. What is published leaves both small indexes, where the database has such: what is
    kept of it costs the relay nothing. About 400 bytes a row, and the payload.
    """
    table = Table(
        name,
        metadata,
        # In the order of the inserts; SQLite numbers an INTEGER only, and never twice only if it is told so.
        Column("position", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
        Column("id", String(36), nullable=False, unique=True),
        Column("kind", String(10), nullable=False),
        Column("topic", String(NAME_CHARS_MAX), nullable=False),
        Column("key", String(NAME_CHARS_MAX), nullable=False),
        Column("lane", BigInteger),
        Column("message_type", String(NAME_CHARS_MAX), nullable=False),
        Column("content_type", String(CONTENT_TYPE_CHARS_MAX), nullable=False),
        Column("payload", LargeBinary(ROW_BYTES_MAX), nullable=False),
        Column("headers", Text, nullable=False),
        Column("traceparent", String(64), nullable=False),
        Column("tracestate", String(TRACE_STATE_CHARS_MAX), nullable=False),
        Column("status", String(9), nullable=False),
        Column("attempts", Integer, nullable=False),
        Column("next_attempt_at_us", BigInteger, nullable=False),
        Column("locked_by", String(36), nullable=False),
        Column("created_at_us", BigInteger, nullable=False),
        Column("published_at_us", BigInteger),
        Column("last_error", Text, nullable=False),
        sqlite_autoincrement=True,
    )
    columns = table.c
    Index(f"ix_{name}_due", columns.status, columns.kind, columns.next_attempt_at_us, columns.position, **_UNPUBLISHED)
    Index(f"ix_{name}_lane", columns.lane, columns.position, **_UNPUBLISHED)
    Index(f"ix_{name}_published_at_us", columns.published_at_us, **_PUBLISHED)
    return table


def lane_of(topic: str, key: str) -> int | None:
    """What must be published in one order has one lane; None: no order was asked for.

    64 bits of BLAKE2b over topic and key, signed: one number to compare and to index. If two keys ever met in one lane they would wait
    for each other, and nothing worse.
    """
    if not key:
        return None
    return int.from_bytes(hashlib.blake2b(f"{topic}\0{key}".encode(), digest_size=8).digest(), "big", signed=True)
