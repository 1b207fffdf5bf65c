"""What a database error means to the barrier."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum, auto
from typing import Final

from sqlalchemy.exc import DBAPIError, PendingRollbackError, SQLAlchemyError

from participant_sdk.barrier import mysql
from participant_sdk.barrier.store import StoreBusyError, StoreUnavailableError
from participant_sdk.errors import BarrierTableMissingError, BarrierTableOutdatedError

_REPEATABLE_STATES: Final = frozenset({"40001", "40P01", "55P03"})
"""SQLSTATEs after which the whole database transaction is repeated: serialisation failure, deadlock, lock not available."""
_UNDEFINED_TABLE: Final = "42P01"
_UNDEFINED_COLUMN: Final = "42703"
_SQLITE_REPEATABLE: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_SQLITE_ROLLING_BACK: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM})
"""After these SQLite may have rolled back the whole database transaction by itself."""
_SQLITE_PRIMARY_CODE: Final = 0xFF
"""The lower byte of SQLite's extended result codes."""
_CAUSES_MAX: Final = 8
"""How deep the cause of what a handler raised is looked for."""


class Loss(Enum):
    """What an error of a statement says about the database transaction that it was in."""

    CERTAIN = auto()
    """The database has rolled it back: what is written now begins another one, without the lock of the key."""
    POSSIBLE = auto()
    """That depends on a setting of the server."""


def loss_of(orig: BaseException | None) -> Loss | None:
    """What is lost with that error of a driver; None: the statement alone, or PostgreSQL, which takes nothing more until the end."""
    code = mysql.error_code(orig)
    if code in mysql.ROLLING_BACK_CODES or _sqlite_code(orig) in _SQLITE_ROLLING_BACK:
        return Loss.CERTAIN
    return Loss.POSSIBLE if code == mysql.LOCK_WAIT_TIMEOUT else None


def is_busy(error: BaseException) -> bool:
    """Whether `error`, or what caused it, is the database's wish to repeat the whole database transaction."""
    current: BaseException | None = error
    for _ in range(_CAUSES_MAX):
        if current is None:
            return False
        if isinstance(current, DBAPIError) and _is_repeatable(current.orig):
            return True
        current = current.__cause__ or current.__context__
    return False


@contextmanager
def translated(table_name: str) -> Iterator[None]:
    """Turns what the barrier's own statements raise into the errors of the store's port."""
    try:
        yield
    except DBAPIError as error:
        if _is_repeatable(error.orig):
            raise StoreBusyError(first_line(error)) from error
        if is_table_missing(error.orig):
            raise BarrierTableMissingError(
                f"the participant's database has no table {table_name!r}: create it once with SqlBarrier.create_table(), or with "
                "upgrade_barrier(op) of participant_sdk.barrier.migrations in your migrations"
            ) from error
        if _is_column_missing(error.orig):
            raise BarrierTableOutdatedError(
                f"the table {table_name!r} is of another version of the barrier: {first_line(error)}; run upgrade_barrier(op) of "
                "participant_sdk.barrier.migrations"
            ) from error
        raise StoreUnavailableError(first_line(error)) from error
    except PendingRollbackError as error:
        raise StoreUnavailableError(first_line(error)) from error
    except (SQLAlchemyError, OSError, TimeoutError) as error:  # No connection: refused, timed out, pool exhausted.
        raise StoreUnavailableError(f"{type(error).__name__}: {first_line(error)}") from error


def _is_repeatable(orig: BaseException | None) -> bool:
    code = _sqlite_code(orig)
    if code is not None:
        return code in _SQLITE_REPEATABLE
    return _sql_state(orig) in _REPEATABLE_STATES or mysql.error_code(orig) in mysql.REPEATABLE_CODES


def is_table_missing(orig: BaseException | None) -> bool:
    """Whether a driver's error says that there is no such table."""
    # SQLite has no code of its own for it: SQLITE_ERROR, with a text that has not changed in twenty years.
    if isinstance(orig, sqlite3.OperationalError):
        return "no such table" in str(orig)
    return _sql_state(orig) == _UNDEFINED_TABLE or mysql.error_code(orig) == mysql.TABLE_MISSING


def _is_column_missing(orig: BaseException | None) -> bool:
    if isinstance(orig, sqlite3.OperationalError):
        return "no such column" in str(orig) or "has no column named" in str(orig)
    return _sql_state(orig) == _UNDEFINED_COLUMN or mysql.error_code(orig) == mysql.COLUMN_MISSING


def _sqlite_code(orig: BaseException | None) -> int | None:
    """The primary code of an error of SQLite; None if it is none."""
    code = getattr(orig, "sqlite_errorcode", None)
    return code & _SQLITE_PRIMARY_CODE if isinstance(code, int) else None


def _sql_state(orig: BaseException | None) -> str | None:
    """The SQLSTATE, under the names that drivers give it."""
    for attribute in ("sqlstate", "pgcode"):
        state = getattr(orig, attribute, None)
        if isinstance(state, str):
            return state
    return None


def first_line(error: BaseException) -> str:
    """The message without the statement and its parameters, which hold payloads."""
    return str(error).partition("\n")[0]
