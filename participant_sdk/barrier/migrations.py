"""The barrier's table in your own migrations: with Alembic, or as plain SQL.

    def upgrade() -> None:
        upgrade_barrier(op)

    def downgrade() -> None:
        drop_barrier(op)

Alembic itself is not needed: what it calls `op` is passed in. `python -m participant_sdk.barrier.migrations postgresql` writes plain SQL.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from sqlalchemy import Connection, Dialect, MetaData
from sqlalchemy.dialects import mysql, postgresql, sqlite

from participant_sdk.barrier.table import BARRIER_TABLE_NAME, barrier_table
from participant_sdk.barrier.table_shape import create_statements, upgrade_statements

__all__ = ["MigrationContext", "Operations", "barrier_sql", "drop_barrier", "upgrade_barrier"]

_DIALECTS: Final[Mapping[str, Callable[[], Dialect]]] = {
    "sqlite": sqlite.dialect,
    "postgresql": postgresql.dialect,
    "mysql": mysql.dialect,
    "mariadb": mysql.dialect,
}


class MigrationContext(Protocol):
    """What `op.get_context()` of Alembic gives, as far as it is needed here."""

    @property
    def as_sql(self) -> bool:
        """Whether SQL is only written down, as by `alembic upgrade --sql`."""

    @property
    def dialect(self) -> Dialect: ...


class Operations(Protocol):
    """`alembic.op`, as far as it is needed here."""

    def get_context(self) -> MigrationContext: ...
    def get_bind(self) -> Connection: ...
    def execute(self, sqltext: str, /) -> None: ...


def upgrade_barrier(op: Operations, *, table_name: str = BARRIER_TABLE_NAME) -> None:
    """Makes the barrier's table and its index; a table that is there is given what this version of the barrier needs. Harmless if repeated.

    What was stored stays. Where SQL is only written down nobody can look, so there it makes the table unless one is there. Raises
    BarrierTableOutdatedError if the table that is there is none of a barrier.
    """
    table = barrier_table(MetaData(), table_name)
    context = op.get_context()
    statements = create_statements(table, context.dialect) if context.as_sql else upgrade_statements(op.get_bind(), table)
    for statement in statements:
        op.execute(statement)


def drop_barrier(op: Operations, *, table_name: str = BARRIER_TABLE_NAME) -> None:
    """Drops the barrier's table if it is there. Only when no saga calls this participant any more: all keys are forgotten."""
    quote = op.get_context().dialect.identifier_preparer.quote
    op.execute(f"DROP TABLE IF EXISTS {quote(table_name)}")


def barrier_sql(dialect_name: str, *, table_name: str = BARRIER_TABLE_NAME) -> str:
    """Plain SQL that makes the table and its index where they are missing. `dialect_name`: sqlite, postgresql, mysql or mariadb.

    Raises ValueError for any other.
    """
    make = _DIALECTS.get(dialect_name)
    if make is None:
        raise ValueError(f"expected {', '.join(_DIALECTS)}, found {dialect_name!r}")
    statements = create_statements(barrier_table(MetaData(), table_name), make())
    return "".join(f"{statement};\n" for statement in statements)


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes what `barrier_sql` makes to the standard output."""
    parser = argparse.ArgumentParser(prog="python -m participant_sdk.barrier.migrations", description="Plain SQL for the barrier's table.")
    parser.add_argument("dialect", choices=[*_DIALECTS])
    parser.add_argument("--table", default=BARRIER_TABLE_NAME, help="its name (default: %(default)s)")
    given = parser.parse_args(arguments)
    sys.stdout.write(barrier_sql(given.dialect, table_name=given.table))


if __name__ == "__main__":
    main()
