"""The journal and what is kept beside it."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes every table."""
    _make_registries()
    _make_sagas()
    _make_journal()
    _make_owners()
    if op.get_bind().dialect.name == "sqlite":
        op.execute(SAGA_VIEW)


def _saga_id(*, nullable: bool = False) -> sa.Column[str]:
    kind = sa.String(36).with_variant(postgresql.UUID(as_uuid=False), "postgresql")
    return sa.Column("saga_id", kind, nullable=nullable)


def _make_registries() -> None:
    op.create_table(
        "definition",
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("version", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.Column("registered_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", "version", name="pk_definition"),
    )
    op.create_table(
        "participant",
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("target", sa.String(512), nullable=False),
        sa.Column("description", sa.LargeBinary, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", "target", name="pk_participant"),
    )


def _make_sagas() -> None:
    op.create_table(
        "saga",
        _saga_id(),
        sa.Column("shard", sa.SmallInteger, nullable=False),
        sa.Column("definition_name", sa.String(128), nullable=False),
        sa.Column("definition_version", sa.Integer, nullable=False),
        sa.Column("fingerprint", sa.LargeBinary, nullable=False),
        sa.Column("status", sa.SmallInteger, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("ended_at", sa.BigInteger),
        sa.Column("wake_at", sa.BigInteger),
        sa.Column("quarantine_code", sa.Integer),
        sa.Column("quarantine_message", sa.Text),
        sa.PrimaryKeyConstraint("saga_id", name="pk_saga"),
    )
    _partial_index("ix_saga_unfinished", "saga", ["shard", "saga_id"], "status IN (1, 2, 4) AND quarantine_code IS NULL")
    _partial_index("ix_saga_wake_at", "saga", ["shard", "wake_at"], "wake_at IS NOT NULL")
    op.create_index("ix_saga_created_at_saga_id", "saga", ["created_at", "saga_id"])
    op.create_index("ix_saga_status_created_at_saga_id", "saga", ["status", "created_at", "saga_id"])
    op.create_index("ix_saga_definition_name_created_at_saga_id", "saga", ["definition_name", "created_at", "saga_id"])
    op.create_table(
        "saga_label",
        _saga_id(),
        sa.Column("key", sa.String(63), nullable=False),
        sa.Column("value", sa.String(255), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("saga_id", "key", name="pk_saga_label"),
        sa.ForeignKeyConstraint(["saga_id"], ["saga.saga_id"], name="fk_saga_label_saga_id", ondelete="CASCADE"),
    )
    op.create_index("ix_saga_label_key_value_created_at_saga_id", "saga_label", ["key", "value", "created_at", "saga_id"])


def _make_journal() -> None:
    op.create_table(
        "start_key",
        sa.Column("definition_name", sa.String(128), nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        _saga_id(),
        sa.Column("fingerprint", sa.LargeBinary, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("definition_name", "key", name="pk_start_key"),
    )
    op.create_index("ix_start_key_expires_at", "start_key", ["expires_at"])
    op.create_table(
        "event",
        sa.Column("shard", sa.SmallInteger, autoincrement=False, nullable=False),
        sa.Column("position", sa.BigInteger, autoincrement=False, nullable=False),
        _saga_id(),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("shard", "position", name="pk_event"),
        sa.UniqueConstraint("saga_id", "sequence", name="uq_event_saga_id_sequence"),
    )
    op.create_table(
        "incident",
        _saga_id(),
        sa.Column("id", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("kind", sa.SmallInteger, nullable=False),
        sa.Column("step_id", sa.String(64)),
        sa.Column("code", sa.Integer, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("opened_at", sa.BigInteger, nullable=False),
        sa.Column("closed_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("saga_id", "id", name="pk_incident"),
        sa.ForeignKeyConstraint(["saga_id"], ["saga.saga_id"], name="fk_incident_saga_id", ondelete="CASCADE"),
    )
    _partial_index("ix_incident_open", "incident", ["opened_at", "saga_id", "id"], "closed_at IS NULL")


def _make_owners() -> None:
    op.create_table(
        "shard",
        sa.Column("id", sa.SmallInteger, autoincrement=False, nullable=False),
        sa.Column("owner", sa.String(36)),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("lease_until", sa.BigInteger),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_shard"),
    )
    op.create_table(
        "node",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("host", sa.String(128), nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_node"),
    )


def _partial_index(name: str, table: str, columns: list[str], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, table, columns, sqlite_where=where, postgresql_where=where)


SAGA_VIEW = """
CREATE VIEW saga_view AS
SELECT saga_id,
       definition_name,
       definition_version,
       CASE status WHEN 1 THEN 'PENDING' WHEN 2 THEN 'RUNNING' WHEN 3 THEN 'COMPLETED'
                   WHEN 4 THEN 'COMPENSATING' WHEN 5 THEN 'COMPENSATED' WHEN 6 THEN 'FAILED' END AS status,
       strftime('%Y-%m-%dT%H:%M:%S', created_at / 1000000, 'unixepoch') || printf('.%06dZ', created_at % 1000000) AS created_at,
       strftime('%Y-%m-%dT%H:%M:%S', updated_at / 1000000, 'unixepoch') || printf('.%06dZ', updated_at % 1000000) AS updated_at,
       strftime('%Y-%m-%dT%H:%M:%S', ended_at / 1000000, 'unixepoch') || printf('.%06dZ', ended_at % 1000000) AS ended_at,
       quarantine_message,
       (SELECT count(*) FROM incident WHERE incident.saga_id = saga.saga_id AND closed_at IS NULL) AS incidents_open
FROM saga
"""
