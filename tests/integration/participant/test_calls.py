"""Calls over a real socket: what handlers are told, how their endings travel, and what bad requests get."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

import grpc
import pytest
from google.protobuf.any_pb2 import Any as PackedAny
from google.protobuf.wrappers_pb2 import BoolValue, BytesValue, Int64Value, StringValue
from google.rpc import error_details_pb2

from participant_sdk import Participant, ParticipantServer
from participant_sdk.rpc_errors import error_reason, find_detail, from_rpc_error
from participant_sdk.testing import MemoryBarrier
from saga.v1 import participant_pb2, participant_pb2_grpc
from tests.integration.participant.till import Scale, Till, compensate, execute

Stub: TypeAlias = "participant_pb2_grpc.ParticipantServiceAsyncStub"


@asynccontextmanager
async def serving(participant: Participant) -> AsyncIterator[Stub]:
    async with ParticipantServer(participant, coordinator=None) as server, grpc.aio.insecure_channel(server.address) as channel:
        yield participant_pb2_grpc.ParticipantServiceStub(channel)


async def refusal(call: Awaitable[object]) -> tuple[grpc.StatusCode, str, str]:
    """Code, reason and message of a call that must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    status = from_rpc_error(caught.value)
    return caught.value.code(), error_reason(status), status.message


async def test_handler_is_told_about_its_step(stub: Stub, till: Till) -> None:
    request = execute("fine", time_left_s=60)
    answer = await stub.Execute(request, timeout=5)
    assert Int64Value.FromString(answer.succeeded.output.value).value == 7
    (step,) = till.steps
    assert (step.saga_id, step.step_id, step.key, step.execute_key) == (request.saga_id, "take", request.key, request.key)
    assert (step.definition.name, step.definition.version, step.attempt) == ("buy", 3, 2)
    assert step.first_attempt_at == request.first_attempt_at.ToDatetime(tzinfo=step.first_attempt_at.tzinfo)
    assert 0 < step.time_left().total_seconds() < 5.1  # the shorter one: the gRPC deadline
    assert not step.cancelled


async def test_compensation_is_told_both_keys(stub: Stub, till: Till) -> None:
    request = compensate("fine", output=Int64Value(value=9))
    assert (await stub.Compensate(request)).compensated.handler_ran
    assert (till.steps[0].key, till.steps[0].execute_key) == (request.key, request.execute_key)
    assert till.undone == [Int64Value(value=9)]


async def test_without_a_barrier_a_missing_output_is_none_or_empty_as_the_annotation_says(stub: Stub, till: Till) -> None:  # R23
    assert (await stub.Compensate(compensate("fine"))).compensated.handler_ran
    assert (await stub.Compensate(compensate("fine", action_name="till.charge"))).compensated.handler_ran
    assert till.undone == [Int64Value(), None]


async def test_rejection_without_a_barrier_is_not_sealed(stub: Stub) -> None:
    answer = await stub.Execute(execute("reject"))
    assert not answer.rejected.sealed
    assert answer.rejected.status.code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
    assert answer.rejected.status.message == "nothing in it"
    found = find_detail(answer.rejected.status, error_details_pb2.ErrorInfo)
    assert found is not None
    assert (found.reason, dict(found.metadata)) == ("TILL_EMPTY", {"reason": "spent"})


async def test_retry_later_travels_in_both_directions(stub: Stub) -> None:
    assert (await stub.Execute(execute("later"))).retry_later.delay.seconds == 3
    assert (await stub.Compensate(compensate("later"))).retry_later.status.message == "counting"


@pytest.mark.parametrize(("how", "message"), [("bug", "KeyError: 'boom'"), ("unprintable", "UnprintableError: its text cannot be shown")])
async def test_exception_leaves_the_outcome_unknown(stub: Stub, how: str, message: str) -> None:
    calls: list[Awaitable[object]] = [stub.Execute(execute(how)), stub.Compensate(compensate(how))]
    for call in calls:
        code, _, told = await refusal(call)
        assert code is grpc.StatusCode.UNKNOWN
        assert message in told


async def test_refusal_to_compensate_is_a_failed_attempt(stub: Stub) -> None:  # R8
    code, _, told = await refusal(stub.Compensate(compensate("reject")))
    assert code is grpc.StatusCode.UNKNOWN
    assert "TILL_EMPTY" in told


async def test_reply_of_the_wrong_type_or_too_large_is_refused_before_anything_is_committed() -> None:  # R6
    barrier = MemoryBarrier()
    async with serving(Till(barrier=barrier)) as stub:
        assert await refusal(stub.Execute(execute("wrong type"))) == (
            grpc.StatusCode.INTERNAL,
            "REPLY_TYPE_MISMATCH",
            "till.take must return google.protobuf.Int64Value, found StringValue",
        )
        code, reason, _ = await refusal(stub.Execute(execute(str(1 << 20), action_name="till.look")))
        assert (code, reason) == (grpc.StatusCode.INTERNAL, "REPLY_TOO_LARGE")
        assert barrier.store.database.rows == {}
        fitting = (1 << 20) - 16
        answer = await stub.Execute(execute(str(fitting), action_name="till.look"))
        assert len(BytesValue.FromString(answer.succeeded.output.value).value) == fitting


