"""Idempotency in a SQL database, shared by all processes of a service."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import CursorResult, MetaData, inspect
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.schema import CreateIndex, CreateTable

from participant_sdk.barrier.cut_connections import roll_back_when_cut
from participant_sdk.clock import Clock
from participant_sdk.idempotency.errors import IdempotencySetupError, IdempotencyStoreBusyError
from participant_sdk.idempotency.sql_errors import translated
from participant_sdk.idempotency.statements import (
    Parameters,
    Statement,
    Statements,
    answer_parameters,
    claim_parameters,
    record_of,
    seen_parameters,
)
from participant_sdk.idempotency.table import IDEMPOTENCY_TABLE_NAME, idempotency_table
from participant_sdk.idempotency.verdict import Claim, Run, StoredAnswer, Verdict, claimed, judge

STATEMENTS_TIME_LIMIT_DEFAULT: Final = timedelta(seconds=5)
_TAKE_OVER_TRIES: Final = 5
"""How often a claim is judged anew because another one was quicker."""


class SqlIdempotencyStore:
    """Implements `IdempotencyStore` by a table of the service's own database: SQLite, PostgreSQL, MySQL or MariaDB, through an AsyncEngine.

    Each method is one database transaction of its own, apart from those of the handlers. The table must be there: `create_table()`, or
    `idempotency_table(metadata)` in your own migrations. The engine stays yours: dispose of it after the server has stopped.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        table_name: str = IDEMPOTENCY_TABLE_NAME,
        time_limit: timedelta = STATEMENTS_TIME_LIMIT_DEFAULT,
        clock: Clock | None = None,
    ) -> None:
        """`time_limit`: of one method; after it the database counts as away, however its driver waits.

        `clock`: None for the database's own, which is the same for all processes. For tests.
        """
        if not isinstance(engine, AsyncEngine):
            raise IdempotencySetupError(f"SqlIdempotencyStore needs an AsyncEngine (create_async_engine), found {type(engine).__name__}")
        self.engine: Final = engine
        roll_back_when_cut(engine.sync_engine)
        self.table_name: Final = table_name
        self._statements = Statements(idempotency_table(MetaData(), table_name), engine.dialect, has_own_clock=clock is not None)
        self._time_limit_s = time_limit.total_seconds()
        self._clock = clock
        # SQLite has one writer: waiting here costs nothing and is fair, waiting for its file lock is neither.
        self._turn: asyncio.Lock | None = asyncio.Lock() if engine.dialect.name == "sqlite" else None

    async def create_table(self) -> None:
        """Creates the table and its index where they are missing."""
        table = self._statements.table
        async with self._transaction() as connection:
            if await connection.run_sync(lambda sync: inspect(sync).has_table(table.name)):
                return
            await connection.execute(CreateTable(table, if_not_exists=True))
            for index in table.indexes:
                await connection.execute(CreateIndex(index, if_not_exists=not _is_mysql(connection)))

    async def check(self) -> None:
        """Proves that the table is there. Raises IdempotencyTableMissingError.

        Raises IdempotencyStoreUnavailableError if the database is away, which is no reason not to start.
        """
        async with self._transaction() as connection:
            await self._execute(connection, self._statements.find, {"p_record_key": ""})

    async def begin(self, claim: Claim) -> Verdict:
        for _ in range(_TAKE_OVER_TRIES):
            async with self._transaction() as connection:
                verdict = await self._begin(connection, claim)
            if verdict is not None:
                return verdict
        raise IdempotencyStoreBusyError(f"the record of key {claim.client_key!r} comes and goes")

    async def renew(self, claim: Claim) -> bool:
        return await self._change(self._statements.renew, claim)

    async def complete(self, claim: Claim, answer: StoredAnswer) -> bool:
        return await self._change(self._statements.complete, claim, answer_parameters(answer))

    async def abandon(self, claim: Claim) -> bool:
        return await self._change(self._statements.abandon, claim)

    async def leave_in_doubt(self, claim: Claim) -> bool:
        return await self._change(self._statements.leave_in_doubt, claim)

    async def delete_expired(self, limit: int) -> int:
        async with self._transaction() as connection:
            found = await self._execute(connection, self._statements.find_expired, {"p_limit": limit})
            keys = list(found.scalars())
            if not keys:
                return 0
            deleted = await self._execute(connection, self._statements.delete_expired, {"p_keys": keys})
            return deleted.rowcount

    async def _begin(self, connection: AsyncConnection, claim: Claim) -> Verdict | None:
        """None if another claim was quicker."""
        parameters = claim_parameters(claim)
        inserted = await self._execute(connection, self._statements.insert, parameters)
        if inserted.rowcount == 1:
            return Run()
        found = (await self._execute(connection, self._statements.find, parameters)).one_or_none()
        if found is None:
            return None  # It was there a moment ago: given back, or cleaned up.
        record, now_us = record_of(found)
        verdict = judge(record, claim, now_us=now_us)
        if not isinstance(verdict, Run):
            return verdict
        seen = seen_parameters(record, claimed(record, claim, now_us=now_us).created_at_us)
        taken = await self._execute(connection, self._statements.take_over, parameters | seen)
        return verdict if taken.rowcount == 1 else None

    async def _change(self, statement: Statement, claim: Claim, more: Parameters | None = None) -> bool:
        async with self._transaction() as connection:
            changed = await self._execute(connection, statement, claim_parameters(claim) | (more or {}))
            return bool(changed.rowcount)

    async def _execute(self, connection: AsyncConnection, statement: Statement, offered: Parameters) -> CursorResult[Any]:
        if self._clock is not None:
            offered = {**offered, "p_now": self._clock()}
        return await connection.execute(statement.executable, statement.parameters(offered))

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection]:
        with translated(self._statements.table.name):
            async with asyncio.timeout(self._time_limit_s), self._turn or nullcontext(), self.engine.begin() as connection:
                yield connection


def _is_mysql(connection: AsyncConnection) -> bool:
    return connection.dialect.name in {"mysql", "mariadb"}
