"""Whether a table that is there is the one that the barrier needs. Its columns say so: there is no number of a version to forget."""

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import (
    VARBINARY,
    BigInteger,
    Column,
    Connection,
    Dialect,
    Integer,
    MetaData,
    Table,
    inspect,
    text,
)
from sqlalchemy.dialects.mysql import LONGBLOB, MEDIUMBLOB
from sqlalchemy.engine.interfaces import ReflectedColumn
from sqlalchemy.schema import CreateColumn, CreateIndex, CreateTable
from sqlalchemy.types import TypeEngine

from participant_sdk.barrier.mysql import ExactText, is_mysql
from participant_sdk.errors import BarrierTableOutdatedError

_ADDABLE: Final[Mapping[str, str | None]] = {
    "reply": None,
    "locked_until_us": "0",
    "compensation": "'NONE'",
    "compensation_locked_until_us": "0",
    "handler_ran": "false",
}
"""Columns that can be added to a table with rows in it, and what they hold in those; None: nothing."""


def create_statements(table: Table, dialect: Dialect) -> list[str]:
    """SQL that makes the table and its index where they are missing. To be run again without harm."""
    created = str(CreateTable(table, if_not_exists=True).compile(dialect=dialect)).strip()
    if not is_mysql(dialect.name):
        return [created, *(str(CreateIndex(index, if_not_exists=True).compile(dialect=dialect)).strip() for index in table.indexes)]
    # MySQL knows no CREATE INDEX IF NOT EXISTS, so the index is part of the table from the beginning.
    columns, _, options = created.rpartition("\n)")
    quote = dialect.identifier_preparer.quote
    indexes = [f"INDEX {quote(str(index.name))} ({', '.join(quote(each.name) for each in index.columns)})" for index in table.indexes]
    return [",\n\t".join([columns.rstrip().rstrip(","), *indexes]) + f"\n){options}"]


def upgrade_statements(connection: Connection, table: Table) -> list[str]:
    """SQL that makes the table, or adds and widens what the one that is there needs; empty if it is as it should be.

    Raises BarrierTableOutdatedError if no statement makes a barrier's table of it.
    """
    dialect = connection.dialect
    if not has_table(connection, table):
        return create_statements(table, dialect)
    found = {column["name"]: column for column in inspect(connection).get_columns(table.name, schema=table.schema)}
    name = dialect.identifier_preparer.format_table(table)
    statements = []
    for column in table.columns:
        if column.name not in found:
            statements.append(f"ALTER TABLE {name} ADD COLUMN {_addition(column, dialect)}")
        elif _too_small(column, found[column.name], dialect) is not None:
            statements.append(f"ALTER TABLE {name} {_widening(column, dialect)}")
    known = {index["name"] for index in inspect(connection).get_indexes(table.name, schema=table.schema)}
    missing = [index for index in table.indexes if index.name not in known]
    return [*statements, *(str(CreateIndex(index).compile(dialect=dialect)).strip() for index in missing)]


def _addition(column: Column[Any], dialect: Dialect) -> str:
    if column.name not in _ADDABLE:
        raise BarrierTableOutdatedError(
            f"the table {column.table} has no column {column.name}, without which it is no table of the barrier"
        )
    held = _ADDABLE[column.name]
    default = None if held is None else text(held)
    added = Column(column.name, column.type, nullable=column.nullable, server_default=default)
    Table(column.table.name, MetaData(), added)
    return str(CreateColumn(added).compile(dialect=dialect))


def _widening(column: Column[Any], dialect: Dialect) -> str:
    if is_mysql(dialect.name):
        return f"MODIFY COLUMN {CreateColumn(column).compile(dialect=dialect)}"
    return f"ALTER COLUMN {dialect.identifier_preparer.quote(column.name)} TYPE {column.type.compile(dialect)}"


def has_table(connection: Connection, table: Table) -> bool:
    """Whether there is a table of that name, whatever it looks like."""
    return inspect(connection).has_table(table.name, schema=table.schema)


def differences(connection: Connection, table: Table) -> list[str]:
    """What keeps the table that is there from being of use, each in a few words; empty if nothing does.

    Columns that are too much are let be, unless every row needs a value for them.
    """
    inspector = inspect(connection)
    found = {column["name"]: column for column in inspector.get_columns(table.name, schema=table.schema)}
    said = [f"column {column.name} is missing" for column in table.columns if column.name not in found]
    for name, column in found.items():
        if name not in table.columns:
            if not column["nullable"] and column.get("default") is None and column.get("autoincrement") is not True:
                said.append(f"column {name} is NOT NULL without a default, and not the barrier's")
        elif (too_small := _too_small(table.columns[name], column, connection.dialect)) is not None:
            said.append(too_small)
    is_unique = inspector.get_pk_constraint(table.name, schema=table.schema)["constrained_columns"] == ["key"]
    if "key" in found and not is_unique:
        said.append("column key is not the primary key")
    return said


def _too_small(wanted: Column[Any], found: ReflectedColumn, dialect: Dialect) -> str | None:
    expected = wanted.type.dialect_impl(dialect)
    actual = found["type"]
    if _holds(actual, expected, dialect):
        return None
    return f"column {wanted.name} is {actual.compile(dialect)}, expected {expected.compile(dialect)}"


def _holds(actual: TypeEngine[Any], expected: TypeEngine[Any], dialect: Dialect) -> bool:
    """Whether every value that the barrier writes fits. SQLite keeps whatever it is given."""
    if dialect.name == "sqlite":
        return True
    if isinstance(expected, BigInteger):
        return isinstance(actual, BigInteger) or not isinstance(actual, Integer)
    if isinstance(expected, MEDIUMBLOB):
        return isinstance(actual, MEDIUMBLOB | LONGBLOB)
    if isinstance(expected, ExactText) and not isinstance(actual, VARBINARY):
        return False  # Text, with a collation of its own.
    length, wanted = getattr(actual, "length", None), getattr(expected, "length", None)
    return length is None or wanted is None or length >= wanted
