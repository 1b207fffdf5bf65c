"""The barrier in the participant's own database, through its own SQLAlchemy engine."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta

from sqlalchemy import MetaData, Table
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.schema import CreateIndex, CreateTable

from participant_sdk.barrier.guarded import RETENTION_DEFAULT, GuardedBarrier
from participant_sdk.barrier.sessions import watch_commits
from participant_sdk.barrier.sql_unit import SqlUnit
from participant_sdk.barrier.statements import Statements
from participant_sdk.barrier.store import BarrierUnit
from participant_sdk.barrier.table import BARRIER_TABLE_NAME, barrier_table
from participant_sdk.barrier.verdict import BarrierRow, ExecutionState, StepIdentity
from participant_sdk.clock import Clock, wall_clock_us
from participant_sdk.errors import ParticipantSetupError

EngineChoice = Callable[[StepIdentity], AsyncEngine]
"""Picks the database of a step. A pure function: always the same engine for the same step (R21)."""


class SqlBarrier(GuardedBarrier):
    """Lets each key take effect at most once, by a row in the participant's own database (R18-R22). Implements `Barrier`.

    The row and what the handler writes through `step.session` are committed as one database transaction. Works with SQLite
    (aiosqlite) and PostgreSQL (asyncpg, psycopg). The table must be there: `create_table()`, or `barrier_table(metadata)` in your
    own migrations. The engine stays yours: dispose of it after the server has stopped.
    """

    def __init__(
        self,
        engine: AsyncEngine | EngineChoice,
        *,
        engines: Sequence[AsyncEngine] = (),
        table_name: str = BARRIER_TABLE_NAME,
        retention: timedelta = RETENTION_DEFAULT,
        clock: Clock = wall_clock_us,
    ) -> None:
        """`engine`: the database, or a pure function that picks one per step; then `engines` lists all that it may pick.

        `retention`: how long keys are remembered. Longer than any saga may take, and the same for all replicas: a key that may have
        been forgotten is answered KEY_EXPIRED, which only a person can resolve (R21).
        """
        if isinstance(engine, AsyncEngine):
            store = SqlStore(lambda _: engine, engines=(engine,), table_name=table_name)
        elif not engines:
            raise ValueError("SqlBarrier with a function that picks an engine needs engines=[…], all that it may pick")
        else:
            store = SqlStore(engine, engines=tuple(engines), table_name=table_name)
        super().__init__(store, retention=retention, clock=clock)
        self._sql_store = store

    async def create_table(self) -> None:
        """Creates the table and its index in every database where they are missing."""
        await self._sql_store.create_table()


class SqlStore:
    """Implements `BarrierStore` on one or several databases."""

    def __init__(self, choose: EngineChoice, *, engines: tuple[AsyncEngine, ...], table_name: str) -> None:
        self._choose = choose
        self._engines = engines
        self._table: Table = barrier_table(MetaData(), table_name)
        self._statements = {engine.dialect.name: Statements(self._table, engine.dialect.name) for engine in engines}
        # SQLite has one writer. Waiting here costs nothing and is fair; waiting for its file lock is neither.
        self._turns = {engine: asyncio.Lock() for engine in engines if engine.dialect.name == "sqlite"}
        self._proven: set[AsyncEngine] = set()
        for engine in engines:
            watch_commits(engine.sync_engine)

    def unit(self, step: StepIdentity) -> AbstractAsyncContextManager[BarrierUnit]:
        engine = self._engine_for(step)
        return self._unit_on(engine) if engine in self._proven else self._first_unit(engine)

    async def check(self) -> None:
        for engine in self._engines:
            await self._prove(engine)

    async def delete_before(self, created_before_us: int, limit: int) -> int:
        forgotten = 0
        for engine in self._engines:
            async with self._unit_on(engine) as unit:
                forgotten += await unit.delete_oldest(created_before_us, limit - forgotten)
        return forgotten

    async def create_table(self) -> None:
        for engine in self._engines:
            async with engine.begin() as connection:
                await connection.execute(CreateTable(self._table, if_not_exists=True))
                for index in self._table.indexes:
                    await connection.execute(CreateIndex(index, if_not_exists=True))

    def _engine_for(self, step: StepIdentity) -> AsyncEngine:
        engine = self._choose(step)
        if engine.dialect.name not in self._statements or engine not in self._engines:
            raise ParticipantSetupError(f"the engine picked for {step} is none of SqlBarrier(engines=…): add it there")
        return engine

    def _unit_on(self, engine: AsyncEngine) -> SqlUnit:
        return SqlUnit(engine, self._statements[engine.dialect.name], self._turns.get(engine))

    @asynccontextmanager
    async def _first_unit(self, engine: AsyncEngine) -> AsyncIterator[BarrierUnit]:
        await self._prove(engine)
        async with self._unit_on(engine) as unit:
            yield unit

    async def _prove(self, engine: AsyncEngine) -> None:
        """Sees whether a row that is not committed vanishes: on a connection in AUTOCOMMIT there is no barrier."""
        now_us = wall_clock_us()
        probe = BarrierRow(
            key=f"probe/{uuid.uuid4()}",
            saga_id="",
            step_id="",
            action="",
            fingerprint=b"",
            execution=ExecutionState.SEALED,
            created_at_us=now_us,
            updated_at_us=now_us,
        )
        async with self._unit_on(engine) as unit:
            await unit.lock_row(probe)
        async with self._unit_on(engine) as unit:
            if await unit.lock_row(probe) is not None:
                await unit.delete_row(probe)
                await unit.commit()
                raise ParticipantSetupError(
                    "the engine of SqlBarrier commits every statement by itself (isolation_level AUTOCOMMIT): give the barrier an "
                    "engine with database transactions"
                )
        self._proven.add(engine)
