"""The tables of the journal, in one file. Plain SQL that SQLite and PostgreSQL both understand; the migrations build the same (a test
compares them).

Instants are integers, microseconds since 1970 UTC, as everywhere in the core: a datetime would have to be made and parsed for each of the
five rows of a saga, SQLite has no type for it, and integers compare exactly. For people the view `saga_view` shows the same sagas with
names and readable times.
"""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine

NAME_CHARS_MAX: Final = 128
"""Names of definitions and participants."""
KEY_CHARS_MAX: Final = 255
"""Idempotency keys."""
LABEL_KEY_CHARS_MAX: Final = 63
LABEL_VALUE_CHARS_MAX: Final = 255
STEP_ID_CHARS_MAX: Final = 64
TARGET_CHARS_MAX: Final = 512
"""gRPC targets."""
QUARANTINE_INCIDENT_ID: Final = 0
"""Incidents in a saga's own events count from 1; the one that the journal opens when it sets a saga aside is this: they never meet."""

# A partial index serves a query only if the planner can prove that the query implies its condition: both must contain this very text.
IS_AWAKE: Final = "unfinished AND wake_at IS NULL AND quarantine_code IS NULL"
IS_ASLEEP: Final = "unfinished AND wake_at IS NOT NULL AND quarantine_code IS NULL"
IS_PAUSED: Final = "paused"
NEEDS_PERSON: Final = "needs_person"
IS_FORGETTABLE: Final = "ended_at IS NOT NULL AND NOT unfinished AND NOT needs_person AND quarantine_code IS NULL"
IS_OPEN: Final = "closed_at IS NULL"

METADATA: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _saga_id_type() -> TypeEngine[str]:
    """UUIDs in their canonical text, which SQLite users can read and paste; PostgreSQL stores the sixteen bytes."""
    return String(36).with_variant(postgresql.UUID(as_uuid=False), "postgresql")


