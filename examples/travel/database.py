"""Opening the database of a service. None of it is particular to sagas but the barrier's table."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Executable, MetaData, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine


def open_database(path: Path) -> AsyncEngine:
    """An SQLite file that several processes may write to; dispose of the engine when done."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}")

    @event.listens_for(engine.sync_engine, "connect")
    def _configure(connection: Any, _record: object) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")  # what was committed survives a loss of power
        connection.execute("PRAGMA busy_timeout = 5000")

    return engine


async def create_tables(engine: AsyncEngine, tables: MetaData, seed: Sequence[Executable] = ()) -> None:
    """Creates and fills the tables on the first day; every later day leaves them as they are."""
    async with engine.begin() as connection:
        await connection.run_sync(tables.create_all)
        for statement in seed:
            await connection.execute(statement)
