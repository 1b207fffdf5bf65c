"""The databases on which every barrier must behave alike."""

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from participant_sdk.barrier.guarded import GuardedBarrier
from participant_sdk.barrier.sql import SqlBarrier
from participant_sdk.step_context import SessionSource
from participant_sdk.testing import MemoryBarrier, MemoryDatabase
from participant_sdk.testing.memory_barrier import MemoryUnit
from tests.contract.barrier.calls import Handler, ManualClock, Undo

THREAD_TIME_LIMIT_S = 10.0


class World(Protocol):
    """A participant's database, and the processes that use it."""

    clock: ManualClock

    def process(self) -> GuardedBarrier:
        """The barrier of a process of its own."""

    async def write(self, sessions: SessionSource, line: str) -> None:
        """What a handler does."""

    async def lines(self) -> list[str]:
        """What is committed."""


@dataclass
class MemoryWorld:
    database: MemoryDatabase = field(default_factory=MemoryDatabase)
    clock: ManualClock = field(default_factory=ManualClock)
    ledger: list[str] = field(default_factory=list)

    def process(self) -> GuardedBarrier:
        return MemoryBarrier(self.database, clock=self.clock)

    async def write(self, sessions: SessionSource, line: str) -> None:
        assert isinstance(sessions, MemoryUnit)
        sessions.add_effect(lambda: self.ledger.append(line))

    async def lines(self) -> list[str]:
        return list(self.ledger)


@dataclass
class SqlWorld:
    path: Path
    clock: ManualClock = field(default_factory=ManualClock)
    engines: list[AsyncEngine] = field(default_factory=list)

    def engine(self) -> AsyncEngine:
        engine = create_async_engine(f"sqlite+aiosqlite:///{self.path}", connect_args={"timeout": 0.05})
        self.engines.append(engine)
        return engine

    def process(self) -> SqlBarrier:
        return SqlBarrier(self.engine(), clock=self.clock)

    async def write(self, sessions: SessionSource, line: str) -> None:
        await sessions.session.execute(text("INSERT INTO ledger (line) VALUES (:line)"), {"line": line})

    async def lines(self) -> list[str]:
        async with self.engines[0].connect() as connection:
            return list(await connection.scalars(text("SELECT line FROM ledger ORDER BY rowid")))

    async def open(self) -> None:
        barrier = self.process()
        await barrier.create_table()
        async with self.engines[0].begin() as connection:
            await connection.execute(text("PRAGMA journal_mode = WAL"))
            await connection.execute(text("CREATE TABLE ledger (line TEXT)"))

    async def close(self) -> None:
        for engine in self.engines:
            await engine.dispose()


@pytest.fixture(autouse=True)
async def threads_have_ended() -> AsyncIterator[None]:
    """Waits for the threads of dropped connections: each still reports to the event loop, which must not be closed by then."""
    yield
    for thread in threading.enumerate():
        if "_connection_worker_thread" in thread.name:
            await asyncio.to_thread(thread.join, THREAD_TIME_LIMIT_S)


@pytest.fixture
async def sql_world(tmp_path: Path) -> AsyncIterator[SqlWorld]:
    world = SqlWorld(tmp_path / "participant.db")
    await world.open()
    yield world
    await world.close()


@pytest.fixture(params=["memory", "sqlite"])
def world(request: pytest.FixtureRequest) -> World:
    if request.param == "memory":
        return MemoryWorld()
    chosen: SqlWorld = request.getfixturevalue("sql_world")
    return chosen


@pytest.fixture
def barrier(world: World) -> GuardedBarrier:
    return world.process()


@pytest.fixture
def handler(world: World) -> Handler:
    return Handler(world.write)


@pytest.fixture
def undo(world: World) -> Undo:
    return Undo(world.write)
