"""What is particular to SQLite: its connections, and what its errors mean."""

import contextlib
import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import StatementError
from sqlalchemy.pool import NullPool, QueuePool

from coordinator.journal.database_file import DatabaseFile
from coordinator.journal.errors import JournalOpenError
from coordinator.journal.statements import STATEMENTS_CACHED
from coordinator.journal.store import Trouble, words_of

BUSY_TIMEOUT_MS: Final = 1_000
"""How long SQLite itself waits for a lock that another process holds, before the try counts as failed."""
WAL_BYTES_KEPT: Final = 64 * 1024 * 1024
"""Size to which the write-ahead log is cut after a checkpoint; it grows beyond while a reader holds it."""
CACHE_KIB: Final = 16 * 1024
"""Pages that the writer keeps in memory."""
READERS: Final = 4
"""Connections, and threads, for reading."""
READER_WAIT_S: Final = 10.0
"""How long a read waits for one of them."""
SQLITE_VERSION_MIN: Final = (3, 35, 0)
"""UPDATE ... FROM came with 3.33, and its last serious fault went with 3.35."""

_logger = logging.getLogger(__name__)

Connect = Callable[[str], sqlite3.Connection]
"""Opens the database of a URI. A seam: tests put connections here that fail."""


def connect(uri: str, factory: type[sqlite3.Connection] = sqlite3.Connection) -> sqlite3.Connection:
    """A connection on which nothing begins by itself: every BEGIN is ours. It moves between threads, one at a time."""
    return sqlite3.connect(
        uri, uri=True, isolation_level=None, check_same_thread=False, cached_statements=STATEMENTS_CACHED, factory=factory
    )


