"""Opens an SQLite journal, or says in words why that cannot be: all that happens before the first append."""

import os
import socket
import sqlite3
import uuid
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from coordinator.core.values import Instant
from coordinator.journal.database_file import DatabaseFile
from coordinator.journal.schema import bring_up_to_date
from coordinator.journal.sqlite import Connect, SqliteStore, open_error, refuse_foreign
from coordinator.journal.tables import NAME_CHARS_MAX, NODE, SHARD
from coordinator.journal.writer import SHARD_ID, Writer

FIRST_EPOCH: Final = 1


def open_writer(path: Path, now: Instant, connect_to: Connect) -> tuple[DatabaseFile, Writer]:
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
            epoch, position = _take_over(connection, now)
    except BaseException:
        connection.invalidate()
        connection.close()
        raise
    if epoch > FIRST_EPOCH:
        file.note_kept()
    return Writer(store, connection, epoch=epoch, position=position)


def _take_over(connection: Connection, now: Instant) -> tuple[int, int]:
    """Makes this process the owner of the shard; returns its epoch and the position of the last event.

    The file lock says that no other process is alive; the new epoch says it again to one that has lost the lock without noticing (P6).
    """
    node_id = str(uuid.uuid4())
    connection.execute(delete(NODE))
    connection.execute(insert(NODE).values(id=node_id, host=socket.gethostname()[:NAME_CHARS_MAX], pid=os.getpid(), started_at=now))
    left = connection.execute(select(SHARD.c.epoch, SHARD.c.position).where(SHARD.c.id == SHARD_ID)).one_or_none()
    if left is None:
        connection.execute(insert(SHARD).values(id=SHARD_ID, owner=node_id, epoch=FIRST_EPOCH, position=0))
        return FIRST_EPOCH, 0
    epoch, position = left
    connection.execute(update(SHARD).where(SHARD.c.id == SHARD_ID).values(owner=node_id, epoch=epoch + 1))
    return epoch + 1, position
