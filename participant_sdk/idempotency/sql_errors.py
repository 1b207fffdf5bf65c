"""What a database error means to idempotency."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from participant_sdk.barrier.sql_errors import is_busy
from participant_sdk.idempotency.errors import (
    IdempotencyStoreBusyError,
    IdempotencyStoreUnavailableError,
    IdempotencyTableMissingError,
)

_POSTGRES_UNDEFINED_TABLE: Final = "42P01"
_MYSQL_NO_SUCH_TABLE: Final = 1146
_MYSQL_REPEATABLE: Final = frozenset({1205, 1213, 1020})
"""Lock wait timeout, deadlock, and MariaDB's "record has changed since last read"."""


@contextmanager
def translated(table_name: str) -> Iterator[None]:
    """Turns what statements raise into the errors of the store's port."""
    try:
        yield
    except DBAPIError as error:
        if is_busy(error) or _mysql_code(error.orig) in _MYSQL_REPEATABLE:
            raise IdempotencyStoreBusyError(_first_line(error)) from error
        if _is_table_missing(error.orig):
            raise IdempotencyTableMissingError(
                f"the database has no table {table_name!r}: create it once with SqlIdempotencyStore.create_table(), or add "
                "idempotency_table(metadata) to your migrations"
            ) from error
        raise IdempotencyStoreUnavailableError(_first_line(error)) from error
    except (SQLAlchemyError, OSError, TimeoutError) as error:  # No connection: refused, timed out, pool exhausted.
        raise IdempotencyStoreUnavailableError(f"{type(error).__name__}: {_first_line(error)}") from error


def _is_table_missing(orig: BaseException | None) -> bool:
    if isinstance(orig, sqlite3.OperationalError):
        return "no such table" in str(orig)  # SQLite has no code of its own for it.
    state = getattr(orig, "sqlstate", None) or getattr(orig, "pgcode", None)
    return state == _POSTGRES_UNDEFINED_TABLE or _mysql_code(orig) == _MYSQL_NO_SUCH_TABLE


def _mysql_code(orig: BaseException | None) -> int | None:
    """The number of the error; None of what is no error of a MySQL driver."""
    first = orig.args[0] if orig is not None and orig.args else None
    return first if isinstance(first, int) and "mysql" in type(orig).__module__ else None


def _first_line(error: BaseException) -> str:
    """The message without the statement and its parameters, which hold payloads."""
    return str(error).partition("\n")[0]
