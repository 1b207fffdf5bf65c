"""The databases in which a barrier is tested, each with a ledger for handlers to write to."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Column, Engine, Integer, MetaData, String, Table, create_engine, delete, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from participant_sdk.barrier.table import barrier_table

METADATA: Final = MetaData()
LEDGER: Final = Table(
    "ledger",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("line", String(200)),
    mysql_engine="InnoDB",
    mariadb_engine="InnoDB",
)
"""What handlers write, in order."""
BARRIER: Final = barrier_table(METADATA)


@dataclass(frozen=True)
class Place:
    """A database, by both kinds of engine."""

    waiting: URL
    blocking: URL
    connect_args: Mapping[str, object] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Example: "sqlite"."""
        return self.waiting.get_backend_name()

    def engine(self, **options: Any) -> AsyncEngine:
        """For handlers that are `async def`."""
        return create_async_engine(self.waiting, connect_args=self.connect_args, **options)

    def blocking_engine(self, **options: Any) -> Engine:
        """For plain handlers."""
        return create_engine(self.blocking, connect_args=self.connect_args, **options)

    async def empty(self, engine: AsyncEngine) -> None:
        """Makes both tables if they are not there, and leaves nothing in them."""
        async with engine.begin() as connection:
            if self.name == "sqlite":
                await connection.execute(text("PRAGMA journal_mode = WAL"))
            await connection.run_sync(METADATA.create_all)
            await connection.execute(delete(LEDGER))
            await connection.execute(delete(BARRIER))


def sqlite_place(path: Path) -> Place:
    """In that file."""
    return Place(
        waiting=URL.create("sqlite+aiosqlite", database=str(path)),
        blocking=URL.create("sqlite", database=str(path)),
        connect_args={"timeout": 0.05},
    )


def postgres_place(database: URL) -> Place:
    """That database, whatever the driver that its URL names."""
    return Place(waiting=database.set(drivername="postgresql+asyncpg"), blocking=database.set(drivername="postgresql+psycopg"))


def mariadb_place(database: URL) -> Place:
    """That database, by both names that SQLAlchemy has for it."""
    return Place(waiting=database.set(drivername="mysql+asyncmy"), blocking=database.set(drivername="mariadb+pymysql"))


def made_database(server: URL) -> URL:
    """A new database there. `server` names a driver that blocks."""
    name = f"books_{uuid.uuid4().hex}"
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return server.set(database=name)
