"""Calls that are cut short in the middle of a statement leave nothing locked behind, on the driver that waits for nothing."""

import asyncio
import gc
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from participant_sdk import SqlBarrier
from participant_sdk.barrier.outcomes import ExecuteOutcome
from participant_sdk.idempotency.sql_store import SqlIdempotencyStore
from participant_sdk.outbox.database import OutboxDatabase
from participant_sdk.step_context import SessionSource
from tests.contract.barrier.calls import ManualClock, execute_call

CALLS = 30
ROWS = 200
"""Enough for a reader to be in the middle of them."""
URL = "sqlite+aiosqlite:///{}"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database with a book of many lines."""
    path = tmp_path / "service.db"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE book (line TEXT)")
        database.executemany("INSERT INTO book VALUES (?)", [("a line",)] * ROWS)
    return path


@pytest.fixture
def _without_garbage_collector() -> Iterator[None]:
    """It would find what was left behind, some time."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_without_garbage_collector")
async def test_call_that_is_cancelled_keeps_nobody_from_writing(path: Path) -> None:  # R22
    engine = create_async_engine(URL.format(path))
    clock = ManualClock()
    barrier = SqlBarrier(engine, clock=clock)
    await barrier.create_table()
    for number in range(CALLS):
        has_written = asyncio.Event()

        async def run(sessions: SessionSource, has_written: asyncio.Event = has_written) -> ExecuteOutcome:
            session = sessions.session
            assert isinstance(session, AsyncSession)
            await session.execute(text("INSERT INTO book VALUES ('another')"))
            has_written.set()
            while True:
                await session.execute(text("SELECT line FROM book"))

        call = asyncio.create_task(barrier.execute(replace(execute_call(clock), key=f"key {number}"), run))
        await has_written.wait()
        for _ in range(number):  # So that it is cut in the one place, and in the other.
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait({call})
        assert call.cancelled()
        with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
    await engine.dispose()


async def test_everything_that_writes_rolls_back_what_is_cut(path: Path) -> None:
    engines = [create_async_engine(URL.format(path)) for _ in range(3)]
    SqlBarrier(engines[0])
    SqlIdempotencyStore(engines[1])
    OutboxDatabase(engines[2])
    for engine in engines:
        async with engine.connect() as connection:
            await connection.execute(text("INSERT INTO book VALUES ('another')"))
            unfinished = await connection.stream(text("SELECT line FROM book"))  # What a closed connection would wait for.
            await unfinished.fetchone()
            await connection.invalidate()
            with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
        await engine.dispose()
