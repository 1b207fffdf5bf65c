"""What an action of the benchmarks does in a database of its own, and how it is guarded."""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final, Protocol

from sqlalchemy import Column, Integer, MetaData, String, Table, insert
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine

from participant_sdk import Barrier, NoBarrier, SqlBarrier, StepContext

_EFFECT: Final = Table("effect", MetaData(), Column("id", Integer, primary_key=True), Column("saga", Integer), Column("step", String(16)))
SHARED: Final = 64
"""Calls that may share a database transaction."""


class Effect(Protocol):
    """One way to write, or not to."""

    barrier: Barrier
    """Of the participant."""
    writes: bool
    """Whether there is anything to write."""

    async def write(self, number: int, name: str, step: StepContext) -> None:
        """Writes one row, for a saga and a step of it."""


class Nothing:
    """The action writes nothing, and nothing guards it."""

    writes = False

    def __init__(self) -> None:
        self.barrier: Barrier = NoBarrier()

    async def write(self, number: int, name: str, step: StepContext) -> None: ...


class OwnTransaction:
    """The action writes in a database transaction of its own, as a service without a barrier does: a repeated call writes again."""

    writes = True

    def __init__(self, engine: AsyncEngine) -> None:
        self.barrier: Barrier = NoBarrier()
        self._sessions = async_sessionmaker(engine)

    async def write(self, number: int, name: str, step: StepContext) -> None:
        async with self._sessions.begin() as session:
            await session.execute(insert(_EFFECT).values(saga=number, step=name))


class InBarrier:
    """The action writes in the database transaction of the SQL barrier."""

    writes = True

    def __init__(self, barrier: SqlBarrier) -> None:
        self.barrier: Barrier = barrier

    async def write(self, number: int, name: str, step: StepContext) -> None:
        await step.session.execute(insert(_EFFECT).values(saga=number, step=name))


async def _nothing(_: Path) -> Effect:
    return Nothing()


async def _own(database: Path) -> Effect:
    return OwnTransaction(await _open(database))


async def _sql(database: Path, calls_per_commit: int = 1) -> Effect:
    barrier = SqlBarrier(await _open(database), calls_per_commit=calls_per_commit)
    await barrier.create_table()
    return InBarrier(barrier)


async def _shared(database: Path) -> Effect:
    return await _sql(database, SHARED)


async def _open(database: Path) -> AsyncEngine:
    engine = create_async_engine(f"sqlite+aiosqlite:///{database}", connect_args={"timeout": 30})
    async with engine.begin() as connection:
        await connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        await connection.run_sync(_EFFECT.metadata.create_all)
    return engine


EFFECTS: Final[Mapping[str, Callable[[Path], Awaitable[Effect]]]] = {"none": _nothing, "own": _own, "sql": _sql, "shared": _shared}
"""By the name that drivers know it by: nothing is written; a database transaction of its own and no barrier; the SQL barrier's; one of the
SQL barrier for many calls."""
