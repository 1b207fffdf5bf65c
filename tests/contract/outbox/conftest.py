"""The databases and the kinds of engine on which an outbox must behave alike."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import URL, create_engine
from sqlalchemy.ext.asyncio import create_async_engine

from participant_sdk.closings import wait_for_closings
from tests.outboxes import OutboxWorld, made_database, sqlite_engine

WORLDS = ("aiosqlite", "sqlite", "asyncpg", "psycopg")


@pytest.fixture(scope="session")
def service_postgres(postgres: tuple[URL, str]) -> URL:
    """A database of its own: making one takes half a second."""
    return made_database(postgres[0]).set(drivername="postgresql+psycopg")


@pytest.fixture
def empty_postgres(service_postgres: URL) -> URL:
    """The same without what the last test has left there."""
    engine = create_engine(service_postgres)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE")
        connection.exec_driver_sql("CREATE SCHEMA public")
    engine.dispose()
    return service_postgres


@pytest.fixture(params=WORLDS)
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[OutboxWorld]:
    """A service with its database."""
    driver: str = request.param
    if driver in {"aiosqlite", "sqlite"}:
        path = tmp_path / "service.db"
        with closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA journal_mode = WAL")
        world = OutboxWorld(sqlite_engine(path, driver))
    else:
        url = request.getfixturevalue("empty_postgres").set(drivername=f"postgresql+{driver}")
        world = OutboxWorld(create_async_engine(url) if driver == "asyncpg" else create_engine(url))
    await world.open()
    yield world
    await world.close()
    await wait_for_closings()
