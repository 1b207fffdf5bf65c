"""The databases in which a barrier is tested, each with a ledger for handlers to write to."""

import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Column, Engine, Integer, MetaData, String, Table, create_engine, delete, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import Session

from participant_sdk.barrier.table import barrier_table

CUT_LIMIT_S: Final = 10.0
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


class Cutter:
    """Ends connections from the side of the server, as a failover or a firewall does."""

    def __init__(self, place: Place) -> None:
        self._engine = place.blocking_engine(isolation_level="AUTOCOMMIT")
        self._is_postgres = place.name == "postgresql"

    def number_of(self, session: Session) -> int:
        """How the server calls the connection of that session."""
        return int(session.scalar(text("SELECT pg_backend_pid()" if self._is_postgres else "SELECT CONNECTION_ID()")) or 0)

    def cut(self, number: int) -> None:
        """Returns when the connection is gone, and what it had not committed is rolled back."""
        listed = (
            "SELECT count(*) FROM pg_stat_activity WHERE pid = :number"
            if self._is_postgres
            else "SELECT count(*) FROM information_schema.processlist WHERE id = :number"
        )
        end = "SELECT pg_terminate_backend(:number)" if self._is_postgres else f"KILL {number:d}"
        with self._engine.connect() as connection:
            with suppress(OperationalError):  # MariaDB refuses to end what is gone already.
                connection.execute(text(end), {"number": number})
            until = time.monotonic() + CUT_LIMIT_S
            while connection.scalar(text(listed), {"number": number}):
                assert time.monotonic() < until, "the connection stays"

    def close(self) -> None:
        self._engine.dispose()


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
