"""Opens a journal, or says in words why that cannot be: all that happens before the first append."""

import os
import socket
import sqlite3
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from sqlalchemy import URL, Connection, Engine, delete, func, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from coordinator.core.values import Instant
from coordinator.journal import postgres
from coordinator.journal.database_file import DatabaseFile
from coordinator.journal.hosts import Greenlets, Host, Threads
from coordinator.journal.membership import Node
from coordinator.journal.ownership import Held, Ownership
from coordinator.journal.reader import Reader
from coordinator.journal.schema import bring_up_to_date
from coordinator.journal.sql_membership import known_by_nodes, make_shards
from coordinator.journal.sqlite import READERS, Connect, SqliteStore, open_error, reading_engine, refuse_foreign, trouble_of
from coordinator.journal.store import DATABASE_ERRORS
from coordinator.journal.tables import NAME_CHARS_MAX, NODE, SHARD
from coordinator.journal.writer import Writer

FIRST_EPOCH: Final = 1
SHARD_ID: Final = 0
"""The one shard of a journal in SQLite."""
_MIGRATION_LOCK: Final = 0x5A6A
"""An advisory lock of PostgreSQL that no other program on the database should use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A database that is ours to write."""

    writer: Writer
    writer_host: Host
    reader: Reader
    release: Callable[[], None]
    """Gives it back, once the writer is closed. Runs where the writer does."""
    lease_engine: Engine | None = None
    """Where shards are leased, if other nodes use the database too."""
    signal_engine: Engine | None = None
    """Where it is heard what other nodes hint at."""


async def open_sqlite(path: Path, now: Instant, connect_to: Connect) -> Opened:
    """Takes possession of a file. Raises JournalOpenError; nothing stays locked then."""
    host = Threads(1, "journal-writer")
    try:
        file, writer = await host.run(partial(_open_writer, path, now, connect_to))
    except BaseException:
        host.abandon()
        raise
    reader = Reader(reading_engine(file, connect_to), host=Threads(READERS, "journal-reader"), trouble_of=trouble_of)
    return Opened(writer=writer, writer_host=host, reader=reader, release=file.release)


async def open_postgres(url: URL, node: Node) -> Opened:
    """Brings the tables up to date; owns nothing yet. Raises JournalOpenError."""
    place = url.render_as_string(hide_password=True)
    engine, host = postgres.writing_engine(url, node.id), Greenlets()
    leases, signals = postgres.leasing_engine(url, node.id), postgres.listening_engine(url, node.id)

    def release() -> None:
        engine.dispose()
        leases.dispose()
        signals.dispose()

    try:
        connection = await host.run(partial(_connect_ready, engine, place))
    except DATABASE_ERRORS as error:
        await host.run(release)
        raise postgres.open_error(place, error) from error
    except BaseException:
        await host.run(release)
        raise
    writer = Writer(postgres.PostgresStore(engine), connection, Ownership(node.id, {}))
    reader = Reader(postgres.reading_engine(url, node.id), host=Greenlets(), trouble_of=postgres.trouble_of)
    return Opened(writer=writer, writer_host=host, reader=reader, release=release, lease_engine=leases, signal_engine=signals)


def _connect_ready(engine: Engine, place: str) -> Connection:
    """A connection to a journal of this version."""
    connection = engine.connect()
    try:
        with connection.begin():
            connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))  # nodes that start together make the tables once
            postgres.refuse_unsafe(connection, place)
            bring_up_to_date(connection, place, others=known_by_nodes(connection))
            make_shards(connection)
    except BaseException:
        connection.invalidate()
        connection.close()
        raise
    return connection


def _open_writer(path: Path, now: Instant, connect_to: Connect) -> tuple[DatabaseFile, Writer]:
    """Takes the lock, brings the tables up to date and takes over the shard. May block.

    Raises JournalOpenError; nothing stays locked then.
    """
    file = DatabaseFile(path)
    file.acquire()
    try:
        refuse_foreign(file, connect_to)
        return file, _writer_for(file, now, connect_to)
    except (SQLAlchemyError, sqlite3.Error) as error:
        file.release()
        raise open_error(path, error) from error
    except BaseException:
        file.release()
        raise


def _writer_for(file: DatabaseFile, now: Instant, connect_to: Connect) -> Writer:
    store = SqliteStore(file, connect_to)
    connection = store.engine.connect()
    try:
        file.remember()
        with connection.begin():
            bring_up_to_date(connection, str(file.path))
            node_id, held = _take_over(connection, now)
    except BaseException:
        connection.invalidate()
        connection.close()
        raise
    if held.epoch > FIRST_EPOCH:
        file.note_kept()
    return Writer(store, connection, Ownership(node_id, {SHARD_ID: held}))


def this_node(address: str) -> Node:
    """How this process is known to others, which reach it at that address."""
    return Node(id=str(uuid.uuid4()), address=address, host=socket.gethostname()[:NAME_CHARS_MAX], pid=os.getpid())


def _take_over(connection: Connection, now: Instant) -> tuple[str, Held]:
    """Makes this process the owner of the shard; returns what it is called, and what it holds.

    The file lock says that no other process is alive; the new epoch says it again to one that has lost the lock without noticing (P6).
    """
    node = this_node("")
    connection.execute(delete(NODE))
    connection.execute(insert(NODE).values(id=node.id, host=node.host, pid=node.pid, started_at=now))
    left = connection.execute(select(SHARD.c.epoch, SHARD.c.position).where(SHARD.c.id == SHARD_ID)).one_or_none()
    if left is None:
        connection.execute(insert(SHARD).values(id=SHARD_ID, owner=node.id, epoch=FIRST_EPOCH, position=0))
        return node.id, Held(FIRST_EPOCH, position=0, since=0)
    epoch, position = left
    connection.execute(update(SHARD).where(SHARD.c.id == SHARD_ID).values(owner=node.id, epoch=epoch + 1))
    return node.id, Held(epoch + 1, position, since=position)
