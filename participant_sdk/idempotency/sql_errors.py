"""What a database error means to idempotency."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from participant_sdk.barrier.sql_errors import first_line, is_busy, is_table_missing
from participant_sdk.idempotency.errors import (
    IdempotencyStoreBusyError,
    IdempotencyStoreUnavailableError,
    IdempotencyTableMissingError,
)


@contextmanager
def translated(table_name: str) -> Iterator[None]:
    """Turns what statements raise into the errors of the store's port."""
    try:
        yield
    except DBAPIError as error:
        if is_busy(error):
            raise IdempotencyStoreBusyError(first_line(error)) from error
        if is_table_missing(error.orig):
            raise IdempotencyTableMissingError(
                f"the database has no table {table_name!r}: create it once with SqlIdempotencyStore.create_table(), or add "
                "idempotency_table(metadata) to your migrations"
            ) from error
        raise IdempotencyStoreUnavailableError(first_line(error)) from error
    except (SQLAlchemyError, OSError, TimeoutError) as error:  # No connection: refused, timed out, pool exhausted.
        raise IdempotencyStoreUnavailableError(f"{type(error).__name__}: {first_line(error)}") from error
