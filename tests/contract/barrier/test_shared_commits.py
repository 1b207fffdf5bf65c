"""Calls that share a database transaction: what it saves, and what becomes of the others when one of them spoils it (R18, R22, R26)."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from google.rpc import status_pb2
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.ext.asyncio import create_async_engine

from participant_sdk import SqlBarrier
from participant_sdk.barrier.barrier import RunExecute
from participant_sdk.barrier.outcomes import ExecuteAnswer, ExecuteOutcome, HandlerSucceeded
from participant_sdk.step_context import SessionSource
from saga.v1 import participant_pb2
from tests.barrier_databases import Place
from tests.contract.barrier.calls import Handler, Undo, compensate_call, execute_call, failed, reply
from tests.contract.barrier.conftest import PLACES, BlockingWorld, SqlWorld
from tests.contract.barrier.test_sql_barrier import COMPENSATED, FlakyCommit, Stock, busy, is_duplicate

CALLS = 5


@dataclass
class Stand:
    """A barrier whose calls share, and its engine beneath."""

    world: SqlWorld
    barrier: SqlBarrier
    engine: Engine

    async def execute(self, number: int, handler: RunExecute) -> ExecuteAnswer:
        return await self.barrier.execute(replace(execute_call(self.world.clock), key=f"key {number}"), handler)

    async def execute_all(self, handlers: Sequence[RunExecute]) -> list[ExecuteAnswer]:
        """All at the same moment, each under a key of its own."""
        return await asyncio.gather(*(self.execute(number, handler) for number, handler in enumerate(handlers)))

    def handlers(self, count: int = CALLS) -> list[Handler]:
        return [Handler(self.world.write) for _ in range(count)]


@pytest.fixture(
    params=[(place, kind) for place in PLACES for kind in (SqlWorld, BlockingWorld)], ids=lambda of: f"{of[0]}-{of[1].__name__}"
)
async def stand(request: pytest.FixtureRequest, place_of: Callable[[str], Place]) -> AsyncIterator[Stand]:
    place, kind = request.param
    world: SqlWorld = kind(place_of(place))
    await world.open()
    engine = world.blocking_engine() if isinstance(world, BlockingWorld) else world.engine()
    barrier = SqlBarrier(engine, clock=world.clock, calls_per_commit=64)
    await barrier.check()
    yield Stand(world, barrier, engine if isinstance(engine, Engine) else engine.sync_engine)
    await world.close()


async def test_calls_of_one_moment_are_committed_together(stand: Stand) -> None:
    commits: list[object] = []
    event.listen(stand.engine, "commit", commits.append)
    handlers = stand.handlers()
    assert await stand.execute_all(handlers) == [reply("reply 1")] * CALLS
    assert len(commits) == 1
    assert await stand.world.lines() == ["execute 1"] * CALLS
    assert await stand.execute_all(handlers) == [reply("reply 1")] * CALLS
    assert [handler.runs for handler in handlers] == [1] * CALLS


async def test_calls_that_come_meanwhile_gather_for_the_next_commit(stand: Stand) -> None:
    commits: list[object] = []
    event.listen(stand.engine, "commit", commits.append)
    first, *others = stand.handlers()
    first.gate = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(stand.execute(0, first))
        await first.entered.wait()
        later = [tasks.create_task(stand.execute(number, handler)) for number, handler in enumerate(others, 1)]
        await asyncio.sleep(0)
        first.gate.set()
    assert [task.result() for task in later] == [reply("reply 1")] * len(others)
    assert len(commits) == 2


@pytest.mark.parametrize("takes_place", [True, False])
async def test_commit_in_doubt_is_settled_call_by_call(stand: Stand, takes_place: bool) -> None:
    flaky = FlakyCommit(stand.engine, takes_place=takes_place)
    flaky.is_armed = True  # R26
    expected = 1 if takes_place else 2
    assert await stand.execute_all(stand.handlers()) == [reply(f"reply {expected}")] * CALLS
    assert await stand.world.lines() == [f"execute {expected}"] * CALLS


async def test_handler_that_spoils_the_database_transaction_does_not_spoil_the_others(stand: Stand) -> None:
    async def spoil(sessions: SessionSource) -> ExecuteOutcome:
        session = sessions.session
        session.add_all([Stock(sku="widget"), Stock(sku="widget")])  # refused when it is flushed, and SQLAlchemy rolls back all of it
        return HandlerSucceeded(response=reply("done"))

    async with stand.world.engines[0].begin() as connection:
        await connection.run_sync(Stock.metadata.drop_all)
        await connection.run_sync(Stock.metadata.create_all)
    before, after = stand.handlers(2)
    answers = await stand.execute_all([before, spoil, after])
    assert [answers[0], answers[2]] == [reply("reply 2"), reply("reply 1")]  # the last one had not begun yet
    assert isinstance(answers[1], status_pb2.Status)
    assert is_duplicate(answers[1].message)
    assert sorted(await stand.world.lines()) == ["execute 1", "execute 2"]


async def test_busy_database_under_one_handler_repeats_each_call_by_itself(stand: Stand) -> None:
    handlers = stand.handlers(3)
    handlers[1].outcomes = [failed(busy())]  # R22
    assert await stand.execute_all(handlers) == [reply("reply 2"), reply("reply 2"), reply("reply 1")]
    assert sorted(await stand.world.lines()) == ["execute 1", "execute 2", "execute 2"]


class Stop(BaseException):
    """What ends a process, or its event loop."""


async def test_nobody_is_answered_when_a_group_is_cut_short_before_its_commit(stand: Stand) -> None:
    async def stop(sessions: SessionSource) -> ExecuteOutcome:
        raise Stop

    (before,) = stand.handlers(1)
    handlers: list[RunExecute] = [before, stop]
    calls = [asyncio.create_task(stand.execute(number, handler)) for number, handler in enumerate(handlers)]
    await asyncio.wait(calls)
    assert [call.cancelled() for call in calls] == [True, True]
    assert before.runs == 1
    assert await stand.world.lines() == []
    assert await stand.execute(0, before) == reply("reply 2")


async def test_call_and_its_compensation_come_one_after_the_other(stand: Stand) -> None:
    handler, undo = Handler(stand.world.write), Undo(stand.world.write)
    call = execute_call(stand.world.clock)
    answers = await asyncio.gather(
        stand.barrier.execute(call, handler), stand.barrier.compensate(compensate_call(stand.world.clock), None, undo)
    )
    assert answers == [reply("reply 1"), COMPENSATED]
    assert undo.seen == ["reply 1"]


async def test_call_whose_time_is_over_is_not_begun(stand: Stand) -> None:
    handler, other = stand.handlers(2)
    late = replace(execute_call(stand.world.clock, time_left_s=0), key="late")
    answer: ExecuteAnswer = (await asyncio.gather(stand.barrier.execute(late, handler), stand.execute(1, other)))[0]
    assert isinstance(answer, participant_pb2.ExecuteResponse)
    assert answer.HasField("retry_later")
    assert (handler.runs, other.runs) == (0, 1)


async def test_call_that_does_not_get_its_turn_in_time_is_asked_to_come_again(stand: Stand) -> None:
    first, second = stand.handlers(2)
    first.gate = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(stand.execute(0, first))
        await first.entered.wait()
        hurried = replace(execute_call(stand.world.clock, time_left_s=0.02), key="hurried")
        answer = await stand.barrier.execute(hurried, second)
        first.gate.set()
    assert isinstance(answer, participant_pb2.ExecuteResponse)
    assert answer.HasField("retry_later")
    assert second.runs == 0


def test_number_of_calls_is_bounded(tmp_path: Path) -> None:
    for number in (0, 65):
        with pytest.raises(ValueError, match="from 1 to 64"):
            SqlBarrier(create_engine(f"sqlite:///{tmp_path / 'x.db'}"), calls_per_commit=number)


def test_engines_are_of_one_kind(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'x.db'}"
    kinds: list[Any] = [create_engine(url), create_async_engine(url.replace("sqlite", "sqlite+aiosqlite"))]
    with pytest.raises(ValueError, match="one kind"):
        SqlBarrier(lambda _: create_engine(url), engines=kinds)
