"""The SQL of the hot path: compiled once through SQLAlchemy Core, and one statement for many rows.

Not `executemany`: the driver gives up Python's interpreter lock around every row and must win it back from a busy event loop, up to five
milliseconds each time. A commit of 64 rows beside a busy loop was measured at 3.2 s row by row, and at 10 ms in one statement.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final

from sqlalchemy import (
    CTE,
    BigInteger,
    Column,
    Connection,
    Dialect,
    Executable,
    Table,
    and_,
    bindparam,
    column,
    exists,
    func,
    insert,
    literal_column,
    select,
    update,
    values,
)
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.elements import ClauseElement, ColumnElement

from coordinator.journal.tables import EVENT, INCIDENT, SAGA, SAGA_LABEL, SHARD, START_KEY

ROWS_MAX: Final = 64
"""Rows in one statement at most; a power of two. With the widest table that is a fortieth of the parameters that SQLite allows."""
STATEMENTS_CACHED: Final = 256
"""Prepared statements that a connection must keep: seven sizes of each statement here, and then some."""

Cell = str | int | bytes | None
Row = tuple[Cell, ...]


class RowsStatement:
    """A statement over any number of rows, run in pieces of 64, 32, 16, 8, 4, 2 and 1, so that few texts are compiled and prepared."""

    def __init__(self, build: Callable[[int], Executable], dialect: Dialect) -> None:
        self._build = build
        self._dialect = dialect
        assert dialect.dbapi is not None, "a dialect of an engine has a driver"
        self._driver_error = dialect.dbapi.Error
        self._texts: dict[int, str] = {}

    def count(self, connection: Connection, rows: Sequence[Row]) -> int:
        """Runs all of it; returns how many rows were written."""
        written = 0
        for cursor in self.run(connection, rows):
            written += cursor.rowcount
            cursor.close()
        return written

    def total(self, connection: Connection, rows: Sequence[Row]) -> int:
        """Runs all of it, where each piece answers with one number; returns their sum."""
        return sum(cell for found in self.fetch(connection, rows) for cell in found if isinstance(cell, int))

    def fetch(self, connection: Connection, rows: Sequence[Row]) -> list[tuple[Cell, ...]]:
        """Runs all of it; returns what was found, which should be little: each row is a step of the driver."""
        found: list[tuple[Cell, ...]] = []
        for cursor in self.run(connection, rows):
            found += map(tuple, cursor.fetchall())
            cursor.close()
        return found

    def run(self, connection: Connection, rows: Sequence[Row]) -> Iterator[DBAPICursor]:
        """Each piece in order. Nothing is run that is not asked for.

        With a cursor of the driver, since text and cells are what it takes: what a Connection does around them is a sixth of the processor
        time of a commit of one append. Errors are those that a Connection raises.
        """
        start = 0
        while start < len(rows):
            size = min(ROWS_MAX, 1 << (len(rows) - start).bit_length() - 1)
            cells = tuple(cell for row in rows[start : start + size] for cell in row)
            cursor = connection.connection.cursor()
            try:
                cursor.execute(self._text(size), cells)
            except self._driver_error as error:
                raise self._as_raised_by_connections(self._text(size), error) from error
            yield cursor
            start += size

    def _as_raised_by_connections(self, text: str, error: Exception) -> Exception:
        return DBAPIError.instance(text, None, error, self._driver_error, hide_parameters=True, dialect=self._dialect)

    def _text(self, size: int) -> str:
        text = self._texts.get(size)
        if text is None:
            text = self._texts[size] = _compiled(self._build(size), self._dialect)
        return text


class Statements:
    """Every statement of the hot path for one dialect. The order of the cells of a row is that of the columns named here."""

    def __init__(self, dialect: Dialect) -> None:
        self.insert_sagas = RowsStatement(_insert(SAGA, SAGA_COLUMNS), dialect)
        self.insert_labels = RowsStatement(_insert(SAGA_LABEL, list(SAGA_LABEL.c)), dialect)
        self.insert_keys = RowsStatement(_insert(START_KEY, list(START_KEY.c)), dialect)
        self.insert_events = RowsStatement(_insert(EVENT, list(EVENT.c)), dialect)
        self.insert_incidents = RowsStatement(_insert(INCIDENT, INCIDENT_COLUMNS), dialect)
        self.close_incidents = RowsStatement(_close_incidents, dialect)
        self.update_sagas = RowsStatement(_update_sagas, dialect)
        self.update_needs = RowsStatement(_update_needs, dialect)
        self.find_keys = RowsStatement(_find_keys, dialect)
        self.find_sagas = RowsStatement(_find_sagas, dialect)
        self.count_events = RowsStatement(_count_events, dialect)
        self.advance_shards = RowsStatement(partial(_advance_shards, is_guarded=dialect.name == "postgresql"), dialect)
        """The fence: shards that this epoch does not own, or whose position is not the one expected, stay as they are (R26, P6)."""


SAGA_COLUMNS: Final = [
    SAGA.c.saga_id,
    SAGA.c.shard,
    SAGA.c.definition_name,
    SAGA.c.definition_version,
    SAGA.c.fingerprint,
    SAGA.c.status,
    SAGA.c.sequence,
    SAGA.c.created_at,
    SAGA.c.updated_at,
    SAGA.c.ended_at,
    SAGA.c.wake_at,
    SAGA.c.unfinished,
    SAGA.c.paused,
]
INCIDENT_COLUMNS: Final = [
    INCIDENT.c.saga_id,
    INCIDENT.c.id,
    INCIDENT.c.kind,
    INCIDENT.c.step_id,
    INCIDENT.c.code,
    INCIDENT.c.message,
    INCIDENT.c.opened_at,
]
CLOSING_COLUMNS: Final = [INCIDENT.c.saga_id, INCIDENT.c.id, INCIDENT.c.closed_at]
CHANGE_COLUMNS: Final = [
    SAGA.c.saga_id,
    SAGA.c.status,
    SAGA.c.sequence,
    SAGA.c.updated_at,
    SAGA.c.ended_at,
    SAGA.c.wake_at,
    SAGA.c.unfinished,
    SAGA.c.paused,
]


IDLE_TIMEOUT_MS: Final = 4_000
"""A process that was stopped in the midst of a database transaction holds its shards for so long (R31). Less than a lease."""
_GUARD: Final[ColumnElement[str]] = literal_column(f"set_config('idle_in_transaction_session_timeout', '{IDLE_TIMEOUT_MS}', true)")
_WITHOUT_SCANS: Final[ColumnElement[str]] = literal_column("set_config('enable_seqscan', 'off', true)")
ADVANCE_COLUMNS: Final = [SHARD.c.id, SHARD.c.epoch, column("old", BigInteger), column("new", BigInteger)]


def _insert(table: Table, columns: Sequence[Column[object]]) -> Callable[[int], Executable]:
    def build(size: int) -> Executable:
        return insert(table).values([{item.name: bindparam(f"{item.name}_{row}") for item in columns} for row in range(size)])

    return build


def _given(columns: Sequence[ColumnElement[object]], size: int, *, nesting: bool = False) -> CTE:
    """The cells of the statement as a table to join with. (A row-value IN would make SQLite read the whole other table.)"""
    row = tuple(item.name for item in columns)  # placeholders: only the text is wanted
    return values(*(column(item.name, item.type) for item in columns), name="given").data([row] * size).cte("given", nesting=nesting)


def _update_sagas(size: int) -> Executable:
    # The rows stand within a subquery: of a statement that begins with WITH, SQLite's driver does not say how many rows it changed.
    change = select(_given(CHANGE_COLUMNS, size, nesting=True)).subquery("change")
    changed: dict[str, ColumnElement[object]] = {item.name: change.c[item.name] for item in CHANGE_COLUMNS[1:]}
    changed["ended_at"] = func.coalesce(SAGA.c.ended_at, change.c.ended_at)  # an end stays, whatever the hook does after it
    return update(SAGA).where(SAGA.c.saga_id == change.c.saga_id).values(changed)


def _close_incidents(size: int) -> Executable:
    closing = select(_given(CLOSING_COLUMNS, size, nesting=True)).subquery("closing")
    same = and_(INCIDENT.c.saga_id == closing.c.saga_id, INCIDENT.c.id == closing.c.id)
    return update(INCIDENT).where(same).values(closed_at=closing.c.closed_at)


def _update_needs(size: int) -> Executable:
    concerned = select(_given([SAGA.c.saga_id], size, nesting=True)).subquery("concerned")
    is_open = exists().where(INCIDENT.c.saga_id == SAGA.c.saga_id, INCIDENT.c.closed_at.is_(None))
    return update(SAGA).where(SAGA.c.saga_id == concerned.c.saga_id).values(needs_person=is_open)


def _find_keys(size: int) -> Executable:
    given = _given([START_KEY.c.definition_name, START_KEY.c.key], size)
    same = and_(START_KEY.c.definition_name == given.c.definition_name, START_KEY.c.key == given.c.key)
    return select(*START_KEY.c).join_from(given, START_KEY, same)


def _find_sagas(size: int) -> Executable:
    given = _given([SAGA.c.saga_id], size)
    return select(SAGA.c.saga_id, SAGA.c.fingerprint).join_from(given, SAGA, SAGA.c.saga_id == given.c.saga_id)


def _count_events(size: int) -> Executable:
    given = _given([EVENT.c.saga_id, EVENT.c.sequence], size)
    same = and_(EVENT.c.saga_id == given.c.saga_id, EVENT.c.sequence == given.c.sequence)
    return select(func.count()).join_from(given, EVENT, same)


def _advance_shards(size: int, *, is_guarded: bool) -> Executable:
    """`is_guarded`: with what `Store.guard` does in a statement of its own, for PostgreSQL; and without scans of whole tables, which its
    planner chooses while they have no statistics yet."""
    advance = select(_given(ADVANCE_COLUMNS, size, nesting=True)).subquery("advance")
    ours = and_(SHARD.c.id == advance.c.id, SHARD.c.epoch == advance.c.epoch, SHARD.c.position == advance.c.old)
    fence = update(SHARD).where(ours).values(position=advance.c.new)
    if not is_guarded:
        return fence
    return fence.returning(_GUARD, _WITHOUT_SCANS)


def _compiled(statement: Executable, dialect: Dialect) -> str:
    assert isinstance(statement, ClauseElement)
    return str(statement.compile(dialect=dialect))
