"""The barrier's SQL: built once per table, compiled once per dialect by SQLAlchemy's cache."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

from sqlalchemy import CursorResult, Table, bindparam, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from participant_sdk.barrier.mysql import DIALECT_NAMES, insert_or_lock, is_mysql
from participant_sdk.barrier.verdict import BarrierRow, CompensationState, ExecutionState
from participant_sdk.errors import ParticipantSetupError

_COLUMNS: Final = tuple(each.name for each in fields(BarrierRow))
_IMMUTABLE: Final = frozenset({"key", "saga_id", "step_id", "action", "fingerprint", "created_at_us"})
_CHANGING: Final = tuple(name for name in _COLUMNS if name not in _IMMUTABLE)
_INSERTS: Final[Mapping[str, Callable[[Table], sqlite.Insert | postgresql.Insert]]] = {
    "sqlite": sqlite.insert,
    "postgresql": postgresql.insert,
}
"""INSERT with ON CONFLICT, by the name of the dialect."""
_SUPPORTED: Final = (*_INSERTS, *DIALECT_NAMES)

Parameters = dict[str, object]


class Statements:
    """What the barrier says to one table in one dialect."""

    def __init__(self, table: Table, dialect_name: str) -> None:
        if dialect_name not in _SUPPORTED:
            raise ParticipantSetupError(f"SqlBarrier works with {', '.join(_SUPPORTED)}, found an engine for {dialect_name}")
        self.table = table
        self.is_mysql = is_mysql(dialect_name)
        # The first statement of a unit: it takes the lock of the key, and on SQLite the one write lock, before anything is read.
        put = insert_or_lock(table, _COLUMNS) if self.is_mysql else _insert_or_nothing(table, dialect_name)
        self.insert = put.execution_options(preserve_rowcount=True)
        self.select_for_update = select(*(table.c[name] for name in _COLUMNS)).where(table.c.key == bindparam("key")).with_for_update()
        # Of many rows, those that were put. MySQL cannot say that of more than one.
        self.insert_returning = None if self.is_mysql else self.insert.returning(table.c.key)
        self.select_many_for_update = (
            select(*(table.c[name] for name in _COLUMNS))
            .where(table.c.key.in_(bindparam("keys", expanding=True)))
            .order_by(table.c.key)
            .with_for_update()
        )
        self.update = (
            update(table).where(table.c.key == bindparam("row_key")).values({name: bindparam(f"new_{name}") for name in _CHANGING})
        )
        self.delete = delete(table).where(table.c.key == bindparam("row_key"))
        oldest = (
            select(table.c.key)
            .where(table.c.created_at_us < bindparam("created_before_us"))
            .order_by(table.c.created_at_us)
            .limit(bindparam("row_limit"))
        )
        self.delete_oldest = delete(table).where(table.c.key.in_(oldest))
        # For MySQL, which refuses that, and locks all that it has looked at rather than what it deletes.
        self.select_oldest = oldest
        self.delete_known = delete(table).where(
            table.c.key.in_(bindparam("keys", expanding=True)), table.c.created_at_us < bindparam("created_before_us")
        )

    def has_put(self, inserted: CursorResult[Any]) -> bool:
        """Whether `insert` found no row with that key."""
        return inserted.lastrowid == 0 if self.is_mysql else inserted.rowcount == 1


def _insert_or_nothing(table: Table, dialect_name: str) -> sqlite.Insert | postgresql.Insert:
    put = _INSERTS[dialect_name](table).values({name: bindparam(name) for name in _COLUMNS})
    return put.on_conflict_do_nothing(index_elements=[table.c.key])


def insert_parameters(row: BarrierRow) -> Parameters:
    """What `Statements.insert` is executed with."""
    return {name: getattr(row, name) for name in _COLUMNS}


def update_parameters(row: BarrierRow) -> Parameters:
    """What `Statements.update` is executed with."""
    parameters: Parameters = {f"new_{name}": getattr(row, name) for name in _CHANGING}
    parameters["row_key"] = row.key
    return parameters


def row_of(found: Sequence[object]) -> BarrierRow:
    """A row of the table as the barrier's value. Raises ValueError if it was changed by hand into what cannot be."""
    values = dict(zip(_COLUMNS, found, strict=True))
    values["execution"] = ExecutionState(str(values["execution"]))
    values["compensation"] = CompensationState(str(values["compensation"]))
    return BarrierRow(**values)  # type: ignore[arg-type]  # the table's columns have the types of the fields
