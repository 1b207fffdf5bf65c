"""The databases and the kinds of engine on which an outbox must behave alike."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import URL, create_engine
from sqlalchemy.ext.asyncio import create_async_engine

from participant_sdk.closings import wait_for_closings
from tests import barrier_databases
from tests.outboxes import OutboxWorld, made_database, sqlite_engine

IN_FAST_TIER = ("aiosqlite", "sqlite", "asyncpg", "pymysql")
WORLDS = [*IN_FAST_TIER, *(pytest.param(driver, marks=pytest.mark.full) for driver in ("psycopg", "asyncmy"))]


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


@pytest.fixture
def empty_mariadb(mariadb: URL) -> URL:
    """A new database."""
    return barrier_databases.made_database(mariadb.set(drivername="mariadb+pymysql"))


@pytest.fixture(params=WORLDS)
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[OutboxWorld]:
    """A service with its database."""
    match request.param:
        case "aiosqlite" | "sqlite":
            path = tmp_path / "service.db"
            with closing(sqlite3.connect(path)) as database:
                database.execute("PRAGMA journal_mode = WAL")
            world = OutboxWorld(sqlite_engine(path, request.param))
        case "asyncpg":
            world = OutboxWorld(create_async_engine(request.getfixturevalue("empty_postgres").set(drivername="postgresql+asyncpg")))
        case "psycopg":
            world = OutboxWorld(create_engine(request.getfixturevalue("empty_postgres")))
        case "asyncmy":
            world = OutboxWorld(create_async_engine(request.getfixturevalue("empty_mariadb").set(drivername="mysql+asyncmy")))
        case _:
            world = OutboxWorld(create_engine(request.getfixturevalue("empty_mariadb")))
    await world.open()
    yield world
    await world.close()
    await wait_for_closings()
