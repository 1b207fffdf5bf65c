"""What only a real database can show: misuse of its session, its errors, and COMMITs in doubt."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
import pytest
from google.rpc import status_pb2
from sqlalchemy import Engine, MetaData, String, event, func, select, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from participant_sdk import BarrierTableMissingError, ParticipantSetupError, SessionMisusedError, SqlBarrier, StepIdentity, barrier_table
from participant_sdk.barrier.outcomes import ExecuteOutcome, HandlerSucceeded
from participant_sdk.effects import EXTERNAL
from participant_sdk.step_context import SessionSource
from saga.v1 import participant_pb2
from tests.barrier_databases import BARRIER
from tests.contract.barrier.calls import Handler, ManualClock, Undo, compensate_call, execute_call, failed, reply
from tests.contract.barrier.conftest import SqlWorld, session_of

COMPENSATED = participant_pb2.CompensateResponse(compensated=participant_pb2.Compensated(handler_ran=True))

Misuse = Callable[[AsyncSession], Awaitable[object]]


async def _commit(session: AsyncSession) -> None:
    await session.commit()


async def _roll_back(session: AsyncSession) -> None:
    await session.rollback()


async def _close(session: AsyncSession) -> None:
    await session.close()


async def _begin(session: AsyncSession) -> None:
    async with session.begin():
        pass


async def _commit_connection(session: AsyncSession) -> None:
    await (await session.connection()).commit()


async def _roll_back_connection(session: AsyncSession) -> None:
    await (await session.connection()).rollback()


@pytest.mark.parametrize("misuse", [_commit, _roll_back, _close, _begin, _commit_connection, _roll_back_connection])
@pytest.mark.parametrize("is_swallowed", [True, False])
async def test_handler_that_ends_the_database_transaction_is_refused_and_rolled_back(
    sql_world: SqlWorld, misuse: Misuse, is_swallowed: bool
) -> None:
    async def handler(sessions: SessionSource) -> ExecuteOutcome:
        await sql_world.write(sessions, "before")
        try:
            await misuse(session_of(sessions))
        except SessionMisusedError as error:
            if not is_swallowed:
                return failed(error)
        return HandlerSucceeded(response=reply("done"))

    barrier = sql_world.process()
    answer = await barrier.execute(execute_call(sql_world.clock), handler)
    assert isinstance(answer, status_pb2.Status)
    assert answer.code in {grpc.StatusCode.INTERNAL.value[0], grpc.StatusCode.UNKNOWN.value[0]}
    assert await sql_world.lines() == []
    assert await barrier.execute(execute_call(sql_world.clock), Handler(sql_world.write)) == reply("reply 1")


async def test_handler_that_swallows_a_database_error_keeps_the_rest_where_the_database_does(sql_world: SqlWorld) -> None:
    async def handler(sessions: SessionSource) -> ExecuteOutcome:
        await sql_world.write(sessions, "before")
        with pytest.raises(DBAPIError):
            await session_of(sessions).execute(text("INSERT INTO ledger (id) VALUES (1), (1)"))
        return HandlerSucceeded(response=reply("done"))

    # A statement that failed left the database transaction as it was; PostgreSQL takes nothing more of it.
    answer = await sql_world.process().execute(execute_call(sql_world.clock), handler)
    if sql_world.place.name == "postgresql":
        assert isinstance(answer, status_pb2.Status)
        assert await sql_world.lines() == []
    else:
        assert answer == reply("done")
        assert await sql_world.lines() == ["before"]


def is_duplicate(message: str) -> bool:
    """As each of the databases says it."""
    return "UNIQUE" in message.upper() or "DUPLICATE" in message.upper()


class Base(DeclarativeBase):
    pass


class Stock(Base):
    __tablename__ = "stock"
    sku: Mapped[str] = mapped_column(String(20), primary_key=True)


async def test_objects_that_cannot_be_written_are_a_failure_that_leaves_nothing(sql_world: SqlWorld) -> None:
    barrier = sql_world.process()
    async with sql_world.engines[0].begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)

    async def handler(sessions: SessionSource) -> ExecuteOutcome:
        await sql_world.write(sessions, "before")
        await session_of(sessions).execute(text("INSERT INTO stock (sku) VALUES ('widget')"))
        session_of(sessions).add(Stock(sku="widget"))  # written when the handler has returned
        return HandlerSucceeded(response=reply("done"))

    answer = await barrier.execute(execute_call(sql_world.clock), handler)
    assert isinstance(answer, status_pb2.Status)
    assert answer.code == grpc.StatusCode.UNKNOWN.value[0]
    assert is_duplicate(answer.message)
    assert await sql_world.lines() == []
    assert await barrier.execute(execute_call(sql_world.clock), Handler(sql_world.write)) == reply("reply 1")


async def test_savepoints_belong_to_the_handler(sql_world: SqlWorld) -> None:
    async def handler(sessions: SessionSource) -> ExecuteOutcome:
        async with session_of(sessions).begin_nested():
            await sql_world.write(sessions, "kept")
        return HandlerSucceeded(response=reply("done"))

    assert await sql_world.process().execute(execute_call(sql_world.clock), handler) == reply("done")
    assert await sql_world.lines() == ["kept"]


async def test_missing_table_is_told_at_the_check_and_at_every_call(tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'empty.db'}")
    clock = ManualClock()
    barrier = SqlBarrier(engine, clock=clock)
    with pytest.raises(BarrierTableMissingError, match="create_table"):
        await barrier.check()
    answer = await barrier.execute(execute_call(clock), _never_run)
    assert isinstance(answer, status_pb2.Status)
    assert answer.code == grpc.StatusCode.INTERNAL.value[0]
    assert "create_table" in answer.message
    await barrier.create_table()
    await barrier.create_table()
    await barrier.check()
    await engine.dispose()


async def _never_run(_: SessionSource) -> ExecuteOutcome:
    raise AssertionError("no handler may run")


async def test_engine_that_commits_by_itself_is_refused(sql_world: SqlWorld) -> None:
    barrier = SqlBarrier(sql_world.engine(isolation_level="AUTOCOMMIT"))
    with pytest.raises(ParticipantSetupError, match="AUTOCOMMIT"):
        await barrier.check()
    async with sql_world.engines[0].connect() as connection:
        assert await connection.scalar(select(func.count()).select_from(BARRIER)) == 0, "the probe is gone"


async def test_unreachable_database_is_unavailable(tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'nowhere' / 'participant.db'}")
    clock = ManualClock()
    answer = await SqlBarrier(engine, clock=clock).execute(execute_call(clock), _never_run)
    assert isinstance(answer, status_pb2.Status)
    assert answer.code == grpc.StatusCode.UNAVAILABLE.value[0]
    await engine.dispose()


async def test_database_locked_by_somebody_else_is_asked_again_later(sqlite_world: SqlWorld) -> None:
    barrier = sqlite_world.process()
    await barrier.check()
    async with sqlite_world.engine().begin() as connection:
        await connection.execute(text("INSERT INTO ledger (line) VALUES ('somebody else')"))
        answer = await barrier.execute(execute_call(sqlite_world.clock), _never_run)
    assert isinstance(answer, participant_pb2.ExecuteResponse)
    assert answer.HasField("retry_later")
    assert await barrier.execute(execute_call(sqlite_world.clock), Handler(sqlite_world.write)) == reply("reply 1")


async def test_busy_database_under_the_handler_repeats_the_whole_database_transaction(sql_world: SqlWorld) -> None:
    handler = Handler(sql_world.write, outcomes=[failed(_wrapped(busy()))])  # R22
    assert await sql_world.process().execute(execute_call(sql_world.clock), handler) == reply("reply 2")
    assert await sql_world.lines() == ["execute 2"]


def busy() -> OperationalError:
    locked = sqlite3.OperationalError("database is locked")
    locked.sqlite_errorcode = sqlite3.SQLITE_BUSY
    return OperationalError("INSERT", {}, locked)


def _wrapped(cause: Exception) -> Exception:
    wrapper = ValueError("what the service made of it")
    wrapper.__cause__ = cause
    return wrapper


class FlakyCommit:
    """Lets one COMMIT fail, before or after it took place."""

    def __init__(self, engine: AsyncEngine | Engine, *, takes_place: bool) -> None:
        self._takes_place = takes_place
        self._dialect = engine.dialect
        self._commit = self._dialect.do_commit
        self.is_armed = False
        self.is_lasting = False
        self._dialect.do_commit = self  # type: ignore[method-assign, assignment]

    def __call__(self, connection: object) -> None:
        if not self.is_armed:
            self._commit(connection)  # type: ignore[arg-type]
            return
        self.is_armed = self.is_lasting
        if self._takes_place:
            self._commit(connection)  # type: ignore[arg-type]
        raise self._dialect.loaded_dbapi.OperationalError("disk I/O error")


@pytest.mark.parametrize("takes_place", [True, False])
async def test_commit_in_doubt_is_settled_by_reading_the_row_again(sql_world: SqlWorld, takes_place: bool) -> None:
    engine = sql_world.engine()
    barrier = SqlBarrier(engine, clock=sql_world.clock)
    await barrier.check()
    flaky = FlakyCommit(engine, takes_place=takes_place)
    handler = Handler(sql_world.write)
    flaky.is_armed = True
    expected = 1 if takes_place else 2
    assert await barrier.execute(execute_call(sql_world.clock), handler) == reply(f"reply {expected}")
    assert await sql_world.lines() == [f"execute {expected}"]
    flaky.is_armed = True
    undo = Undo(sql_world.write)
    assert await barrier.compensate(compensate_call(sql_world.clock), None, undo) == COMPENSATED
    assert await sql_world.lines() == [f"execute {expected}", f"undo {expected}"]


@pytest.mark.parametrize("takes_place", [True, False])
async def test_commit_in_doubt_before_an_external_handler_runs_it_once(sql_world: SqlWorld, takes_place: bool) -> None:
    engine = sql_world.engine()
    barrier = SqlBarrier(engine, clock=sql_world.clock)
    await barrier.check()
    flaky = FlakyCommit(engine, takes_place=takes_place)

    async def nothing(sessions: SessionSource, line: str) -> None:
        """The effect is outside."""

    handler = Handler(nothing)
    flaky.is_armed = True
    assert await barrier.execute(execute_call(sql_world.clock, effect=EXTERNAL), handler) == reply("reply 1")
    assert handler.runs == 1


async def test_commit_that_stays_in_doubt_is_an_unknown_outcome_and_never_nothing_happened(sql_world: SqlWorld) -> None:
    engine = sql_world.engine()
    barrier = SqlBarrier(engine, clock=sql_world.clock)
    await barrier.check()
    flaky = FlakyCommit(engine, takes_place=False)
    flaky.is_armed = flaky.is_lasting = True
    answer = await barrier.execute(execute_call(sql_world.clock), Handler(sql_world.write))
    assert isinstance(answer, status_pb2.Status)
    assert answer.code == grpc.StatusCode.UNKNOWN.value[0]
    flaky.is_armed = flaky.is_lasting = False
    assert await barrier.execute(execute_call(sql_world.clock), Handler(sql_world.write)) == reply("reply 1")
    assert await sql_world.lines() == ["execute 1"]


async def test_call_cancelled_during_its_commit_is_committed_whole(sql_world: SqlWorld) -> None:
    engine = sql_world.engine()
    barrier = SqlBarrier(engine, clock=sql_world.clock)
    await barrier.check()
    call = asyncio.create_task(barrier.execute(execute_call(sql_world.clock), Handler(sql_world.write)))
    event.listen(engine.sync_engine, "commit", lambda _: call.cancel(), once=True)
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await sql_world.lines() == ["execute 1"]
    assert await barrier.execute(execute_call(sql_world.clock), _never_run) == reply("reply 1")


async def test_external_call_cancelled_while_it_takes_over_leaves_the_doubt_of_the_attempt_before(sql_world: SqlWorld) -> None:
    async def nothing(sessions: SessionSource, line: str) -> None:
        """The effect is outside."""

    engine = sql_world.engine()
    barrier = SqlBarrier(engine, clock=sql_world.clock)
    await barrier.execute(execute_call(sql_world.clock, effect=EXTERNAL), Handler(nothing, outcomes=[failed(RuntimeError("bug"))]))
    call = asyncio.create_task(barrier.execute(execute_call(sql_world.clock, effect=EXTERNAL), _never_run))
    event.listen(engine.sync_engine, "commit", lambda _: call.cancel(), once=True)
    with pytest.raises(asyncio.CancelledError):
        await call
    undo = Undo(nothing)
    assert await barrier.compensate(compensate_call(sql_world.clock, effect=EXTERNAL), None, undo) == COMPENSATED  # R19
    assert undo.seen == [None]


async def test_step_goes_to_the_database_that_is_picked_for_it(sql_world: SqlWorld, tmp_path: Path) -> None:
    other = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'other.db'}")
    sql_world.engines.append(other)
    engines = {"here": sql_world.engine(), "there": other}
    seen: list[StepIdentity] = []

    def pick(step: StepIdentity) -> AsyncEngine:
        seen.append(step)
        return engines["here" if step.step_id == "reserve" else "there"]

    barrier = SqlBarrier(pick, engines=[*engines.values()], clock=sql_world.clock)
    await barrier.create_table()
    assert await barrier.execute(execute_call(sql_world.clock), Handler(sql_world.write)) == reply("reply 1")
    assert await sql_world.lines() == ["execute 1"]
    assert {step.step_id for step in seen} == {"reserve"}
    sql_world.clock.advance(40 * 86_400)
    assert await barrier.delete_expired(100) == 1


async def test_engine_that_was_not_listed_is_refused(sql_world: SqlWorld) -> None:
    barrier = SqlBarrier(lambda _: sql_world.engines[0], engines=[sql_world.engine()], clock=sql_world.clock)
    answer = await barrier.execute(execute_call(sql_world.clock), _never_run)
    assert isinstance(answer, status_pb2.Status)
    assert "engines=" in answer.message


def test_choice_without_a_list_of_engines_is_refused() -> None:
    with pytest.raises(ValueError, match="engines="):
        SqlBarrier(lambda _: create_async_engine("sqlite+aiosqlite://"))


async def test_table_can_be_part_of_a_teams_own_metadata(tmp_path: Path) -> None:
    metadata = MetaData()
    assert barrier_table(metadata, "my_barrier").name == "my_barrier"
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'own.db'}")
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    await SqlBarrier(engine, table_name="my_barrier").check()
    await engine.dispose()
