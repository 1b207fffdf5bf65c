"""What differs between databases, as far as the writer is concerned."""

from enum import Enum
from typing import Final, Protocol

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError, StatementError

DATABASE_ERRORS: Final = (SQLAlchemyError, OSError, OverflowError, UnicodeError)
"""What a database, its driver and its disk raise. The driver refuses numbers and texts that it cannot represent with errors of Python's."""


class Trouble(Enum):
    """What an error of the database means to the writer."""

    AWAY = "the database cannot be used now: wait and try again"
    DUPLICATE = "a row with this key is there already"
    DEFECT = "these rows will never be taken"
    GONE = "the database is damaged, or no journal any more"


class Store(Protocol):
    """The database that a journal is kept in."""

    @property
    def engine(self) -> Engine:
        """Where the writing connection comes from. Its database transactions take the write lock when they begin."""

    @property
    def is_exclusive(self) -> bool:
        """Whether this process is the only one that writes to it, by a lock: then whoever else writes has taken all of it away (R32)."""

    def guard(self, connection: Connection, /) -> None:
        """To be called at the beginning of a database transaction that locks shards and is no append: bounds how long it may hold them if
        this process is stopped in its midst (R31)."""

    def why_gone(self) -> str | None:
        """Why this is no longer the database that was opened; None: it is. Raises OSError if that cannot be told now (R32)."""

    def why_damaged(self) -> str | None:
        """Why it must not be written to any more, because somebody else has; None: all is well. Before every write."""

    def note_written(self) -> str | None:
        """Takes note how a write has left it; returns why it is gone or damaged, if that is seen by the way (R32). After every write, and
        before anything of it is told."""

    def forget_written(self) -> None:
        """The connection that writes is about to be closed: until the next write nothing is known of how it was left."""

    def note_damage(self, error: Exception, /) -> str:
        """What an error says of a database that is GONE; kept for whoever opens it next, if that must not write to it either."""

    def trouble_of(self, error: Exception, /) -> Trouble:
        """What an error means."""

    def condition_of(self, error: Exception, /) -> str:
        """Names what is wrong in a word, the same for every try."""


def words_of(error: Exception) -> str:
    """What the driver says, without the statement: that would fill a page, and its parameters are other people's secrets."""
    cause = error.orig if isinstance(error, StatementError) and error.orig is not None else error
    return f"{type(cause).__name__}: {cause}"