async def test_handler_that_hangs_is_ended_at_its_deadline(stub: Stub, till: Till) -> None:
    code, _, told = await refusal(stub.Execute(execute("wait", time_left_s=0.05)))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "till.take did not end" in told
    assert till.cancelled.is_set()


async def test_cancelled_call_cancels_the_handler(stub: Stub, till: Till) -> None:
    call = stub.Execute(execute("wait"))
    await till.entered.wait()
    call.cancel()
    await till.cancelled.wait()


async def test_plain_handler_runs_in_a_thread_and_has_no_session(stub: Stub) -> None:
    answer = await stub.Execute(execute("fine", action_name="scale.weigh"))
    assert StringValue.FromString(answer.succeeded.output.value).value.startswith("thread")
    code, _, told = await refusal(stub.Execute(execute("session", action_name="scale.weigh")))
    assert code is grpc.StatusCode.UNKNOWN
    assert "write `async def` to use it" in told
    _, _, told = await refusal(stub.Execute(execute("stop", action_name="scale.weigh")))
    assert "StopIteration" in told


async def test_plain_handler_sees_that_it_was_cancelled(stub: Stub, scale: Scale) -> None:
    call = stub.Execute(execute("wait", action_name="scale.weigh"))
    await asyncio.to_thread(scale.entered.wait, 10)
    call.cancel()
    assert await asyncio.to_thread(scale.saw_cancellation.wait, 10)


async def test_step_session_without_a_database_says_why() -> None:
    class Ledger(Till, name="ledger"):
        async def _end(self, how: str) -> Int64Value:
            return Int64Value(value=len(str(self.steps[-1].session)))

    async with serving(Ledger()) as stub:
        code, _, told = await refusal(stub.Execute(execute("fine", action_name="ledger.take")))
    assert code is grpc.StatusCode.UNKNOWN
    assert "SqlBarrier(engine)" in told


Spoil = Callable[[participant_pb2.ExecuteRequest], object]


def _other_type(request: participant_pb2.ExecuteRequest) -> None:
    request.input.Pack(BoolValue(value=True))


def _garbage(request: participant_pb2.ExecuteRequest) -> None:
    request.input.CopyFrom(PackedAny(type_url=request.input.type_url, value=b"\xff\xff\xff"))


def _too_large(request: participant_pb2.ExecuteRequest) -> None:
    request.input.Pack(StringValue(value="x" * (1 << 20)))


@pytest.mark.parametrize(
    ("spoil", "code", "reason"),
    [
        (lambda request: setattr(request, "action", "till.steal"), grpc.StatusCode.UNIMPLEMENTED, "UNKNOWN_ACTION"),
        (lambda request: setattr(request, "action", ""), grpc.StatusCode.UNIMPLEMENTED, "UNKNOWN_ACTION"),
        (lambda request: setattr(request, "saga_id", "order-42"), grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_INVALID"),
        (lambda request: setattr(request, "step_id", ""), grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_INVALID"),
        (lambda request: setattr(request, "step_id", "x" * 65), grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_INVALID"),
        (lambda request: setattr(request, "key", ""), grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_INVALID"),
        (lambda request: setattr(request, "key", "a\0b"), grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_INVALID"),
        (lambda request: setattr(request, "key", "k" * 256), grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_INVALID"),
        (lambda request: setattr(request, "attempt", 0), grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_INVALID"),
        (lambda request: request.ClearField("first_attempt_at"), grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_INVALID"),
        (lambda request: request.ClearField("input"), grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_INVALID"),
        (_other_type, grpc.StatusCode.INVALID_ARGUMENT, "INPUT_TYPE_MISMATCH"),
        (_garbage, grpc.StatusCode.INVALID_ARGUMENT, "INPUT_INVALID"),
        (_too_large, grpc.StatusCode.INVALID_ARGUMENT, "PAYLOAD_TOO_LARGE"),
    ],
)
async def test_bad_request_is_refused_before_any_handler(stub: Stub, till: Till, spoil: Spoil, code: grpc.StatusCode, reason: str) -> None:
    request = execute("fine")
    spoil(request)
    assert (await refusal(stub.Execute(request)))[:2] == (code, reason)
    assert till.steps == []


async def test_everything_wrong_with_a_request_is_told_at_once(stub: Stub) -> None:
    request = participant_pb2.CompensateRequest(action="till.take")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Compensate(request)
    found = find_detail(from_rpc_error(caught.value), error_details_pb2.BadRequest)
    assert found is not None
    fields = {violation.field for violation in found.field_violations}
    assert fields == {"saga_id", "step_id", "key", "execute_key", "attempt", "first_attempt_at", "input"}


async def test_compensating_what_cannot_be_compensated_is_a_configuration_fault(stub: Stub) -> None:
    code, reason, told = await refusal(stub.Compensate(compensate("fine", action_name="till.look")))
    assert (code, reason) == (grpc.StatusCode.UNIMPLEMENTED, "UNKNOWN_ACTION")
    assert "@look.compensation" in told
