"""Events and starts of a handler: committed with its step by the barrier, or not at all (R18)."""

import asyncio
from dataclasses import replace

import pytest

from participant_sdk import SqlBarrier
from participant_sdk.barrier.outcomes import ExecuteOutcome, HandlerSucceeded
from participant_sdk.barrier.verdict import StepIdentity
from participant_sdk.clock import wall_clock_us
from participant_sdk.step_context import SessionSource
from tests.contract.barrier.calls import ManualClock, execute_call, rejected, reply
from tests.outboxes import TOPIC, OutboxWorld, Recorder, StartRecorder, placed


@pytest.fixture(params=[1, 8], ids=["alone", "shared"])
async def barrier(world: OutboxWorld, request: pytest.FixtureRequest) -> SqlBarrier:
    barrier = SqlBarrier(world.engine, clock=ManualClock(wall_clock_us()), calls_per_commit=request.param)
    await barrier.create_table()
    return barrier


async def test_handler_publishes_with_its_effect_once(world: OutboxWorld, barrier: SqlBarrier) -> None:
    async def run(sessions: SessionSource, name: str) -> ExecuteOutcome:
        world.outbox.publish(sessions.session, placed(name), topic=TOPIC)
        world.outbox.start_saga(sessions.session, "follow-up", placed(name), labels={"of": name})
        return rejected() if name.startswith("no") else HandlerSucceeded(response=reply(name))

    async def call(name: str) -> None:
        call = execute_call(ManualClock(wall_clock_us()))
        step = StepIdentity(saga_id="saga", step_id=name)
        await barrier.execute(replace(call, key=name, step=step), lambda sessions: run(sessions, name))

    names = ["one", "no-1", "two", "no-2", "three"]
    await asyncio.gather(*map(call, names))
    await asyncio.gather(*map(call, names))
    recorder, starter = Recorder(), StartRecorder()
    async with world.relay(recorder, starter):
        await world.until_statistics(lambda statistics: statistics.published == 6)
    assert sorted(recorder.names) == ["one", "three", "two"]
    assert sorted(request.labels["of"] for request in starter.requests) == ["one", "three", "two"]
    assert (await world.statistics()).pending == 0
