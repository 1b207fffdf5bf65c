"""Participants that the kit calls in frames: seen call by call, and as unlucky as those that are called one by one."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue

from participant_sdk import Participant, Saga, StepContext, action
from participant_sdk.exchange import ExchangeSession
from participant_sdk.testing import MemoryBarrier, Mishap, SagaKit, Servicer, stub
from participant_sdk.testing.ledger import CallOutcome
from saga.v1 import participant_pb2, participant_pb2_grpc
from shop.v1.shop_pb2 import CourierBooked, PaymentCharged, PlaceOrder
from tests.unit.testing_kit.orders import ORDER, Inventory, place_order

book = stub("shipping.book", request=PlaceOrder, response=CourierBooked)


class InFramesOnly(participant_pb2_grpc.ParticipantServiceServicer):
    """Payments without a barrier and without any unary call."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    async def Describe(self, request: participant_pb2.DescribeRequest, context: Any) -> participant_pb2.DescribeResponse:  # noqa: N802
        takes, returns = PlaceOrder.DESCRIPTOR.full_name, PaymentCharged.DESCRIPTOR.full_name
        charge = participant_pb2.ActionDescription(name="charge", compensatable=True, input_type=takes, output_type=returns)
        description = participant_pb2.ParticipantDescription(name="payments", actions=[charge], exchange=True)
        PlaceOrder.DESCRIPTOR.file.CopyToProto(description.descriptors.file.add())
        return participant_pb2.DescribeResponse(description=description)

    async def Execute(self, request: participant_pb2.ExecuteRequest, context: Any) -> participant_pb2.ExecuteResponse:  # noqa: N802
        await context.abort(grpc.StatusCode.INTERNAL, "expected frames")
        raise AssertionError("it has ended")

    async def Compensate(self, request: participant_pb2.CompensateRequest, context: Any) -> participant_pb2.CompensateResponse:  # noqa: N802
        await context.abort(grpc.StatusCode.INTERNAL, "expected frames")
        raise AssertionError("it has ended")

    async def Exchange(  # noqa: N802
        self, request_iterator: AsyncIterator[participant_pb2.ExchangeRequest], context: Any
    ) -> AsyncIterator[participant_pb2.ExchangeResponse]:
        async for frame in ExchangeSession(self._answer).run(request_iterator):
            yield frame

    async def _answer(self, call: participant_pb2.ExchangeCall) -> participant_pb2.ExchangeReply:
        reply = participant_pb2.ExchangeReply(id=call.id)
        if call.HasField("execute"):
            self.keys.append(call.execute.key)
            reply.executed.succeeded.output.Pack(PaymentCharged(payment_id="in a frame"))
        else:
            reply.compensated.compensated.handler_ran = True
        return reply


def inventory() -> Inventory:
    return Inventory(barrier=MemoryBarrier())


async def test_calls_in_frames_are_seen_each_by_itself(saga_kit: SagaKit) -> None:
    saga_kit.serve(inventory(), Servicer("payments", InFramesOnly()), book.rejects("NO_ADDRESS"))
    run = await saga_kit.run(place_order, ORDER)
    run.then_compensated(because="NO_ADDRESS").then_called("reserve", "charge", "book", "undo charge", "undo reserve")
    seen = {call.name: (call.outcome, call.ended_s is not None) for call in saga_kit.calls}
    assert seen == {
        "reserve": (CallOutcome.SUCCEEDED, True),
        "charge": (CallOutcome.SUCCEEDED, True),
        "book": (CallOutcome.REJECTED, True),
        "undo charge": (CallOutcome.UNDONE, True),
        "undo reserve": (CallOutcome.UNDONE, True),
    }


async def test_step_that_is_to_be_refused_does_not_reach_a_participant_without_the_sdk(saga_kit: SagaKit) -> None:
    payments = InFramesOnly()
    saga_kit.serve(inventory(), Servicer("payments", payments), book).refuse("charge")
    run = await saga_kit.run(place_order, ORDER)
    run.then_compensated(because="REFUSED", at="charge")
    assert payments.keys == []


@pytest.mark.parametrize("mishap", [each for each in Mishap if each is not Mishap.PARTICIPANT_DIES])  # it has no barrier that could die
async def test_saga_survives_every_mishap_of_a_call_in_a_frame(saga_kit: SagaKit, mishap: Mishap) -> None:
    payments = InFramesOnly()
    saga_kit.serve(inventory(), Servicer("payments", payments), book).mishap("charge", mishap)
    run = await saga_kit.run(place_order, ORDER)
    run.then_completed()
    assert saga_kit.faults_left == ()
    assert len(set(payments.keys)) == 1


class Careful(Participant, name="careful"):
    @action
    async def act(self, request: StringValue, step: StepContext) -> StringValue:
        return StringValue(value=step.step_id)

    @act.compensation
    async def undo(self, request: StringValue, output: StringValue, step: StepContext) -> None:
        """Nothing is left to do."""


async def test_mishap_of_one_call_meets_those_on_the_same_stream(saga_kit: SagaKit) -> None:
    both = Saga("both", input=StringValue)
    left = both.step(Careful.act, id="left", after=())
    both.step(Careful.act, id="right", after=())
    both.returns(left)
    saga_kit.serve(Careful(barrier=MemoryBarrier())).mishap("left", Mishap.REPLY_LOST)
    run = await saga_kit.run(both, StringValue())
    run.then_completed().then_attempts("left", 2).then_attempts("right", 2)
    assert [call.handler_ran for call in run.calls] == [True, True, False, False]