class SqliteStore:
    """Implements `Store` for one SQLite file."""

    is_exclusive = True

    def __init__(self, file: DatabaseFile, connect_to: Connect) -> None:
        self._file = file
        self._connect_to = connect_to
        self.engine = writing_engine(file, connect_to)

    def guard(self, connection: Connection) -> None:
        """Nobody else waits for what this process locks."""

    def why_gone(self) -> str | None:
        """Why the files are no longer those that were opened; None: they are."""
        gone = self._file.why_gone() or self._file.why_log_gone()
        return None if gone is None else self._file.note_damage(gone)

    def why_damaged(self) -> str | None:
        """Why the files must not be written to any more, because another program has; None: all is well."""
        return None if self._file.is_as_left() else self._check()

    def note_written(self) -> str | None:
        """Takes note how the files were left by a write; returns why they are gone or damaged, if that is seen by the way."""
        try:
            look = self._file.look()
        except FileNotFoundError:
            gone = self.why_gone()
            if gone is None:
                raise
            return gone
        if not self._file.is_plausible(look):
            return self._check()
        self._file.note_written(look)
        return None

    def forget_written(self) -> None:
        """The connection that writes is about to be closed."""
        self._file.forget_written()

    def note_damage(self, error: Exception, /) -> str:
        """Keeps what an error says of the database for whoever starts the coordinator again; returns it, with what to do."""
        if not _is_damage(error):
            return words_of(error)
        return self._file.note_damage(f"the database {self._file.path} is damaged: {words_of(error)}")

    def _check(self) -> str | None:
        """Reads all of it, as long as that takes: it may have been a harmless tool, such as a checkpoint by hand."""
        gone = self.why_gone()
        if gone is not None:
            return gone
        _logger.warning("another program has written to the database; checking it", extra={"path": str(self._file.path)})
        try:
            # A connection of its own: pages in the memory of the others hide what is in the file.
            with contextlib.closing(self._connect_to(self._file.uri())) as connection:
                connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
                (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.Error as error:
            if not _is_damage(error):
                raise BlockingIOError(f"the database cannot be checked now: {error}") from error
            found = f"{condition_of(error)}: {error}"
        if found == "ok":
            self._file.note_written(self._file.look())
            return None
        return self._file.note_damage(f"the database {self._file.path} is damaged: another program has written to it, and {found}")

    def trouble_of(self, error: Exception, /) -> Trouble:
        """What an error means."""
        return trouble_of(error)

    def condition_of(self, error: Exception, /) -> str:
        """The name that SQLite gives to the error. Examples: "SQLITE_BUSY", "SQLITE_FULL"."""
        return condition_of(error)


def writing_engine(file: DatabaseFile, connect_to: Connect) -> Engine:
    """Where the one writing connection comes from. Its database transactions take the write lock when they begin."""
    engine = _engine(file, connect_to, _set_up_writer, NullPool)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def reading_engine(file: DatabaseFile, connect_to: Connect) -> Engine:
    """Where reading connections come from. Each database transaction sees one state of the database throughout."""
    engine = _engine(file, connect_to, _set_up_reader, QueuePool)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


def trouble_of(error: Exception) -> Trouble:
    """What an error means. What is not known to be the fault of the rows is taken for a database that is away: waiting is safe."""
    cause = error.orig if isinstance(error, StatementError) else error
    if isinstance(cause, OverflowError | UnicodeError):
        return Trouble.DEFECT  # a number beyond 64 bits, text that is no Unicode: the driver refuses before SQLite sees it
    if not isinstance(cause, sqlite3.Error):
        return Trouble.AWAY
    code: int | None = getattr(cause, "sqlite_errorcode", None)
    if code is None:
        return Trouble.DEFECT if isinstance(cause, sqlite3.DataError) else Trouble.AWAY
    if code in _DUPLICATE:
        return Trouble.DUPLICATE
    if _is_damage(cause):
        return Trouble.GONE
    return _TROUBLE.get(code & _PRIMARY_CODE, Trouble.AWAY)


def _is_damage(error: Exception) -> bool:
    """Whether it says that the files are spoiled: what no waiting and no new start makes good."""
    code = _code_of(error)
    return code is not None and (code == sqlite3.SQLITE_IOERR_SHORT_READ or code & _PRIMARY_CODE in _DAMAGED)


def _code_of(error: Exception) -> int | None:
    """The extended code of SQLite; None: it is not SQLite's error."""
    cause = error.orig if isinstance(error, StatementError) else error
    code: int | None = getattr(cause, "sqlite_errorcode", None)
    return code


def condition_of(error: Exception) -> str:
    """Names what is wrong in a word, the same for every try: "SQLITE_BUSY", "SQLITE_FULL"."""
    cause = error.orig if isinstance(error, StatementError) else error
    return getattr(cause, "sqlite_errorname", None) or type(cause).__name__


_PRIMARY_CODE: Final = 0xFF
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_DUPLICATE: Final = frozenset({sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_ROWID})
_TROUBLE: Final = {
    sqlite3.SQLITE_CONSTRAINT: Trouble.DEFECT,
    sqlite3.SQLITE_TOOBIG: Trouble.DEFECT,
    sqlite3.SQLITE_MISMATCH: Trouble.DEFECT,
    sqlite3.SQLITE_ERROR: Trouble.GONE,  # a table is missing: nothing that this process does brings it back
}


def open_error(path: Path, error: Exception) -> JournalOpenError:
    """Why the database cannot be opened, for whoever starts the coordinator."""
    cause = error.orig if isinstance(error, StatementError) else error
    code = _code_of(error)
    expected, to_do = _OPENING.get(
        None if code is None else code & _PRIMARY_CODE, ("a usable SQLite database", "see the SQLite documentation for this error")
    )
    return JournalOpenError(str(path), expected=expected, found=f"{condition_of(error)}: {cause}", to_do=to_do)


_OPENING: Final[dict[int | None, tuple[str, str]]] = {
    sqlite3.SQLITE_BUSY: ("a database that nobody writes", "end the program that holds it locked, then start again"),
    sqlite3.SQLITE_NOTADB: ("an SQLite database", "name another file, or move this one away and a new one is made"),
    sqlite3.SQLITE_CORRUPT: ("an undamaged database", "restore it from a backup"),
    sqlite3.SQLITE_READONLY: ("a file that can be written", "grant write permission on the file and its directory"),
    sqlite3.SQLITE_CANTOPEN: ("a file that can be opened", "check that it is a file, and the permissions on it and its directory"),
    sqlite3.SQLITE_PERM: ("a file that can be opened", "grant read and write permission on the file and its directory"),
    sqlite3.SQLITE_FULL: ("space on the disk", "free some space, then start again"),
    sqlite3.SQLITE_IOERR: ("a disk that works", "check the disk and its file system"),
}


def _engine(
    file: DatabaseFile, connect_to: Connect, set_up: Callable[[sqlite3.Connection], None], pool: type[QueuePool] | type[NullPool]
) -> Engine:
    bounds: dict[str, int | float] = {}
    if pool is QueuePool:
        bounds = {"pool_size": READERS, "max_overflow": 0, "pool_timeout": READER_WAIT_S}

    def create() -> sqlite3.Connection:
        connection = connect_to(file.uri())
        try:
            _check_in_place(file)
            set_up(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    # Without their parameters, errors can be logged: payloads are other people's secrets.
    return create_engine("sqlite+pysqlite://", creator=create, poolclass=pool, hide_parameters=True, **bounds)


def _check_in_place(file: DatabaseFile) -> None:
    """Raises if what was opened just now is not the journal (R32)."""
    gone = file.why_gone()
    if gone is not None:
        raise sqlite3.OperationalError(gone)


def _set_up_writer(connection: sqlite3.Connection) -> None:
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise sqlite3.OperationalError(f"the database cannot use a write-ahead log here, its journal mode stays {mode!r}")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_KEPT}")
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")


def _set_up_reader(connection: sqlite3.Connection) -> None:
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    connection.execute("PRAGMA query_only = ON")


def refuse_foreign(file: DatabaseFile, connect_to: Connect) -> None:
    """Raises JournalOpenError for an SQLite that is too old and for somebody else's database, before anything in it is changed."""
    if sqlite3.sqlite_version_info < SQLITE_VERSION_MIN:
        raise JournalOpenError(
            str(file.path),
            expected=f"SQLite {'.'.join(map(str, SQLITE_VERSION_MIN))} or newer",
            found=sqlite3.sqlite_version,
            to_do="use a Python that was built with a newer SQLite",
        )
    if not file.path.exists():
        return
    with contextlib.closing(connect_to(file.uri())) as connection:
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if tables and "alembic_version" not in tables:
        raise JournalOpenError(
            str(file.path),
            expected="a journal or an empty database",
            found=f"a database with other tables ({', '.join(sorted(tables)[:5])})",
            to_do="name another file",
        )
