"""The barrier's rows in one or several SQL databases."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeAlias, TypeVar

from sqlalchemy import Connection, Engine, Table
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from participant_sdk.barrier.access import Access
from participant_sdk.barrier.sessions import JoinedSession, watch_guarded
from participant_sdk.barrier.sql_unit import SqlUnit
from participant_sdk.barrier.statements import Statements
from participant_sdk.barrier.store import AnswerT, BarrierUnit, Flow, StoreUnavailableError
from participant_sdk.barrier.table import KEY_CHARS_MAX
from participant_sdk.barrier.table_shape import create_statements, differences, has_table
from participant_sdk.barrier.verdict import BarrierRow, CompensateCall, ExecuteCall, ExecutionState, StepIdentity
from participant_sdk.clock import wall_clock_us
from participant_sdk.errors import BarrierTableOutdatedError, ParticipantSetupError

ResultT = TypeVar("ResultT")

AnyEngine: TypeAlias = AsyncEngine | Engine
EngineChoice: TypeAlias = Callable[[StepIdentity], AnyEngine]
"""Picks the database of a step. A pure function: always the same engine for the same step (R21)."""


_PROBE_REPLY: Final = bytes(1 << 16)
"""One byte more than a BLOB of MySQL takes."""


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
        watch_guarded(access.engine)

    @asynccontextmanager
    async def unit(self) -> AsyncIterator[SqlUnit]:
        """A database transaction, begun when first used."""
        if not self._is_proven:
            await self.prove()
        async with self._unit() as unit:
            yield unit

    async def prove(self) -> None:
        """Sees whether the table is the one that is needed, and whether a row that is not committed vanishes.

        On a connection in AUTOCOMMIT there is no barrier, nor in a table without database transactions. Raises like `BarrierStore.check`.
        """
        probe = _probe()
        try:
            async with self._unit() as unit:
                await unit.prove_server()
                for row, is_new in _probing(probe):
                    if (await unit.lock_row(row) is None) is not is_new:
                        raise ParticipantSetupError(
                            f"the table {self.statements.table.name!r} of SqlBarrier takes two keys for one, or one for two: "
                            "its column key needs to be the primary key, and to compare bytes, without regard for languages or cases"
                        )
        except StoreUnavailableError as error:
            await self._refuse_other_version(error)
            raise
        await self._prove_rollback(probe)
        self._is_proven = True

    async def _prove_rollback(self, probe: BarrierRow) -> None:
        async with self._unit() as unit:
            if await unit.lock_row(probe) is None:
                return
            for row, is_new in _probing(probe):
                if is_new:
                    await unit.delete_row(row)
            await unit.commit()
            raise ParticipantSetupError(
                "the engine of SqlBarrier commits every statement by itself (isolation_level AUTOCOMMIT), or its table is kept by a "
                "storage engine without database transactions (MyISAM, Aria): give the barrier an engine with database transactions"
            )

    async def _refuse_other_version(self, error: StoreUnavailableError) -> None:
        """Raises BarrierTableOutdatedError if it is the table that the probe failed with."""
        table = self.statements.table
        try:
            said = await self._look(lambda connection: differences(connection, table) if has_table(connection, table) else [])
        except (SQLAlchemyError, OSError, TimeoutError):
            return  # The database cannot be reached at all.
        if said:
            raise BarrierTableOutdatedError(
                f"the table {table.name!r} is of another version of the barrier: {'; '.join(said)}. Run upgrade_barrier(op) of "
                "participant_sdk.barrier.migrations, which adds and widens what can be, or make the table anew once it may be empty"
            ) from error

    async def _look(self, look: Callable[[Connection], ResultT]) -> ResultT:
        """What is found in the database, outside of any unit."""
        session = self.access.session_on(None)
        try:
            return await self.access.with_session(session, lambda joined: look(joined.connection()))
        finally:
            await self.access.with_session(session, JoinedSession.end)

    async def delete_before(self, created_before_us: int, limit: int) -> int:
        """Forgets at most `limit` rows that were created before that instant; returns how many it forgot."""
        async with self._unit() as unit:
            return await unit.delete_oldest(created_before_us, limit)

    async def create_table(self) -> None:
        """Creates the table and its index where they are missing."""
        table = self.statements.table
        # MySQL warns of what is there already, and one of its drivers makes that a warning of Python.
        if self.statements.is_mysql and await self._look(lambda connection: has_table(connection, table)):
            return
        link = await self.access.connect()
        try:
            for statement in create_statements(table, self.access.engine.dialect):
                await link.exec_driver_sql(statement)
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


def _probe() -> BarrierRow:
    """A row with every value as long as it may be; its key could take a blank more."""
    now_us = wall_clock_us()
    return BarrierRow(
        key=f"probe/{uuid.uuid4()}/".ljust(KEY_CHARS_MAX - 1, "x"),
        saga_id="s" * 36,
        step_id="s" * 64,
        action="a" * 129,
        fingerprint=b"\xff" * 32,
        execution=ExecutionState.SUCCEEDED,
        reply=_PROBE_REPLY,
        locked_until_us=now_us,
        created_at_us=now_us,
        updated_at_us=now_us,
    )


def _probing(probe: BarrierRow) -> list[tuple[BarrierRow, bool]]:
    """Rows to lock one after the other, and whether each is to be new: only the very same key is the same."""
    return [(probe, True), (probe, False), (replace(probe, key=probe.key.upper()), True), (replace(probe, key=f"{probe.key} "), True)]
