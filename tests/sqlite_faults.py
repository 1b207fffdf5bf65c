"""SQLite as it behaves on a bad day: connections whose commits fail, hang, or happen without saying so."""

import sqlite3
import threading
from collections.abc import Callable

from coordinator.journal.sqlite import connect

OnCommit = Callable[[Callable[[], None]], None]
"""Is given the real commit, and does with it what it likes."""


def broken(name: str, kind: type[sqlite3.DatabaseError] = sqlite3.OperationalError) -> sqlite3.DatabaseError:
    """An error as SQLite raises it. Example: "SQLITE_BUSY"."""
    error = kind("as arranged")
    error.sqlite_errorname = name
    error.sqlite_errorcode = getattr(sqlite3, name)
    return error


class Faults:
    """What goes wrong from now on, with every connection made by `connect`."""

    def __init__(self) -> None:
        self.on_commit: OnCommit | None = None
        """None: commits work."""
        self.on_connect: Callable[[sqlite3.Connection], None] | None = None
        """None: connections are made as they should be."""
        self.made: list[sqlite3.Connection] = []

    def connect(self, uri: str) -> sqlite3.Connection:
        """What `SqlJournal.open` takes as its `connect`."""
        connection = connect(uri, _Connection)
        assert isinstance(connection, _Connection)
        connection.faults = self
        self.made.append(connection)
        if self.on_connect is not None:
            self.on_connect(connection)
        return connection

    def set_on_all(self, pragma: str) -> None:
        """Sets a pragma on every connection, those to come included. Only while nothing is being written."""
        for connection in self.made:
            try:
                connection.execute(f"PRAGMA {pragma}")
            except sqlite3.ProgrammingError:
                continue  # it was closed
        self.on_connect = lambda connection: connection.execute(f"PRAGMA {pragma}").close()

    def heal(self, pragma: str | None = None) -> None:
        """All is well again."""
        self.on_commit = None
        if pragma is not None:
            self.set_on_all(pragma)
        self.on_connect = None

    def fail_commits(self, error: Exception, *, after_it_happened: bool) -> None:
        """Every COMMIT raises, and has happened or not."""

        def commit(real: Callable[[], None]) -> None:
            if after_it_happened:
                real()
            raise error

        self.on_commit = commit


class CommitGate:
    """Holds every commit until it is let through."""

    def __init__(self, faults: Faults) -> None:
        self.reached = threading.Event()
        self._open = threading.Event()
        faults.on_commit = self._hold

    def let_through(self) -> None:
        """This commit and all that follow."""
        self._open.set()

    def _hold(self, real: Callable[[], None]) -> None:
        self.reached.set()
        assert self._open.wait(60), "nobody let the commit through"
        real()


class _Connection(sqlite3.Connection):
    faults: Faults | None = None

    def commit(self) -> None:
        on_commit = None if self.faults is None else self.faults.on_commit
        if self.in_transaction and on_commit is not None:
            on_commit(super().commit)
        else:
            super().commit()
