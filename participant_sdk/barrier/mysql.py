"""What is different on MySQL and MariaDB: how a key is compared, how a row is put where none is, and when the server rolls back by itself.

The names of the dialect say which URL was given, not which server answers: `mysql+…` reaches a MariaDB as well.
"""

from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import VARBINARY, Dialect, Table, bindparam, func, literal_column
from sqlalchemy.dialects import mysql

from participant_sdk.errors import ParticipantSetupError

DIALECT_NAMES: Final = ("mysql", "mariadb")
"""Of SQLAlchemy."""
DEADLOCK: Final = 1213
"""The server has rolled back the whole database transaction."""
LOCK_WAIT_TIMEOUT: Final = 1205
"""It has rolled back the statement; or all, if innodb_rollback_on_timeout is set."""
CHANGED_SINCE_READ: Final = 1020
"""MariaDB with innodb_snapshot_isolation: a row is newer than the snapshot. All is rolled back."""
LOCKED_BY_OTHERS: Final = 3572
"""Of NOWAIT on MySQL."""
REPEATABLE_CODES: Final = frozenset({DEADLOCK, LOCK_WAIT_TIMEOUT, CHANGED_SINCE_READ, LOCKED_BY_OTHERS})
"""After these the whole database transaction is repeated."""
ROLLING_BACK_CODES: Final = frozenset({DEADLOCK, CHANGED_SINCE_READ})
"""After these nothing of the database transaction is left."""
TABLE_MISSING: Final = 1146
COLUMN_MISSING: Final = 1054
STRICT_MODES: Final = frozenset({"STRICT_TRANS_TABLES", "STRICT_ALL_TABLES", "TRADITIONAL"})
"""Without one of them a value that does not fit is cut, and stored."""
BYTES_OF_CHARACTER_MAX: Final = 4
"""Of UTF-8, in which text is stored."""


class ExactText(VARBINARY):
    """Text that is compared byte by byte.

    The collations of these servers take "a" for "A", or "a" for "a " with every collation that both of them know: two keys would be
    one. Its length is in bytes.
    """

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any]:
        return _encoded

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        return _decoded


def is_mysql(dialect_name: str) -> bool:
    """Whether it is one of the two."""
    return dialect_name in DIALECT_NAMES


def insert_or_lock(table: Table, columns: tuple[str, ...]) -> mysql.Insert:
    """Puts a row if there is none with its key; else locks that one and leaves it as it is. `lastrowid` says which: 0 if it was put.

    INSERT IGNORE would hide every other error as well, and like an INSERT that fails it takes a shared lock, so that two who wait for
    the same row deadlock as soon as they get it. The number of rows says nothing: drivers ask for found rows, not for changed ones.
    """
    # LAST_INSERT_ID(1) is evaluated only where the key is there, and 1 is then what the answer of the statement carries.
    untouched = func.IF(func.LAST_INSERT_ID(literal_column("1")), table.c.created_at_us, table.c.created_at_us)
    put = mysql.insert(table).values({name: bindparam(name) for name in columns})
    return put.on_duplicate_key_update(created_at_us=untouched)


def error_code(orig: BaseException | None) -> int | None:
    """The number that these servers give an error; None if it is none of theirs."""
    code = orig.args[0] if orig is not None and orig.args else None
    return code if isinstance(code, int) else None


def refuse_lax_mode(sql_mode: str) -> None:
    """Raises ParticipantSetupError if values that do not fit would be cut and stored."""
    if not STRICT_MODES & {*sql_mode.split(",")}:
        raise ParticipantSetupError(
            f"the connections of SqlBarrier cut values that do not fit: expected STRICT_TRANS_TABLES in sql_mode, found "
            f"{sql_mode!r}; set it for the server, or with "
            "create_engine(…, connect_args={'init_command': \"SET SESSION sql_mode = 'STRICT_TRANS_TABLES'\"})"
        )


def _encoded(value: Any) -> Any:
    return value.encode() if isinstance(value, str) else value


def _decoded(value: Any) -> Any:
    return bytes(value).decode() if isinstance(value, (bytes, bytearray)) else value
