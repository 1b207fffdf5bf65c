"""A participant as a service has it that installed nothing but the base: defined, served, called, undone. Run from the wheel."""

# ruff: noqa: T201 - what it prints is what the test reads
import asyncio

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import StringValue

from participant_sdk import NoBarrier, Participant, ParticipantServer, StepContext, action, new_saga_id
from saga.v1 import participant_pb2 as wire
from saga.v1 import participant_pb2_grpc


class Greeting(Participant, name="greeting"):
    @action
    async def greet(self, request: StringValue, step: StepContext) -> StringValue:
        return StringValue(value=f"good morning, {request.value}")

    @greet.compensation
    async def forget(self, request: StringValue, greeted: StringValue, step: StepContext) -> None:
        print(f"{request.value} is forgotten")


async def main() -> None:
    async with (
        ParticipantServer(Greeting(barrier=NoBarrier()), address="127.0.0.1:0", coordinator=None) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        await call(participant_pb2_grpc.ParticipantServiceStub(channel))


async def call(stub: "participant_pb2_grpc.ParticipantServiceAsyncStub") -> None:
    found = (await stub.Describe(wire.DescribeRequest())).description
    print(found.name, found.actions[0].name, wire.Guarantee.Name(found.guarantee))
    world = Any()
    world.Pack(StringValue(value="world"))
    saga = new_saga_id()
    key = f"{saga}/greet/execute/1"
    due = Timestamp()
    due.GetCurrentTime()
    execute = wire.ExecuteRequest(saga_id=saga, step_id="greet", action="greeting.greet", attempt=1, first_attempt_at=due, input=world)
    execute.key = key
    done = await stub.Execute(execute)
    said = StringValue()
    done.succeeded.output.Unpack(said)
    print(said.value)
    undo = wire.CompensateRequest(saga_id=saga, step_id="greet", action="greeting.greet", attempt=1, first_attempt_at=due, input=world)
    undo.key, undo.execute_key = f"{saga}/greet/compensate/1", key
    undo.succeeded.CopyFrom(done.succeeded)
    assert (await stub.Compensate(undo)).compensated.handler_ran


if __name__ == "__main__":
    asyncio.run(main())
