"""Rows and commits of the ceiling: the tables of the coordinator's journal, many rows in one statement, one kept connection."""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import asyncpg
from sqlalchemy import BigInteger, Column, Connection, Dialect, Engine, Integer, MetaData, Table, create_engine, event, make_url
from sqlalchemy.dialects import postgresql
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateIndex, CreateTable

from coordinator.journal.tables import EVENT, METADATA, SAGA
from saga.v1 import saga_pb2

ROWS_MAX: Final = 64
"""Rows in one statement at most; a power of two, so that few texts are made and prepared."""
SAGA_COLUMNS: Final = (
    "saga_id",
    "shard",
    "definition_name",
    "definition_version",
    "fingerprint",
    "status",
    "sequence",
    "created_at",
    "updated_at",
    "unfinished",
)
EVENT_COLUMNS: Final = ("shard", "position", "saga_id", "sequence", "payload")
CHANGE_COLUMNS: Final = ("saga_id", "status", "sequence", "updated_at", "ended_at", "unfinished")
FINGERPRINT: Final = bytes(32)
SHARD: Final = 0
PADDING: Final = bytes(80)
"""With the 210 bytes of a message, an event has about 300."""

Tables = Literal["lean", "journal"]
"""With one key each, or with all keys and indexes that the journal has."""
Cell = str | int | bytes | bool | None
Row = tuple[Cell, ...]


class Batch:
    """Rows that are committed together."""

    __slots__ = ("changes", "events", "sagas")

    def __init__(self) -> None:
        self.sagas: list[Row] = []
        self.events: list[Row] = []
        self.changes: list[Row] = []


class Rows:
    """Makes rows."""

    def __init__(self) -> None:
        self._position = 0

    def start(self, batch: Batch, saga_id: str) -> None:
        """A new saga."""
        now = time.time_ns() // 1000
        status = int(saga_pb2.SAGA_STATUS_RUNNING)
        batch.sagas.append((saga_id, SHARD, "bench", 1, FINGERPRINT, status, 1, now, now, True))

    def event(self, batch: Batch, saga_id: str, sequence: int, payload: bytes) -> None:
        """What has happened."""
        self._position += 1
        batch.events.append((SHARD, self._position, saga_id, sequence, payload + PADDING))

    def change(self, batch: Batch, saga_id: str, sequence: int, status: int, *, is_ended: bool) -> None:
        """How the saga stands now."""
        now = time.time_ns() // 1000
        batch.changes.append((saga_id, status, sequence, now, now if is_ended else None, not is_ended))


class Journal(Protocol):
    """Where batches are committed."""

    async def commit(self, batch: Batch, /) -> None:
        """Returns when the batch is on the disk."""
        ...


class SqliteJournal:
    """A write-ahead log with synchronous=FULL, written by SQLAlchemy Core on one connection in one thread."""

    def __init__(self, path: Path, tables: Tables) -> None:
        self._thread = ThreadPoolExecutor(1, "journal")
        self._engine = _sqlite_engine(path)
        with self._engine.begin() as connection:
            for statement in _definitions(self._engine.dialect, tables):
                connection.exec_driver_sql(statement)
        self._connection = self._engine.connect()
        self._texts: dict[tuple[str, int], str] = {}

    async def commit(self, batch: Batch) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._commit, batch)

    def _commit(self, batch: Batch) -> None:
        with self._connection.begin():
            self._run(self._connection, "saga", batch.sagas)
            self._run(self._connection, "event", batch.events)
            self._run(self._connection, "change", batch.changes)

    def _run(self, connection: Connection, what: str, rows: Sequence[Row]) -> None:
        """In pieces of 64, 32, 16 ... rows. `executemany` would give up the interpreter's lock around every row, and wait for it again."""
        start = 0
        while start < len(rows):
            size = min(ROWS_MAX, 1 << (len(rows) - start).bit_length() - 1)
            text = self._texts.get((what, size))
            if text is None:
                text = self._texts[what, size] = _sqlite_text(what, size)
            connection.exec_driver_sql(text, tuple(chain.from_iterable(rows[start : start + size])))
            start += size


