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

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from coordinator.core.values import Instant
from coordinator.journal.database_file import DatabaseFile
from coordinator.journal.hosts import Host, Threads
from coordinator.journal.ownership import Held, Ownership
from coordinator.journal.reader import Reader
from coordinator.journal.schema import bring_up_to_date
from coordinator.journal.sqlite import READERS, Connect, SqliteStore, open_error, reading_engine, refuse_foreign, trouble_of
from coordinator.journal.tables import NAME_CHARS_MAX, NODE, SHARD
from coordinator.journal.writer import Writer

FIRST_EPOCH: Final = 1
SHARD_ID: Final = 0
"""The one shard of a journal in SQLite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A database that is ours to write."""

    writer: Writer
    writer_host: Host
    reader: Reader
    release: Callable[[], None]
    """Gives it back, once the writer is closed."""


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


def _take_over(connection: Connection, now: Instant) -> tuple[str, Held]:
    """Makes this process the owner of the shard; returns what it is called, and what it holds.

    The file lock says that no other process is alive; the new epoch says it again to one that has lost the lock without noticing (P6).
    """
    node_id = str(uuid.uuid4())
    connection.execute(delete(NODE))
    connection.execute(insert(NODE).values(id=node_id, host=socket.gethostname()[:NAME_CHARS_MAX], pid=os.getpid(), started_at=now))
    left = connection.execute(select(SHARD.c.epoch, SHARD.c.position).where(SHARD.c.id == SHARD_ID)).one_or_none()
    if left is None:
        connection.execute(insert(SHARD).values(id=SHARD_ID, owner=node_id, epoch=FIRST_EPOCH, position=0))
        return node_id, Held(FIRST_EPOCH, 0)
    epoch, position = left
    connection.execute(update(SHARD).where(SHARD.c.id == SHARD_ID).values(owner=node_id, epoch=epoch + 1))
    return node_id, Held(epoch + 1, position)
