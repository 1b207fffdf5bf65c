"""The barrier in the participant's own database, through its own SQLAlchemy engine."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from sqlalchemy import Engine, MetaData, Table
from sqlalchemy.ext.asyncio import AsyncEngine

from participant_sdk.barrier.access import AsyncAccess, BlockingAccess
from participant_sdk.barrier.guarded import RETENTION_DEFAULT, GuardedBarrier
from participant_sdk.barrier.sharing import SharingStore
from participant_sdk.barrier.sql_store import AnyEngine, Database, EngineChoice, SqlStore
from participant_sdk.barrier.table import BARRIER_TABLE_NAME, barrier_table
from participant_sdk.barrier.thread_store import ThreadStore
from participant_sdk.clock import Clock, wall_clock_us

CALLS_PER_COMMIT_MAX: Final = 64
"""Most calls that may share one database transaction: each waits for all of them."""


class SqlBarrier(GuardedBarrier):
    """Lets each key take effect at most once, by a row in the participant's own database (R18-R22). Implements `Barrier`.

    The row and what the handler writes through `step.session` are committed as one database transaction. Works with SQLite,
    PostgreSQL, and MySQL or MariaDB. The kind of the engine says what handlers are: with an `AsyncEngine` (aiosqlite, asyncpg, psycopg,
    asyncmy) they are `async def` and have an AsyncSession; with an `Engine` (sqlite3, psycopg, pymysql) they are plain `def`, take a
    `SyncStepContext`, have a Session, and run in the barrier's own threads, which costs much less on SQLite. The table must be there:
    `create_table()`, or `upgrade_barrier(op)` of `participant_sdk.barrier.migrations` in your own migrations;
    `check()` tells what it lacks. The engine stays yours: dispose of it after the server has stopped.
    """

    def __init__(
        self,
        engine: AnyEngine | EngineChoice,
        *,
        engines: Sequence[AsyncEngine] | Sequence[Engine] = (),
        calls_per_commit: int = 1,
        table_name: str = BARRIER_TABLE_NAME,
        retention: timedelta = RETENTION_DEFAULT,
        clock: Clock = wall_clock_us,
    ) -> None:
        """`engine`: the database, or a pure function that picks one per step; then `engines` lists all that it may pick, of one kind.

        `calls_per_commit`: how many of the calls that wait at the same moment may share one database transaction, each in a savepoint of
        its own. More than 1 saves most of what a commit costs, when many calls come at once and handlers are quick: they run one after
        the other. 64 at most; nothing ever waits for company.

        `retention`: how long keys are remembered. Longer than any saga may take, and the same for all replicas: a key that may have
        been forgotten is answered KEY_EXPIRED, which only a person can resolve (R21).
        """
        if not 1 <= calls_per_commit <= CALLS_PER_COMMIT_MAX:
            raise ValueError(f"calls_per_commit is a number from 1 to {CALLS_PER_COMMIT_MAX}, found {calls_per_commit}")
        store = _store(engine, engines, barrier_table(MetaData(), table_name))
        super().__init__(store if calls_per_commit == 1 else SharingStore(store, calls_per_commit), retention=retention, clock=clock)
        self._sql_store = store

    async def create_table(self) -> None:
        """Creates the table and its index in every database where they are missing."""
        await self._sql_store.create_table()


def _store(
    engine: AnyEngine | EngineChoice,
    engines: Sequence[AsyncEngine] | Sequence[Engine],
    table: Table,
) -> SqlStore:
    choose: EngineChoice
    listed: Sequence[AnyEngine]
    if isinstance(engine, (AsyncEngine, Engine)):
        listed, choose = (engine,), lambda _: engine
    elif engines:
        listed, choose = engines, engine
    else:
        raise ValueError("SqlBarrier with a function that picks an engine needs engines=[…], all that it may pick")
    waiting = [each for each in listed if isinstance(each, AsyncEngine)]
    blocking = [each for each in listed if isinstance(each, Engine)]
    if waiting and blocking:
        raise ValueError("SqlBarrier(engines=…) takes engines of one kind, all AsyncEngine or all Engine: handlers cannot be both")
    if blocking:
        return ThreadStore(choose, {each: Database(BlockingAccess(each), table, None) for each in blocking})
    return SqlStore(choose, {each: Database(AsyncAccess(each), table, _turn_of(each)) for each in waiting})


def _turn_of(engine: AsyncEngine) -> asyncio.Lock | None:
    return asyncio.Lock() if engine.dialect.name == "sqlite" else None
