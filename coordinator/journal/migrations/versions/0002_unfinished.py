"""What of a saga's state is not its status: unfinished, paused, needs a person. Incidents by age, and secrets that nodes share.

Columns are added and not a table rebuilt: rebuilding would drop `saga`, and with it, by their foreign keys, every label and incident.
"""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds and fills the columns, and makes what is found by them."""
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    if is_sqlite:
        op.execute("DROP VIEW saga_view")
    _add_columns()
    _fill_columns()
    _make_indexes()
    op.create_table(
        "secret",
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("value", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_secret"),
    )
    if is_sqlite:
        op.execute(SAGA_VIEW)


def _add_columns() -> None:
    for name in ("unfinished", "paused", "needs_person"):
        op.add_column("saga", sa.Column(name, sa.Boolean, nullable=False, server_default=sa.false()))


def _fill_columns() -> None:
    """Only rows that differ from the defaults are written: of the many sagas that have ended there is nothing to say."""
    saga, incident = _SAGA, _INCIDENT
    op.execute(sa.update(saga).where(saga.c.status.in_(UNFINISHED)).values(unfinished=sa.true()))
    open_incidents = sa.select(incident.c.saga_id).where(incident.c.closed_at.is_(None))
    op.execute(sa.update(saga).where(saga.c.saga_id.in_(open_incidents)).values(needs_person=sa.true()))


def _make_indexes() -> None:
    op.drop_index("ix_saga_unfinished", table_name="saga")
    _partial_index("ix_saga_unfinished", ["shard", "saga_id"], "unfinished AND quarantine_code IS NULL")
    _partial_index("ix_saga_paused", ["created_at", "saga_id"], "paused")
    _partial_index("ix_saga_needs_person", ["created_at", "saga_id"], "needs_person")
    op.create_index("ix_incident_opened_at_saga_id_id", "incident", ["opened_at", "saga_id", "id"])


def _partial_index(name: str, columns: list[str], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, "saga", columns, sqlite_where=where, postgresql_where=where)


UNFINISHED: Final = (1, 2, 4)
"""PENDING, RUNNING, COMPENSATING: before this revision, sagas of these statuses, and no others, could move by themselves."""

_SAGA: Final = sa.table("saga", sa.column("saga_id"), sa.column("status"), sa.column("unfinished"), sa.column("needs_person"))
_INCIDENT: Final = sa.table("incident", sa.column("saga_id"), sa.column("closed_at"))

SAGA_VIEW: Final = """
CREATE VIEW saga_view AS
SELECT saga_id,
       definition_name,
       definition_version,
       CASE status WHEN 1 THEN 'PENDING' WHEN 2 THEN 'RUNNING' WHEN 3 THEN 'COMPLETED'
                   WHEN 4 THEN 'COMPENSATING' WHEN 5 THEN 'COMPENSATED' WHEN 6 THEN 'FAILED' END AS status,
       strftime('%Y-%m-%dT%H:%M:%S', created_at / 1000000, 'unixepoch') || printf('.%06dZ', created_at % 1000000) AS created_at,
       strftime('%Y-%m-%dT%H:%M:%S', updated_at / 1000000, 'unixepoch') || printf('.%06dZ', updated_at % 1000000) AS updated_at,
       strftime('%Y-%m-%dT%H:%M:%S', ended_at / 1000000, 'unixepoch') || printf('.%06dZ', ended_at % 1000000) AS ended_at,
       CASE WHEN paused THEN 'yes' ELSE 'no' END AS paused,
       quarantine_message,
       (SELECT count(*) FROM incident WHERE incident.saga_id = saga.saga_id AND closed_at IS NULL) AS incidents_open
FROM saga
"""
