"""Run by Alembic. The connection comes from `coordinator.journal.schema`, within a database transaction that is committed there."""

from alembic import context
from sqlalchemy import Connection

from coordinator.journal.tables import METADATA

connection = context.config.attributes["connection"]
assert isinstance(connection, Connection), "migrations run through coordinator.journal.schema only"
context.configure(connection=connection, target_metadata=METADATA, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
