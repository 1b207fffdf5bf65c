"""Reads, beside the writer and without waiting for it."""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection, Engine

from coordinator.engine.ports import JournalUnavailableError
from coordinator.journal.errors import DamagedReadError
from coordinator.journal.hosts import Host
from coordinator.journal.store import DATABASE_ERRORS, Trouble, words_of

ResultT = TypeVar("ResultT")


class Reader:
    """Runs queries on connections of its own. Owns the engine and the host; safe to close twice."""

    def __init__(self, engine: Engine, *, host: Host, trouble_of: Callable[[Exception], Trouble]) -> None:
        self._engine = engine
        self._host = host
        self._trouble_of = trouble_of

    async def read(self, query: Callable[[Connection], ResultT]) -> ResultT:
        """Runs a query within one database transaction. Raises JournalUnavailableError if the database cannot be read now,
        DamagedReadError if it never will be."""
        return await self._host.run(partial(self._run, query))

    async def aclose(self) -> None:
        """Waits for queries that are under way and closes the connections."""
        await self._host.finish(self._engine.dispose)

    def _run(self, query: Callable[[Connection], ResultT]) -> ResultT:
        try:
            with self._engine.connect() as connection:
                return query(connection)
        except DATABASE_ERRORS as error:
            kind = DamagedReadError if self._trouble_of(error) is Trouble.GONE else JournalUnavailableError
            raise kind(f"the database cannot be read now: {words_of(error)}") from error
