"""A handler that hangs while others wait for the commit that it shares is ended at its own deadline, and nobody waits longer for it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from participant_sdk import Participant, ParticipantServer, SqlBarrier, StepContext, action
from participant_sdk.ids import new_saga_id
from saga.v1 import participant_pb2, participant_pb2_grpc


class Notes(Participant, name="notes"):
    begun: int = 0

    @action
    async def take(self, request: StringValue, step: StepContext) -> StringValue:
        self.begun += 1
        await step.session.execute(text("SELECT 1"))
        if request.value == "hang":
            await asyncio.get_running_loop().create_future()
        return request


@pytest.fixture
async def notes(tmp_path: Path) -> AsyncIterator[Notes]:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'notes.db'}")
    barrier = SqlBarrier(engine, calls_per_commit=64)
    await barrier.create_table()
    yield Notes(barrier=barrier)
    await engine.dispose()


def call(number: int, value: str, time_left_s: float) -> participant_pb2.ExchangeCall:
    saga_id = new_saga_id()
    request = participant_pb2.ExecuteRequest(
        saga_id=saga_id, step_id="take", action="notes.take", key=f"{saga_id}/take/execute/1", attempt=1
    )
    request.first_attempt_at.GetCurrentTime()
    request.time_left.FromMilliseconds(round(1000 * time_left_s))
    request.input.Pack(StringValue(value=value))
    return participant_pb2.ExchangeCall(id=number, execute=request)


async def test_handler_that_hangs_is_ended_and_the_others_are_committed(notes: Notes) -> None:
    async with ParticipantServer(notes, coordinator=None) as server, grpc.aio.insecure_channel(server.address) as channel:
        stream = participant_pb2_grpc.ParticipantServiceStub(channel).Exchange()
        # The first begins by itself; the others gather meanwhile, and are a group.
        calls = [call(1, "first", 60), call(2, "hang", 1), call(3, "third", 60), call(4, "fourth", 60)]
        await stream.write(participant_pb2.ExchangeRequest(calls=calls))
        answers: dict[int, participant_pb2.ExchangeReply] = {}
        async with asyncio.timeout(20):
            while len(answers) < len(calls):
                frame = await stream.read()
                assert isinstance(frame, participant_pb2.ExchangeResponse)
                answers.update({reply.id: reply for reply in frame.replies})
        await stream.done_writing()
    assert {number for number, reply in answers.items() if reply.executed.HasField("succeeded")} == {1, 3, 4}
    assert answers[2].status.code == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
