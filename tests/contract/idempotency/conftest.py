"""The databases on which every store of idempotency must behave alike."""

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import URL, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from participant_sdk.clock import Clock
from participant_sdk.closings import wait_for_closings
from participant_sdk.idempotency import IdempotencyStore, MemoryIdempotencyStore, SqlIdempotencyStore
from tests.barrier_databases import made_database
from tests.contract.idempotency.claims import ManualClock

THREAD_TIME_LIMIT_S = 10.0
SQL_DATABASES = ("sqlite", "postgresql", "mariadb")

Process = Callable[[], IdempotencyStore]
"""The store as another process of the service has it: connections of its own, the same records."""


@pytest.fixture(autouse=True)
async def threads_have_ended() -> AsyncIterator[None]:
    """Waits for the threads of dropped connections: each still reports to the event loop, which must not be closed by then."""
    yield
    for thread in threading.enumerate():
        if "_connection_worker_thread" in thread.name:
            await asyncio.to_thread(thread.join, THREAD_TIME_LIMIT_S)


@pytest.fixture
async def clock() -> ManualClock:
    return ManualClock()


Opened = Callable[[Clock | None], SqlIdempotencyStore]
"""Opens the store on connections of its own, by that clock or by the database's."""


@asynccontextmanager
async def sql_database(url: URL) -> AsyncIterator[Opened]:
    """A table of its own in that database."""
    made: list[AsyncEngine] = []
    name = f"keys_{uuid.uuid4().hex}"

    def opened(clock: Clock | None) -> SqlIdempotencyStore:
        made.append(create_async_engine(url))
        return SqlIdempotencyStore(made[-1], table_name=name, clock=clock)

    await opened(None).create_table()
    yield opened
    for each in made:
        await each.dispose()
    await wait_for_closings()


@pytest.fixture(scope="session")
def mariadb_database(mariadb: URL) -> URL:
    """A database for all tables of these tests."""
    return made_database(mariadb.set(drivername="mariadb+pymysql"))


def url_of(database: str, request: pytest.FixtureRequest, folder: Path) -> URL:
    """Of a database of that kind."""
    if database == "sqlite":
        return make_url(f"sqlite+aiosqlite:///{folder / 'keys.db'}")
    if database == "mariadb":
        made: URL = request.getfixturevalue("mariadb_database")
        return made.set(drivername="mariadb+asyncmy")
    server: URL = request.getfixturevalue("postgres")[0]
    return server.set(drivername="postgresql+asyncpg")


@pytest.fixture(params=SQL_DATABASES)
async def opened(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Opened]:
    async with sql_database(url_of(request.param, request, tmp_path)) as opened:
        yield opened


@pytest.fixture(params=["memory", *SQL_DATABASES])
async def process(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> AsyncIterator[Process]:
    if request.param == "memory":
        store = MemoryIdempotencyStore(clock=clock)
        yield lambda: store
        return
    async with sql_database(url_of(request.param, request, tmp_path)) as opened:
        yield lambda: opened(clock)
