"""Completions on a real database: its errors, COMMITs in doubt, and misuse of the session (R24, R26)."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path

import pytest
from sqlalchemy import MetaData, String, insert, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from participant_sdk import BarrierTableMissingError, CompletionPostponedError, SessionMisusedError, SqlBarrier
from participant_sdk.barrier.access import AsyncAccess
from participant_sdk.barrier.completions import StoredResult
from participant_sdk.barrier.guarded import GuardedBarrier
from participant_sdk.barrier.sql_store import Database, SqlStore
from participant_sdk.barrier.store import AnswerT, BarrierUnit, Flow
from participant_sdk.barrier.table import barrier_table
from participant_sdk.barrier.verdict import CompensateCall, ExecuteCall, StepIdentity
from tests.contract.barrier.calls import Handler, Undo, acceptance, accepted, compensate_call, completion_call, execute_call, reply
from tests.contract.barrier.conftest import SqlWorld, session_of
from tests.contract.barrier.test_sql_barrier import FlakyCommit


async def accept(world: SqlWorld, barrier: GuardedBarrier) -> None:
    answer = await barrier.execute(execute_call(world.clock), Handler(world.write, outcomes=[accepted()]))
    assert answer == acceptance()


async def complete(world: SqlWorld, barrier: GuardedBarrier, *, wait_s: float = 5) -> object:
    async with barrier.completing(completion_call(wait_s=wait_s)) as found:
        if isinstance(found, StoredResult):
            return found.response
        await world.write(found.sessions, "complete")
        await found.conclude(reply("approved"))
    return None


@pytest.mark.parametrize("takes_place", [True, False])
async def test_commit_in_doubt_is_settled_by_reading_the_row_again(sql_world: SqlWorld, takes_place: bool) -> None:
    engine = sql_world.engine()
    barrier = SqlBarrier(engine, clock=sql_world.clock)
    await accept(sql_world, barrier)
    flaky = FlakyCommit(engine, takes_place=takes_place)
    flaky.is_armed = True  # R26
    if takes_place:
        assert await complete(sql_world, barrier) is None
        assert await complete(sql_world, barrier) == reply("approved")
    else:
        with pytest.raises(CompletionPostponedError, match="nothing was stored"):
            await complete(sql_world, barrier)
        assert await complete(sql_world, barrier) is None
    assert await sql_world.lines() == ["execute 1", "complete"]


class HookedStore:
    """Implements `BarrierStore` on another one; lets something happen before a unit is begun."""

    def __init__(self, world: SqlWorld) -> None:
        engine = world.engine()
        self._store = SqlStore(lambda _: engine, {engine: Database(AsyncAccess(engine), barrier_table(MetaData()), asyncio.Lock())})
        self.commits = FlakyCommit(engine, takes_place=True)
        self.around_next: Callable[[], AbstractAsyncContextManager[None]] | None = None

    @asynccontextmanager
    async def unit(self, step: StepIdentity) -> AsyncIterator[BarrierUnit]:
        around, self.around_next = self.around_next, None
        async with around() if around is not None else nullcontext(), self._store.unit(step) as unit:
            yield unit

    @property
    def is_blocking(self) -> bool:
        return False

    async def run(self, call: ExecuteCall | CompensateCall, flow: Flow[AnswerT], *, wait_s: float, now_us: int) -> AnswerT:
        return await flow(self)

    async def check(self) -> None:
        await self._store.check()

    async def delete_before(self, created_before_us: int, limit: int) -> int:
        return await self._store.delete_before(created_before_us, limit)


async def test_commit_in_doubt_that_was_undone_since_did_take_place(sql_world: SqlWorld) -> None:
    store = HookedStore(sql_world)
    barrier = GuardedBarrier(store, clock=sql_world.clock)
    await accept(sql_world, barrier)

    @asynccontextmanager
    async def undone_first() -> AsyncIterator[None]:
        await sql_world.process().compensate(compensate_call(sql_world.clock), None, Undo(sql_world.write))
        yield

    async with barrier.completing(completion_call()) as found:
        assert not isinstance(found, StoredResult)
        await sql_world.write(found.sessions, "complete")
        store.around_next = undone_first
        store.commits.is_armed = True
        await found.conclude(reply("approved"))  # R26
    assert await sql_world.lines() == ["execute 1", "complete", "undo 1"]


async def test_commit_that_stays_in_doubt_is_to_be_asked_again(sqlite_world: SqlWorld) -> None:
    store = HookedStore(sqlite_world)
    barrier = GuardedBarrier(store, clock=sqlite_world.clock)
    await accept(sqlite_world, barrier)

    @asynccontextmanager
    async def while_locked() -> AsyncIterator[None]:
        async with sqlite_world.engine().begin() as connection:
            await connection.execute(text("INSERT INTO ledger (line) VALUES ('somebody else')"))
            yield

    async with barrier.completing(completion_call()) as found:
        assert not isinstance(found, StoredResult)
        store.around_next = while_locked
        store.commits.is_armed = True
        with pytest.raises(CompletionPostponedError, match="cannot be read now"):
            await found.conclude(reply("approved"))
    assert await complete(sqlite_world, barrier) == reply("approved"), "the repetition tells that it did take place"


class Base(DeclarativeBase):
    pass


class Approval(Base):
    __tablename__ = "approval"
    key: Mapped[str] = mapped_column(String(255), primary_key=True)


async def test_objects_that_cannot_be_written_are_the_callers_own_error_and_leave_the_step_waiting(sql_world: SqlWorld) -> None:
    barrier = sql_world.process()
    async with sql_world.engines[0].begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(insert(Approval).values(key="taken"))
    await accept(sql_world, barrier)
    async with barrier.completing(completion_call()) as found:
        assert not isinstance(found, StoredResult)
        await sql_world.write(found.sessions, "before")
        session_of(found.sessions).add(Approval(key="taken"))  # written when the result is stored
        with pytest.raises(IntegrityError):
            await found.conclude(reply("approved"))
    assert await sql_world.lines() == ["execute 1"]
    assert await complete(sql_world, barrier) is None


async def test_session_of_a_completion_must_not_be_committed_by_hand(sql_world: SqlWorld) -> None:
    barrier = sql_world.process()
    await accept(sql_world, barrier)
    async with barrier.completing(completion_call()) as found:
        assert not isinstance(found, StoredResult)
        await sql_world.write(found.sessions, "before")
        with pytest.raises(SessionMisusedError):
            await session_of(found.sessions).commit()
        with pytest.raises(SessionMisusedError):  # Also if the caller has swallowed that.
            await found.conclude(reply("approved"))
    assert await sql_world.lines() == ["execute 1"]
    assert await complete(sql_world, barrier) is None


async def test_database_that_is_locked_or_away_postpones(sql_world: SqlWorld, tmp_path: Path) -> None:
    barrier = sql_world.process()
    await accept(sql_world, barrier)
    async with sql_world.engine().begin() as connection:
        await sql_world.hold(connection)
        with pytest.raises(CompletionPostponedError, match=r"busy|holds its key"):
            await complete(sql_world, barrier, wait_s=0.3)
    assert await complete(sql_world, barrier) is None
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'nowhere' / 'participant.db'}")
    with pytest.raises(CompletionPostponedError, match="cannot be used"):
        await complete(sql_world, SqlBarrier(engine, clock=sql_world.clock))
    await engine.dispose()


async def test_missing_table_is_told(tmp_path: Path, sql_world: SqlWorld) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'empty.db'}")
    with pytest.raises(BarrierTableMissingError, match="create_table"):
        await complete(sql_world, SqlBarrier(engine, clock=sql_world.clock))
    await engine.dispose()


async def test_row_of_an_accepted_step_fits_the_table_as_it_is(sql_world: SqlWorld) -> None:
    """The column holds nine characters; no migration is needed for long steps."""
    barrier = sql_world.process()
    await accept(sql_world, barrier)
    async with sql_world.engines[0].connect() as connection:
        (state, size) = (await connection.execute(text("SELECT execution, length(reply) FROM saga_barrier"))).one()
    assert state == "ACCEPTED"
    assert len(state) <= 9
    assert size == 32 + acceptance().ByteSize()
