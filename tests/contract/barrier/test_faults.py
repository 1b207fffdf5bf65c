"""What goes wrong around a guarded call on real databases: connections that end in each phase, handlers that end the database transaction
by themselves or hide that the database did, clocks that disagree, and texts that cannot be shown (R5, R18, R21, R22, R26).
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import grpc
import pytest
from google.protobuf.any_pb2 import Any as PackedAny
from google.rpc import status_pb2
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from participant_sdk import CompletionPostponedError, SessionMisusedError, SqlBarrier
from participant_sdk.barrier.completions import StoredResult
from participant_sdk.barrier.outcomes import CompensateOutcome, ExecuteOutcome, HandlerSucceeded, HandlerUndid
from participant_sdk.barrier.store import CommitInDoubtError, StoreUnavailableError
from participant_sdk.effects import EXTERNAL
from participant_sdk.retention import forget_once
from participant_sdk.rpc_errors import ErrorReason, error_reason
from participant_sdk.step_context import SessionSource
from tests.barrier_databases import Cutter, Place
from tests.contract.barrier.calls import (
    Handler,
    Undo,
    acceptance,
    accepted,
    compensate_call,
    completion_call,
    execute_call,
    failed,
    reply,
)
from tests.contract.barrier.conftest import SqlWorld, World, session_of
from tests.contract.barrier.test_sql_barrier import COMPENSATED, busy

DAY_S = 86_400
RETENTION_S = 30 * DAY_S


# ── Handlers that end the database transaction ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("statement", ["COMMIT", "  commit work", "ROLLBACK", "rollback  ", "END"])
@pytest.mark.parametrize("is_swallowed", [True, False])
async def test_statement_that_ends_the_database_transaction_is_refused_before_it_runs(
    sql_world: SqlWorld, statement: str, is_swallowed: bool
) -> None:
    barrier = sql_world.process()
    await _expect_refused(sql_world, barrier, statement, is_swallowed=is_swallowed)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE other (id INTEGER)",
        "TRUNCATE TABLE ledger",
        "START TRANSACTION",
        "BEGIN",
        "SET autocommit = 1",
        "ALTER TABLE ledger COMMENT ''",
    ],
)
async def test_statement_that_commits_by_itself_on_mariadb_is_refused_before_it_runs(mariadb_world: SqlWorld, statement: str) -> None:
    await _expect_refused(mariadb_world, mariadb_world.process(), statement, is_swallowed=True)


async def _expect_refused(world: SqlWorld, barrier: SqlBarrier, statement: str, *, is_swallowed: bool) -> None:
    async def handler(sessions: SessionSource) -> ExecuteOutcome:
        await world.write(sessions, "before")
        try:
            await session_of(sessions).execute(text(statement))
        except SessionMisusedError as error:
            if not is_swallowed:
                return failed(error)
        await world.write(sessions, "after")
        return HandlerSucceeded(response=reply("done"))

    answer = await barrier.execute(execute_call(world.clock), handler)
    if is_swallowed:  # It did not run, so nothing is amiss.
        assert answer == reply("done")
        assert await world.lines() == ["before", "after"]
    else:
        assert isinstance(answer, status_pb2.Status)
        assert await world.lines() == []
        assert await barrier.execute(execute_call(world.clock), Handler(world.write)) == reply("reply 1")


async def test_savepoints_in_plain_sql_and_temporary_tables_are_let_be(sql_world: SqlWorld) -> None:
    async def handler(sessions: SessionSource) -> ExecuteOutcome:
        session = session_of(sessions)
        await session.execute(text("SAVEPOINT mine"))
        await sql_world.write(sessions, "undone")
        await session.execute(text("ROLLBACK TO SAVEPOINT mine"))
        await session.execute(text("CREATE TEMPORARY TABLE scratch (id INTEGER)"))
        await session.execute(text("DROP TEMPORARY TABLE scratch" if sql_world.place.name == "mysql" else "DROP TABLE scratch"))
        await sql_world.write(sessions, "kept")
        return HandlerSucceeded(response=reply("done"))

    assert await sql_world.process().execute(execute_call(sql_world.clock), handler) == reply("done")
    assert await sql_world.lines() == ["kept"]


# ── Handlers that hide that the database has rolled back ───────────────────────────────────────────────────────────────────────────


class Rival:
    """Somebody else, with whom a handler deadlocks: each wants what the other has, and the handler, which wrote less, loses."""

    def __init__(self, world: SqlWorld) -> None:
        self._engine = world.engine()
        self._holds = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def meet(self, world: SqlWorld, sessions: SessionSource) -> None:
        """Raises the deadlock, once."""
        session = session_of(sessions)
        if self._task is not None:
            return
        await session.execute(text("UPDATE ledger SET line = 'mine' WHERE id = 1"))
        self._task = asyncio.create_task(self._cross())
        await self._holds.wait()
        await session.execute(text("UPDATE ledger SET line = 'mine' WHERE id = 2"))

    async def ended(self) -> None:
        assert self._task is not None
        await self._task

    async def _cross(self) -> None:
        async with self._engine.begin() as connection:
            await connection.execute(text("UPDATE ledger SET line = 'theirs' WHERE id BETWEEN 2 AND 30"))
            self._holds.set()
            await connection.execute(text("UPDATE ledger SET line = 'theirs' WHERE id = 1"))


@pytest.mark.parametrize("is_undo", [False, True])
async def test_swallowed_deadlock_repeats_the_whole_database_transaction(mariadb_world: SqlWorld, is_undo: bool) -> None:
    world, rival, runs = mariadb_world, Rival(mariadb_world), 0
    async with world.engines[0].begin() as connection:
        for number in range(1, 40):
            await connection.execute(text("INSERT INTO ledger (id, line) VALUES (:id, 'old')"), {"id": number})

    async def work(sessions: SessionSource) -> None:
        nonlocal runs
        runs += 1
        await world.write(sessions, f"before {runs}")
        with suppress(DBAPIError):
            await rival.meet(world, sessions)
        await world.write(sessions, f"after {runs}")  # Without the barrier's care this alone would be committed.

    async def execute(sessions: SessionSource) -> ExecuteOutcome:
        await work(sessions)
        return HandlerSucceeded(response=reply("done"))

    async def undo(sessions: SessionSource, output: PackedAny | None) -> CompensateOutcome:
        await work(sessions)
        return HandlerUndid()

    barrier = world.process()
    if is_undo:  # The row is there already, and only the lock on it is lost.
        await barrier.execute(execute_call(world.clock), Handler(_nothing))
        assert await barrier.compensate(compensate_call(world.clock), None, undo) == COMPENSATED
    else:
        assert await barrier.execute(execute_call(world.clock), execute) == reply("done")
    await rival.ended()
    assert [line for line in await world.lines() if line not in {"theirs", "old"}] == ["before 2", "after 2"]


async def test_swallowed_lock_wait_that_rolled_back_one_statement_keeps_the_rest(mariadb_world: SqlWorld) -> None:
    async with mariadb_world.engines[0].begin() as connection:
        await connection.execute(text("INSERT INTO ledger (id, line) VALUES (1, 'held')"))

    async def handler(sessions: SessionSource) -> ExecuteOutcome:
        await mariadb_world.write(sessions, "before")
        with pytest.raises(DBAPIError, match="1205"):
            await session_of(sessions).execute(text("SELECT * FROM ledger WHERE id = 1 FOR UPDATE NOWAIT"))
        return HandlerSucceeded(response=reply("done"))

    async with mariadb_world.engines[0].begin() as connection:
        await connection.execute(text("SELECT * FROM ledger WHERE id = 1 FOR UPDATE"))
        assert await mariadb_world.process().execute(execute_call(mariadb_world.clock), handler) == reply("done")
    assert await mariadb_world.lines() == ["held", "before"]


async def _nothing(sessions: SessionSource, line: str) -> None:
    """Writes nothing."""


# ── Connections that end in each phase ─────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Line:
    """The connection of the call under test, which the server can cut."""

    world: SqlWorld
    cutter: Cutter
    barrier: SqlBarrier
    number: int = 0

    async def note(self, sessions: SessionSource) -> None:
        self.number = await session_of(sessions).run_sync(self.cutter.number_of)

    async def cut(self) -> None:
        await asyncio.to_thread(self.cutter.cut, self.number)


@pytest.fixture(params=["postgres", "mariadb"])
async def line(request: pytest.FixtureRequest, place_of: Callable[[str], Place]) -> AsyncIterator[Line]:
    world = SqlWorld(place_of(request.param))
    await world.open()
    barrier = world.process()
    await barrier.check()
    cutter = Cutter(world.place)
    yield Line(world, cutter, barrier)
    cutter.close()
    await world.close()


@pytest.mark.parametrize("is_swallowed", [True, False])
async def test_connection_lost_under_the_handler_leaves_nothing(line: Line, is_swallowed: bool) -> None:
    async def handler(sessions: SessionSource) -> ExecuteOutcome:
        await line.world.write(sessions, "before")
        await line.note(sessions)
        await line.cut()
        try:
            await line.world.write(sessions, "after")
        except DBAPIError as error:
            if not is_swallowed:
                return failed(error)
        return HandlerSucceeded(response=reply("done"))

    answer = await line.barrier.execute(execute_call(line.world.clock), handler)
    assert isinstance(answer, status_pb2.Status)
    assert await line.world.lines() == []
    assert await line.barrier.execute(execute_call(line.world.clock), Handler(line.world.write)) == reply("reply 1")


async def test_connection_lost_before_the_reply_is_stored_leaves_nothing(line: Line) -> None:
    async def handler(sessions: SessionSource) -> ExecuteOutcome:
        await line.world.write(sessions, "before")
        await line.note(sessions)
        await line.cut()
        return HandlerSucceeded(response=reply("done"))

    answer = await line.barrier.execute(execute_call(line.world.clock), handler)
    assert isinstance(answer, status_pb2.Status)
    assert answer.code == grpc.StatusCode.UNAVAILABLE.value[0]
    assert await line.world.lines() == []
    assert await line.barrier.execute(execute_call(line.world.clock), Handler(line.world.write)) == reply("reply 1")


async def test_connection_lost_in_the_commit_is_settled_on_another_one(line: Line) -> None:
    async def write(sessions: SessionSource, said: str) -> None:
        await line.world.write(sessions, said)
        await line.note(sessions)

    _cut_at_commit(line)
    assert await line.barrier.execute(execute_call(line.world.clock), Handler(write)) == reply("reply 2")  # R26
    assert await line.world.lines() == ["execute 2"]
    _cut_at_commit(line)
    assert await line.barrier.compensate(compensate_call(line.world.clock), None, Undo(write)) == COMPENSATED
    assert await line.world.lines() == ["execute 2", "undo 2"]


async def test_connection_lost_in_the_commit_of_a_completion_is_to_be_asked_again(line: Line) -> None:
    await line.barrier.execute(execute_call(line.world.clock), Handler(line.world.write, outcomes=[accepted()]))
    async with line.barrier.completing(completion_call()) as found:
        assert not isinstance(found, StoredResult)
        await line.world.write(found.sessions, "complete")
        await line.note(found.sessions)
        _cut_at_commit(line)
        with pytest.raises(CompletionPostponedError, match="nothing was stored"):
            await found.conclude(reply("approved"))
    assert await line.world.lines() == ["execute 1"]
    assert await line.barrier.execute(execute_call(line.world.clock), Handler(_nothing)) == acceptance()


async def test_connection_lost_while_an_external_effect_is_stored_does_not_lose_it(line: Line) -> None:
    async def charge(sessions: SessionSource, said: str) -> None:
        await line.world.write(sessions, said)
        await line.note(sessions)
        await line.cut()

    call = execute_call(line.world.clock, effect=EXTERNAL)
    answer = await line.barrier.execute(call, Handler(charge))
    assert isinstance(answer, status_pb2.Status), "what it did is not known"
    undo = Undo(_nothing)
    assert await line.barrier.compensate(compensate_call(line.world.clock, effect=EXTERNAL), None, undo) == COMPENSATED  # R19
    assert undo.seen == [None]


async def test_connection_lost_while_keys_are_forgotten_is_tried_again(line: Line) -> None:
    await line.barrier.execute(execute_call(line.world.clock), Handler(line.world.write))
    line.world.clock.advance(40 * DAY_S)
    engine = line.world.engines[-1].sync_engine

    def cut(connection: object) -> None:
        with Session(bind=connection) as session:  # type: ignore[arg-type]
            line.number = line.cutter.number_of(session)
        line.cutter.cut(line.number)

    event.listen(engine, "commit", cut, once=True)
    with pytest.raises((CommitInDoubtError, StoreUnavailableError)):
        await forget_once(line.barrier)
    assert await forget_once(line.barrier) == 1
    assert await forget_once(line.barrier) == 0


def _cut_at_commit(line: Line) -> None:
    """The next COMMIT finds no server at the other end."""
    engine = line.world.engines[-1].sync_engine
    event.listen(engine, "commit", lambda _: line.cutter.cut(line.number), once=True)


# ── Clocks that disagree ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("ahead_s", [23 * 3_600, 0, -23 * 3_600])
async def test_key_that_may_have_been_forgotten_is_never_run_whoever_s_clock_is_ahead(world: World, ahead_s: int) -> None:
    """`ahead_s`: how far the coordinator's clock, which says when the first attempt was due, is ahead of the participant's."""
    barrier, handler = world.process(), Handler(world.write)
    call = execute_call(world.clock, age_s=-ahead_s, time_left_s=10)
    assert await barrier.execute(call, handler) == reply("reply 1")
    await _forget(world, RETENTION_S + DAY_S + 1)
    late = replace(call, deadline_us=world.clock() + 10_000_000)
    answer = await barrier.execute(late, handler)  # R21
    assert isinstance(answer, status_pb2.Status)
    assert error_reason(answer) == ErrorReason.KEY_EXPIRED
    assert handler.runs == 1


async def test_first_attempt_in_the_future_is_run(world: World) -> None:
    call = execute_call(world.clock, age_s=-3_600)
    assert await world.process().execute(call, Handler(world.write)) == reply("reply 1")


async def test_clock_that_was_set_back_neither_forgets_nor_unlocks(world: World) -> None:
    barrier, handler = world.process(), Handler(world.write)
    assert await barrier.execute(execute_call(world.clock), handler) == reply("reply 1")
    world.clock.advance(-10 * DAY_S)
    assert await barrier.delete_expired(10) == 0
    assert await barrier.execute(execute_call(world.clock), handler) == reply("reply 1")
    assert handler.runs == 1


async def _forget(world: World, after_s: float) -> None:
    world.clock.advance(after_s)
    assert await world.process().delete_expired(10) == 1


# ── Texts that cannot be shown ─────────────────────────────────────────────────────────────────────────────────────────────────────


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text for you")


def unprintable_because_busy() -> UnprintableError:
    error = UnprintableError()
    error.__cause__ = busy()
    return error


async def test_busy_database_behind_an_exception_without_a_text_is_repeated(sql_world: SqlWorld) -> None:
    handler = Handler(sql_world.write, outcomes=[failed(unprintable_because_busy())])  # R22
    assert await sql_world.process().execute(execute_call(sql_world.clock), handler) == reply("reply 2")


async def test_text_that_utf8_does_not_know_is_refused_by_the_database_and_told(sql_world: SqlWorld) -> None:
    async def handler(sessions: SessionSource) -> ExecuteOutcome:
        try:
            await sql_world.write(sessions, "\ud800")
        except Exception as error:
            return failed(error)
        return HandlerSucceeded(response=reply("done"))

    answer = await sql_world.process().execute(execute_call(sql_world.clock), handler)
    assert isinstance(answer, status_pb2.Status)
    assert await sql_world.process().execute(execute_call(sql_world.clock), Handler(sql_world.write)) == reply("reply 1")
