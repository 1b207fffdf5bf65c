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
        server: tuple[URL, str] = request.getfixturevalue("postgres")
        url = made_database(server[0]).set(drivername=f"postgresql+{driver}")
        world = OutboxWorld(create_async_engine(url) if driver == "asyncpg" else create_engine(url))
    await world.open()
    yield world
    await world.close()
    await wait_for_closings()
