"""The databases on which every barrier must behave alike."""

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, cast

import pytest
from google.protobuf.any_pb2 import Any as PackedAny
from sqlalchemy import URL, Engine, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from participant_sdk.barrier.barrier import RunCompensate, RunExecute
from participant_sdk.barrier.guarded import GuardedBarrier
from participant_sdk.barrier.outcomes import CompensateAnswer, ExecuteAnswer, ExecuteOutcome
from participant_sdk.barrier.sql import SqlBarrier
from participant_sdk.barrier.store import BarrierUnit
from participant_sdk.barrier.verdict import CompensateCall, ExecuteCall
from participant_sdk.errors import SessionUnavailableError
from participant_sdk.step_context import SessionSource
from participant_sdk.testing import MemoryBarrier, MemoryDatabase
from participant_sdk.testing.memory_barrier import MemoryUnit
from tests.barrier_databases import BARRIER, Place, made_database, mariadb_place, postgres_place, sqlite_place
from tests.contract.barrier.calls import THREAD_TIME_LIMIT_S, Handler, ManualClock, Undo, execute_call, postponed


class World(Protocol):
    """A participant's database, and the processes that use it."""

    clock: ManualClock

    @property
    def can_be_cut_short(self) -> bool:
        """Whether a handler ends when its call is cancelled; what runs in a thread, or for several calls, does not."""

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

    @property
    def can_be_cut_short(self) -> bool:
        return True

    def process(self) -> GuardedBarrier:
        return MemoryBarrier(self.database, clock=self.clock)

    async def write(self, sessions: SessionSource, line: str) -> None:
        assert isinstance(sessions, MemoryUnit)
        sessions.add_effect(lambda: self.ledger.append(line))

    async def lines(self) -> list[str]:
        return list(self.ledger)


def session_of(sessions: SessionSource) -> AsyncSession:
    """The session of a barrier whose engine does not block."""
    assert isinstance(sessions.session, AsyncSession)
    return sessions.session


@dataclass
class SqlWorld:
    place: Place
    clock: ManualClock = field(default_factory=ManualClock)
    engines: list[AsyncEngine] = field(default_factory=list)

    @property
    def can_be_cut_short(self) -> bool:
        return True

    def engine(self, **options: object) -> AsyncEngine:
        engine = self.place.engine(**options)
        self.engines.append(engine)
        return engine

    def process(self) -> SqlBarrier:
        return SqlBarrier(self.engine(), clock=self.clock)

    async def write(self, sessions: SessionSource, line: str) -> None:
        await session_of(sessions).execute(text("INSERT INTO ledger (line) VALUES (:line)"), {"line": line})

    async def lines(self) -> list[str]:
        async with self.engines[0].connect() as connection:
            return list(await connection.scalars(text("SELECT line FROM ledger ORDER BY id")))

    async def hold(self, connection: AsyncConnection) -> None:
        """Keeps every key of this database waiting until the connection's database transaction ends."""
        if self.place.name == "sqlite":
            await connection.execute(text("INSERT INTO ledger (line) VALUES ('somebody else')"))
        else:
            await connection.execute(select(BARRIER).with_for_update())

    async def open(self) -> None:
        await self.place.empty(self.engine())

    async def close(self) -> None:
        for engine in self.engines:
            await engine.dispose()


class AccompaniedBarrier(SqlBarrier):
    """Has every call share its database transaction with another one, which leaves nothing."""

    async def execute(self, call: ExecuteCall, run: RunExecute) -> ExecuteAnswer:
        async with asyncio.TaskGroup() as tasks:
            answer = tasks.create_task(super().execute(call, run))
            tasks.create_task(self._accompany(call.deadline_us))
        return answer.result()

    async def compensate(self, call: CompensateCall, claimed: PackedAny | None, run: RunCompensate) -> CompensateAnswer:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._accompany(call.deadline_us))
            answer = tasks.create_task(super().compensate(call, claimed, run))
        return answer.result()

    async def _accompany(self, deadline_us: int) -> None:
        call = replace(execute_call(ManualClock()), key=f"company/{uuid.uuid4()}", deadline_us=deadline_us)
        await super().execute(call, _leave_nothing)


async def _leave_nothing(sessions: SessionSource) -> ExecuteOutcome:
    return postponed()


@dataclass
class SharedWorld(SqlWorld):
    """Every call is in company."""

    @property
    def can_be_cut_short(self) -> bool:
        return False

    def process(self) -> SqlBarrier:
        return AccompaniedBarrier(self.engine(), clock=self.clock, calls_per_commit=8)


