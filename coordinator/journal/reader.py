"""Reads, beside the writer and without waiting for it."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from coordinator.engine.ports import JournalUnavailableError
from coordinator.journal.errors import DamagedReadError
from coordinator.journal.store import Trouble, words_of

ResultT = TypeVar("ResultT")


class Reader:
    """Runs queries in threads of its own. Owns the engine and the threads; safe to close twice."""

    def __init__(self, engine: Engine, *, trouble_of: Callable[[Exception], Trouble], threads: int) -> None:
        self._engine = engine
        self._trouble_of = trouble_of
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="journal-reader")

    async def read(self, query: Callable[[Connection], ResultT]) -> ResultT:
        """Runs a query within one database transaction. Raises JournalUnavailableError if the database cannot be read now,
        DamagedReadError if it never will be."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._run, query)

    def close(self) -> None:
        """Waits for queries that are under way and closes the connections."""
        self._executor.shutdown(wait=True, cancel_futures=True)
        self._engine.dispose()

    def _run(self, query: Callable[[Connection], ResultT]) -> ResultT:
        try:
            with self._engine.connect() as connection:
                return query(connection)
        except SQLAlchemyError as error:
            kind = DamagedReadError if self._trouble_of(error) is Trouble.GONE else JournalUnavailableError
            raise kind(f"the database cannot be read now: {words_of(error)}") from error