def _sqlite_engine(path: Path) -> Engine:
    connect = {"isolation_level": None, "check_same_thread": False, "cached_statements": 256}
    engine = create_engine(f"sqlite+pysqlite:///{path}", poolclass=NullPool, connect_args=connect)

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _: object) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _sqlite_text(what: str, size: int) -> str:
    columns = {"saga": SAGA_COLUMNS, "event": EVENT_COLUMNS, "change": CHANGE_COLUMNS}[what]
    row = f"({', '.join('?' * len(columns))})"
    rows = ", ".join([row] * size)
    if what != "change":
        return f"INSERT INTO {what} ({', '.join(columns)}) VALUES {rows}"
    given = ", ".join(f"column{place} AS {name}" for place, name in enumerate(columns, 1))
    changed = ", ".join(f"{name} = given.{name}" for name in columns[1:])
    return f"UPDATE saga SET {changed} FROM (SELECT {given} FROM (VALUES {rows})) AS given WHERE saga.saga_id = given.saga_id"


class PostgresJournal:
    """One statement for a batch, so that it is one message to the server and one commit, on one connection of asyncpg."""

    def __init__(self, connection: Any, statement: Any) -> None:
        self._connection = connection
        self._statement = statement

    @classmethod
    async def open(cls, url: str, tables: Tables) -> "PostgresJournal":
        """Makes the database and its tables."""
        server = await asyncpg.connect(str(make_url(url).set(database="postgres").render_as_string(hide_password=False)))
        await server.execute(f'CREATE DATABASE "{make_url(url).database}"')
        await server.close()
        connection = await asyncpg.connect(url)
        for statement in _definitions(postgresql.dialect(), tables):  # type: ignore[no-untyped-call]
            await connection.execute(statement)
        # Without statistics the planner would read the whole table for every update.
        await connection.execute("SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off")
        return cls(connection, await connection.prepare(_POSTGRES_TEXT))

    async def commit(self, batch: Batch) -> None:
        await self._statement.fetch(
            *_columns(batch.sagas, len(SAGA_COLUMNS)),
            *_columns(batch.events, len(EVENT_COLUMNS)),
            *_columns(batch.changes, len(CHANGE_COLUMNS)),
        )


def _columns(rows: Sequence[Row], count: int) -> Sequence[Sequence[Cell]]:
    return list(zip(*rows, strict=True)) if rows else [()] * count


_TYPES: Final = {
    "saga_id": "uuid",
    "shard": "smallint",
    "definition_name": "text",
    "definition_version": "integer",
    "fingerprint": "bytea",
    "status": "smallint",
    "unfinished": "boolean",
    "payload": "bytea",
}
"""Of columns in PostgreSQL; of all others it is bigint."""


def _given(columns: Sequence[str], first: int) -> str:
    arrays = ", ".join(f"${place}::{_TYPES.get(name, 'bigint')}[]" for place, name in enumerate(columns, first))
    return f"unnest({arrays}) AS given ({', '.join(columns)})"


_POSTGRES_TEXT: Final = f"""
WITH started AS (
  INSERT INTO saga ({", ".join(SAGA_COLUMNS)})
  SELECT * FROM {_given(SAGA_COLUMNS, 1)}
), changed AS (
  UPDATE saga SET {", ".join(f"{name} = given.{name}" for name in CHANGE_COLUMNS[1:])}
  FROM {_given(CHANGE_COLUMNS, 1 + len(SAGA_COLUMNS) + len(EVENT_COLUMNS))}
  WHERE saga.saga_id = given.saga_id
)
INSERT INTO event ({", ".join(EVENT_COLUMNS)}) SELECT * FROM {_given(EVENT_COLUMNS, 1 + len(SAGA_COLUMNS))}
"""


def _definitions(dialect: Dialect, tables: Tables) -> list[str]:
    made = _LEAN if tables == "lean" else METADATA
    statements = [str(CreateTable(made.tables[name]).compile(dialect=dialect)) for name in ("saga", "event")]
    indexes = [index for name in ("saga", "event") for index in made.tables[name].indexes]
    return [*statements, *(str(CreateIndex(index).compile(dialect=dialect)) for index in indexes)]


def _lean() -> MetaData:
    """The same columns. Events are found by their position only, sagas by their id only."""
    metadata = MetaData()
    for table in (SAGA, EVENT):
        keys = {"saga_id"} if table is SAGA else {"position"}
        columns = [Column(column.name, column.type, primary_key=column.name in keys, autoincrement=False) for column in table.columns]
        Table(table.name, metadata, *columns)
    # In SQLite only a key that is called INTEGER is where the row lies.
    metadata.tables["event"].c.position.type = BigInteger().with_variant(Integer(), "sqlite")
    return metadata


_LEAN: Final = _lean()