@dataclass
class BlockingWorld(SqlWorld):
    """The same file through an engine that blocks, so that handlers run in a thread."""

    blocking: list[Engine] = field(default_factory=list)

    @property
    def can_be_cut_short(self) -> bool:
        return False

    def blocking_engine(self) -> Engine:
        engine = self.place.blocking_engine()
        self.blocking.append(engine)
        return engine

    def process(self) -> SqlBarrier:
        return SqlBarrier(self.blocking_engine(), clock=self.clock)

    async def write(self, sessions: SessionSource, line: str) -> None:
        def insert(session: Session) -> None:
            session.execute(text("INSERT INTO ledger (line) VALUES (:line)"), {"line": line})

        try:
            await cast("BarrierUnit", sessions).run_sync(insert)
        except SessionUnavailableError:  # An effect outside: its handler opens a session of its own.
            with Session(self.blocking[0]) as session, session.begin():
                insert(session)

    async def close(self) -> None:
        await super().close()
        for engine in self.blocking:
            engine.dispose()


@dataclass
class SharedBlockingWorld(BlockingWorld):
    def process(self) -> SqlBarrier:
        return AccompaniedBarrier(self.blocking_engine(), clock=self.clock, calls_per_commit=8)


KINDS = {"async": SqlWorld, "shared": SharedWorld, "blocking": BlockingWorld, "blocking-shared": SharedBlockingWorld}
PLACES = ("sqlite", "postgres", "mariadb")
IN_FAST_TIER = {("postgres", "async")}
"""Beyond SQLite, where all is quick."""


def _in_its_tier(place: str, kind: str) -> object:
    is_fast = place == "sqlite" or (place, kind) in IN_FAST_TIER
    return pytest.param((place, kind), id=f"{place}-{kind}", marks=() if is_fast else pytest.mark.full)


WORLDS = [_in_its_tier(place, kind) for place in PLACES for kind in KINDS]


@pytest.fixture(autouse=True)
async def threads_have_ended() -> AsyncIterator[None]:
    """Waits for the threads of dropped connections: each still reports to the event loop, which must not be closed by then."""
    yield
    for thread in threading.enumerate():
        if "_connection_worker_thread" in thread.name:
            await asyncio.to_thread(thread.join, THREAD_TIME_LIMIT_S)


@pytest.fixture(scope="session")
def postgres_database(postgres: tuple[URL, str]) -> URL:
    """Emptied by each test that uses it."""
    return made_database(postgres[0].set(drivername="postgresql+psycopg"))


@pytest.fixture(scope="session")
def mariadb_database(mariadb: URL) -> URL:
    """Emptied by each test that uses it."""
    return made_database(mariadb.set(drivername="mariadb+pymysql"))


@pytest.fixture
def place_of(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Place]:
    """A database by the name of its kind."""
    makers = {
        "sqlite": lambda: sqlite_place(tmp_path / "participant.db"),
        "postgres": lambda: postgres_place(request.getfixturevalue("postgres_database")),
        "mariadb": lambda: mariadb_place(request.getfixturevalue("mariadb_database")),
    }
    return lambda name: makers[name]()


@pytest.fixture(params=PLACES)
async def sql_world(request: pytest.FixtureRequest, place_of: Callable[[str], Place]) -> AsyncIterator[SqlWorld]:
    world = SqlWorld(place_of(request.param))
    await world.open()
    yield world
    await world.close()


@pytest.fixture
async def sqlite_world(place_of: Callable[[str], Place]) -> AsyncIterator[SqlWorld]:
    world = SqlWorld(place_of("sqlite"))
    await world.open()
    yield world
    await world.close()


@pytest.fixture
async def mariadb_world(place_of: Callable[[str], Place]) -> AsyncIterator[SqlWorld]:
    world = SqlWorld(place_of("mariadb"))
    await world.open()
    yield world
    await world.close()


@pytest.fixture(params=["memory", *WORLDS])
async def world(request: pytest.FixtureRequest, place_of: Callable[[str], Place]) -> AsyncIterator[World]:
    if request.param == "memory":
        yield MemoryWorld()
        return
    place, kind = request.param
    world = KINDS[kind](place_of(place))
    await world.open()
    yield world
    await world.close()


@pytest.fixture
def barrier(world: World) -> GuardedBarrier:
    return world.process()


@pytest.fixture
async def handler(world: World) -> Handler:
    return Handler(world.write)


@pytest.fixture
async def undo(world: World) -> Undo:
    return Undo(world.write)
