"""The barrier's rows in one or several SQL databases."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, Final, TypeAlias

from sqlalchemy import Engine, Table
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.schema import CreateIndex, CreateTable

from participant_sdk.barrier.access import Access
from participant_sdk.barrier.sessions import watch_commits
from participant_sdk.barrier.sql_unit import SqlUnit
from participant_sdk.barrier.statements import Statements
from participant_sdk.barrier.store import AnswerT, BarrierUnit, Flow
from participant_sdk.barrier.verdict import BarrierRow, CompensateCall, ExecuteCall, ExecutionState, StepIdentity
from participant_sdk.clock import wall_clock_us
from participant_sdk.errors import ParticipantSetupError

AnyEngine: TypeAlias = AsyncEngine | Engine
EngineChoice: TypeAlias = Callable[[StepIdentity], AnyEngine]
"""Picks the database of a step. A pure function: always the same engine for the same step (R21)."""


class Database:
    """One of the databases."""

    def __init__(self, access: Access, table: Table, turn: asyncio.Lock | None) -> None:
        """`turn`: SQLite has one writer. Waiting here costs nothing and is fair; waiting for its file lock is neither. None if rows are
        locked singly, or if whoever uses it takes turns already.
        """
        self.access: Final = access
        self.statements: Final = Statements(table, access.engine.dialect.name)
        self._turn = turn
        self._is_proven = False
        """Whether it is known to have database transactions."""
        watch_commits(access.engine)

    @asynccontextmanager
    async def unit(self) -> AsyncIterator[SqlUnit]:
        """A database transaction, begun when first used."""
        if not self._is_proven:
            await self.prove()
        async with self._unit() as unit:
            yield unit

    async def prove(self) -> None:
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
        async with self._unit() as unit:
            await unit.lock_row(probe)
        async with self._unit() as unit:
            if await unit.lock_row(probe) is not None:
                await unit.delete_row(probe)
                await unit.commit()
                raise ParticipantSetupError(
                    "the engine of SqlBarrier commits every statement by itself (isolation_level AUTOCOMMIT): give the barrier an "
                    "engine with database transactions"
                )
        self._is_proven = True

    async def delete_before(self, created_before_us: int, limit: int) -> int:
        """Forgets at most `limit` rows that were created before that instant; returns how many it forgot."""
        async with self._unit() as unit:
            return await unit.delete_oldest(created_before_us, limit)

    async def create_table(self) -> None:
        """Creates the table and its index where they are missing."""
        link = await self.access.connect()
        try:
            await link.execute(CreateTable(self.statements.table, if_not_exists=True))
            for index in self.statements.table.indexes:
                await link.execute(CreateIndex(index, if_not_exists=True))
            await link.commit()
        finally:
            await link.close()

    def _unit(self) -> SqlUnit:
        return SqlUnit(self.access, self.statements, self._turn)


class SqlStore:
    """Implements `BarrierStore`, where flows may wait for the event loop or run in a thread that has none."""

    @property
    def is_blocking(self) -> bool:
        return False

    def __init__(self, choose: EngineChoice, databases: Mapping[AnyEngine, Database]) -> None:
        self._choose = choose
        self.databases: Final = databases

    def unit(self, step: StepIdentity) -> AbstractAsyncContextManager[BarrierUnit]:
        return self.databases[self.engine_for(step)].unit()

    def engine_for(self, step: StepIdentity) -> AnyEngine:
        """The engine picked for that step. Raises ParticipantSetupError if it was not told of."""
        engine = self._choose(step)
        if engine not in self.databases:
            raise ParticipantSetupError(f"the engine picked for {step} is none of SqlBarrier(engines=…): add it there")
        return engine

    async def run(self, call: ExecuteCall | CompensateCall, flow: Flow[AnswerT], *, wait_s: float, now_us: int) -> AnswerT:
        return await flow(self)

    async def run_on(self, engine: AnyEngine, work: Callable[[Database], Coroutine[Any, Any, AnswerT]]) -> AnswerT:
        """Runs what opens units in that database, where they can be opened."""
        return await work(self.databases[engine])

    async def check(self) -> None:
        for engine in self.databases:
            await self.run_on(engine, Database.prove)

    async def delete_before(self, created_before_us: int, limit: int) -> int:
        forgotten = 0
        for engine in self.databases:
            some = partial(Database.delete_before, created_before_us=created_before_us, limit=limit - forgotten)
            forgotten += await self.run_on(engine, some)
        return forgotten

    async def create_table(self) -> None:
        """Creates the table and its index in every database where they are missing."""
        for engine in self.databases:
            await self.run_on(engine, Database.create_table)