DEFINITION: Final = Table(
    "definition",
    METADATA,
    Column("name", String(NAME_CHARS_MAX), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("content", LargeBinary, nullable=False),
    Column("registered_at", BigInteger, nullable=False),
)

SAGA: Final = Table(
    "saga",
    METADATA,
    Column("saga_id", _saga_id_type(), primary_key=True),
    Column("shard", SmallInteger, nullable=False),
    Column("definition_name", String(NAME_CHARS_MAX), nullable=False),
    Column("definition_version", Integer, nullable=False),
    Column("fingerprint", LargeBinary, nullable=False),
    # `saga.v1.SagaStatus`. The row is written when the status or one of the columns that follow from the state changes, not with every
    # event: `status`, `sequence` and `updated_at` tell of the last event that changed it.
    Column("status", SmallInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    # When it was COMPLETED, COMPENSATED or terminated; what its hook does later leaves that alone.
    Column("ended_at", BigInteger),
    # Until when it sleeps: it is not held in memory, and nothing of it is under way. Past: it was woken, and nothing was written since.
    Column("wake_at", BigInteger),
    # Why the saga is set aside: code and words of a google.rpc.Status. Null: it is not.
    Column("quarantine_code", Integer),
    Column("quarantine_message", Text),
    # Whether it can move by itself, its hook included (R16). Who takes a shard over takes up those that do not sleep.
    Column("unfinished", Boolean, nullable=False, server_default=false()),
    # Whether a person has stopped it.
    Column("paused", Boolean, nullable=False, server_default=false()),
    # Whether an incident of it is open.
    Column("needs_person", Boolean, nullable=False, server_default=false()),
    Index("ix_saga_awake", "shard", "saga_id", sqlite_where=text(IS_AWAKE), postgresql_where=text(IS_AWAKE)),
    Index("ix_saga_asleep", "shard", "wake_at", "saga_id", sqlite_where=text(IS_ASLEEP), postgresql_where=text(IS_ASLEEP)),
    # Few sagas are in these two: a row that is not in them costs them nothing, and they are found whatever else is asked.
    Index("ix_saga_paused", "created_at", "saga_id", sqlite_where=text(IS_PAUSED), postgresql_where=text(IS_PAUSED)),
    Index("ix_saga_needs_person", "created_at", "saga_id", sqlite_where=text(NEEDS_PERSON), postgresql_where=text(NEEDS_PERSON)),
    Index("ix_saga_forgettable", "ended_at", sqlite_where=text(IS_FORGETTABLE), postgresql_where=text(IS_FORGETTABLE)),
    Index(None, "created_at", "saga_id"),
    Index(None, "status", "created_at", "saga_id"),
    Index(None, "definition_name", "status", "created_at", "saga_id"),
)

SAGA_LABEL: Final = Table(
    "saga_label",
    METADATA,
    Column("saga_id", _saga_id_type(), ForeignKey("saga.saga_id", ondelete="CASCADE"), primary_key=True),
    Column("key", String(LABEL_KEY_CHARS_MAX), primary_key=True),
    Column("value", String(LABEL_VALUE_CHARS_MAX), nullable=False),
    # The saga's, again: so that one index finds the newest sagas of a label.
    Column("created_at", BigInteger, nullable=False),
    Index(None, "key", "value", "created_at", "saga_id"),
)

# No foreign key: a saga outlives its key, and retention may delete either first (R4).
START_KEY: Final = Table(
    "start_key",
    METADATA,
    Column("definition_name", String(NAME_CHARS_MAX), primary_key=True),
    Column("key", String(KEY_CHARS_MAX), primary_key=True),
    Column("saga_id", _saga_id_type(), nullable=False),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("expires_at", BigInteger, nullable=False, index=True),
)

# The journal. `payload` is `saga.v1.Event` (R30). No foreign key to `saga`: it would be looked up for every event, and an event whose
# predecessor is missing is refused anyway.
EVENT: Final = Table(
    "event",
    METADATA,
    Column("shard", SmallInteger, primary_key=True, autoincrement=False),
    # In the order of commits. Grows without repeating, but may leave numbers out.
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("saga_id", _saga_id_type(), nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    UniqueConstraint("saga_id", "sequence"),
)

INCIDENT: Final = Table(
    "incident",
    METADATA,
    Column("saga_id", _saga_id_type(), ForeignKey("saga.saga_id", ondelete="CASCADE"), primary_key=True),
    Column("id", Integer, primary_key=True, autoincrement=False),
    # `saga.v1.IncidentKind`.
    Column("kind", SmallInteger, nullable=False),
    # Null: about the whole saga.
    Column("step_id", String(STEP_ID_CHARS_MAX)),
    Column("code", Integer, nullable=False),
    Column("message", Text, nullable=False),
    Column("opened_at", BigInteger, nullable=False),
    Column("closed_at", BigInteger),
    Index(
        "ix_incident_open",
        "opened_at",
        "saga_id",
        "id",
        sqlite_where=text(IS_OPEN),
        postgresql_where=text(IS_OPEN),
    ),
    Index(None, "opened_at", "saga_id", "id"),
)

SHARD: Final = Table(
    "shard",
    METADATA,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    # The node that writes. Null: nobody.
    Column("owner", String(36)),
    # The fencing token: grows by one with every change of the owner (P6).
    Column("epoch", BigInteger, nullable=False),
    # Null where ownership is not a matter of time but of a file lock (R32).
    Column("lease_until", BigInteger),
    # Position of the last event.
    Column("position", BigInteger, nullable=False),
)

NODE: Final = Table(
    "node",
    METADATA,
    Column("id", String(36), primary_key=True),
    Column("host", String(NAME_CHARS_MAX), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    # Where other nodes reach its API. Empty: there are no others.
    Column("address", String(TARGET_CHARS_MAX), nullable=False, server_default=text("''")),
    # Until when it counts as alive, by the clock of the database. Null: that is not a matter of time.
    Column("lease_until", BigInteger),
    # Whether a person wants it to give up its shards and take no others.
    Column("cordoned", Boolean, nullable=False, server_default=false()),
    # The newest revision of these tables that its release knows. Null: one before there was this column.
    Column("knows", String(32)),
)

# One row: the revision of these tables that code must know to work on them as they are. Looked at by code that does not know their own.
SCHEMA_FLOOR: Final = Table("schema_floor", METADATA, Column("revision", String(32), primary_key=True))

PARTICIPANT: Final = Table(
    "participant",
    METADATA,
    Column("name", String(NAME_CHARS_MAX), primary_key=True),
    Column("target", String(TARGET_CHARS_MAX), primary_key=True),
    Column("description", LargeBinary, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
)

# What every node on this database must know and nobody else may.
SECRET: Final = Table(
    "secret",
    METADATA,
    Column("name", String(NAME_CHARS_MAX), primary_key=True),
    Column("value", LargeBinary, nullable=False),
)
