"""Every call that was handed over ends in exactly one reply, whatever happens; a dispatcher that is closed replies nothing."""

import asyncio
from dataclasses import replace

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from coordinator.core.inputs import (
    Accepted,
    Compensated,
    KeyExpired,
    Misconfigured,
    NotSent,
    Outcome,
    Rejected,
    RetryLater,
    Succeeded,
    Unknown,
)
from coordinator.core.values import Code, Direction, Instant, Payload
from coordinator.dispatcher import lane
from participant_sdk.rpc_errors import ErrorReason, error_details, status_with
from saga.v1 import participant_pb2
from tests.contract.dispatcher.stand import PAYLOAD_BYTES_MAX, STRING, WAIT_S, NewStand, Stand, call, hang
from tests.fakes import VirtualClock
from tests.participants import PlainParticipant, serving, succeeded
from tests.processes import free_port

Context = grpc.aio.ServicerContext[Message, Message]


async def answered_once(stand: Stand) -> None:
    """One more call that is answered says that nothing else was on its way before it."""
    last = call()
    stand.dispatcher.send([last])
    await stand.replies.to(last)
    ended = [(saga_id, reply.attempt) for saga_id, reply in stand.replies.all]
    assert len(ended) == len(set(ended))


async def test_success_is_replied_with_its_output_and_when_it_was_sent(stand: Stand) -> None:
    async with serving(PlainParticipant()) as target:
        await stand.register(target)
        one = call()
        before = stand.clock.now()
        stand.dispatcher.send([one])
        reply = await stand.replies.to(one)
        await answered_once(stand)
    assert reply.outcome == Succeeded(output=Payload(STRING, StringValue(value="step done").SerializeToString()))
    assert reply.sent_at is not None
    assert before <= reply.sent_at <= stand.clock.now()


async def test_compensation_is_replied(stand: Stand) -> None:
    async with serving(PlainParticipant()) as target:
        await stand.register(target)
        one = call(direction=Direction.COMPENSATE)
        stand.dispatcher.send([one])
        assert await stand.replies.outcome_of(one) == Compensated(handler_ran=True)


MEANINGS = [
    (grpc.StatusCode.CANCELLED, Unknown),
    (grpc.StatusCode.UNKNOWN, Unknown),
    (grpc.StatusCode.INVALID_ARGUMENT, Rejected),
    (grpc.StatusCode.DEADLINE_EXCEEDED, Unknown),
    (grpc.StatusCode.NOT_FOUND, Rejected),
    (grpc.StatusCode.ALREADY_EXISTS, Rejected),
    (grpc.StatusCode.PERMISSION_DENIED, Misconfigured),
    (grpc.StatusCode.UNAUTHENTICATED, Misconfigured),
    (grpc.StatusCode.RESOURCE_EXHAUSTED, Unknown),
    (grpc.StatusCode.FAILED_PRECONDITION, Rejected),
    (grpc.StatusCode.ABORTED, Unknown),
    (grpc.StatusCode.OUT_OF_RANGE, Rejected),
    (grpc.StatusCode.UNIMPLEMENTED, Misconfigured),
    (grpc.StatusCode.INTERNAL, Unknown),
    (grpc.StatusCode.UNAVAILABLE, Unknown),
    (grpc.StatusCode.DATA_LOSS, Unknown),
]


@pytest.mark.parametrize("direction", Direction)
async def test_every_status_is_one_reply_of_its_meaning(stand: Stand, direction: Direction) -> None:  # R6
    participant = PlainParticipant()
    codes = {code.value[0]: code for code, _ in MEANINGS}

    async def refuse(request: participant_pb2.ExecuteRequest, context: Context) -> participant_pb2.ExecuteResponse:
        await context.abort(codes[request.attempt], "said so")
        raise AssertionError

    async def refuse_undo(request: participant_pb2.CompensateRequest, context: Context) -> participant_pb2.CompensateResponse:
        await context.abort(codes[request.attempt], "said so")
        raise AssertionError

    participant.on_execute["shop.act"], participant.on_compensate["shop.act"] = refuse, refuse_undo
    sent = [call(direction=direction, number=code.value[0]) for code, _ in MEANINGS]
    async with serving(participant) as target:
        await stand.register(target)
        stand.dispatcher.send(sent)
        await stand.replies.wait_for(len(sent))
    for one, (code, meaning) in zip(sent, MEANINGS, strict=True):
        outcome = await stand.replies.outcome_of(one)
        assert type(outcome) is meaning, code
        assert not isinstance(outcome, Succeeded | Compensated | Accepted)
        assert outcome.failure.code == code.value[0]


@pytest.mark.parametrize(
    ("details", "expected"),
    [
        (error_details(ErrorReason.KEY_EXPIRED), KeyExpired),  # R21
        (error_details_pb2.RetryInfo(retry_delay=Duration(seconds=3)), RetryLater),
    ],
)
async def test_details_of_a_status_arrive(
    stand: Stand, details: error_details_pb2.ErrorInfo | error_details_pb2.RetryInfo, expected: type[Outcome]
) -> None:
    participant = PlainParticipant()

    async def refuse(request: participant_pb2.ExecuteRequest, context: Context) -> participant_pb2.ExecuteResponse:
        await context.abort_with_status(rpc_status.to_status(status_with(grpc.StatusCode.FAILED_PRECONDITION, "no", details)))
        raise AssertionError

    participant.on_execute["shop.act"] = refuse
    async with serving(participant) as target:
        await stand.register(target)
        one = call()
        stand.dispatcher.send([one])
        assert isinstance(await stand.replies.outcome_of(one), expected)


async def test_hanging_until_the_deadline_is_unknown(stand: Stand) -> None:  # R6
    participant = PlainParticipant()
    participant.on_execute["shop.act"] = hang
    async with serving(participant) as target:
        await stand.register(target)
        one = call(timeout_s=0.1)
        stand.dispatcher.send([one])
        outcome = await stand.replies.outcome_of(one)
        participant.on_execute.clear()
        await answered_once(stand)
    assert isinstance(outcome, Unknown)
    assert outcome.failure.code == Code.DEADLINE_EXCEEDED


async def test_server_that_dies_in_the_middle_is_unknown(stand: Stand) -> None:  # R6
    participant = PlainParticipant()
    participant.on_execute["shop.act"] = hang
    one = call()
    async with serving(participant) as target:
        await stand.register(target)
        stand.dispatcher.send([one])
        async with asyncio.timeout(WAIT_S):
            await participant.arrived["shop.act"].wait()
    assert isinstance(await stand.replies.outcome_of(one), Unknown)


async def test_refused_connection_is_unknown(stand: Stand) -> None:  # R6: gRPC does not say that nothing was sent
    await stand.register(f"127.0.0.1:{free_port()}")
    one = call()
    stand.dispatcher.send([one])
    outcome = await stand.replies.outcome_of(one)
    assert isinstance(outcome, Unknown)
    assert outcome.failure.code == Code.UNAVAILABLE


async def test_oversized_reply_is_unknown(stand: Stand) -> None:  # R6
    participant = PlainParticipant()

    async def shout(request: participant_pb2.ExecuteRequest, context: Context) -> participant_pb2.ExecuteResponse:
        return succeeded("x" * (PAYLOAD_BYTES_MAX if request.attempt == 1 else 5 * 1024 * 1024))

    participant.on_execute["shop.act"] = shout
    async with serving(participant) as target:
        await stand.register(target)
        large, huge = call(), call(number=2)
        stand.dispatcher.send([large, huge])
        assert isinstance(await stand.replies.outcome_of(large), Unknown)
        assert isinstance(await stand.replies.outcome_of(huge), Unknown)


async def test_output_that_the_plan_does_not_accept_is_unknown(stand: Stand) -> None:  # R6
    async with serving(PlainParticipant()) as target:
        await stand.register(target)
        one = call(check_output=lambda _: "expected something else")
        stand.dispatcher.send([one])
        outcome = await stand.replies.outcome_of(one)
    assert isinstance(outcome, Unknown)
    assert outcome.failure.message == "expected something else"


async def test_check_that_breaks_ends_its_attempt_as_unknown(stand: Stand, caplog: pytest.LogCaptureFixture) -> None:  # R6
    def broken(_: Payload) -> str:
        raise RuntimeError("no such page")

    async with serving(PlainParticipant()) as target:
        await stand.register(target)
        one = call(check_output=broken)
        stand.dispatcher.send([one])
        assert isinstance(await stand.replies.outcome_of(one), Unknown)
        await answered_once(stand)  # and its place is free again
    assert "unforeseen" in caplog.text


# ── Calls that are never sent (R7) ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_unknown_participant_is_waited_for_as_long_as_an_attempt_may_take(new_stand: NewStand) -> None:  # R7
    clock = VirtualClock()
    async with new_stand(clock=clock) as stand:
        one = call(timeout_s=10)
        stand.dispatcher.send([one])
        await clock.pass_time(9.9)
        assert stand.replies.all == []
        await clock.pass_time(0.2)
        reply = await stand.replies.to(one)
        assert isinstance(reply.outcome, NotSent)
        assert "has not registered" in reply.outcome.failure.message
        assert reply.sent_at is None


async def test_limit_of_the_step_ends_the_waiting(new_stand: NewStand) -> None:  # R13
    clock = VirtualClock()
    async with new_stand(clock=clock) as stand:
        one = call(timeout_s=10, send_before=Instant(clock.now() + 2_000_000))
        stand.dispatcher.send([one])
        await clock.pass_time(2)
        assert isinstance(await stand.replies.outcome_of(one), NotSent)


async def test_limit_that_passed_before_it_was_handed_over_is_never_sent(new_stand: NewStand) -> None:  # R13
    clock = VirtualClock()
    participant = PlainParticipant()
    async with serving(participant) as target, new_stand(clock=clock) as stand:
        await stand.register(target)
        one = call(send_before=clock.now())
        stand.dispatcher.send([one])
        await clock.pass_time(0)
        assert isinstance(await stand.replies.outcome_of(one), NotSent)
        assert participant.executions == []


@pytest.mark.parametrize("new_stand", ["one by one"], indirect=True)  # a stream has limits of its own
async def test_limit_that_passes_on_the_way_out_of_the_lane_is_never_sent(new_stand: NewStand) -> None:  # R7, R13
    clock = VirtualClock()
    participant = PlainParticipant()
    async with serving(participant) as target, new_stand(clock=clock, concurrency=1) as stand:
        await stand.register(target)
        late, next_one = call(send_before=Instant(clock.now() + 1_000)), call()
        stand.dispatcher.send([late, next_one])
        clock.fire_at(Instant(clock.now() + 1_000))  # the loop was busy: it had no turn in between
        assert isinstance(await stand.replies.outcome_of(late), NotSent)
        assert isinstance(await stand.replies.outcome_of(next_one), Succeeded)  # its place is free again
        assert [request.saga_id for request in participant.executions] == [next_one.saga_id]


async def test_withdrawn_while_waiting_is_not_sent(stand: Stand) -> None:
    participant = PlainParticipant()
    one, other = call(), call()
    stand.dispatcher.send([one, other])
    stand.dispatcher.withdraw(one.saga_id, [one.attempt])
    assert isinstance(await stand.replies.outcome_of(one), NotSent)
    async with serving(participant) as target:
        await stand.register(target)
        assert isinstance(await stand.replies.outcome_of(other), Succeeded)
        await answered_once(stand)
    assert one.saga_id not in {request.saga_id for request in participant.executions}


async def test_withdrawn_while_under_way_goes_on(stand: Stand) -> None:
    participant = PlainParticipant()
    let_go = asyncio.Event()

    async def wait(request: participant_pb2.ExecuteRequest, context: Context) -> participant_pb2.ExecuteResponse:
        await let_go.wait()
        return succeeded("done")

    participant.on_execute["shop.act"] = wait
    async with serving(participant) as target:
        await stand.register(target)
        one = call()
        stand.dispatcher.send([one])
        async with asyncio.timeout(WAIT_S):
            await participant.arrived["shop.act"].wait()
        stand.dispatcher.withdraw(one.saga_id, [one.attempt])
        let_go.set()
        assert isinstance(await stand.replies.outcome_of(one), Succeeded)
        await answered_once(stand)


async def test_call_outlives_the_registration_of_its_target(new_stand: NewStand) -> None:
    """A replica whose registration has ended is called no more, but what is under way there is not cut."""
    old, new = PlainParticipant(), PlainParticipant()
    let_go = asyncio.Event()

    async def wait(request: participant_pb2.ExecuteRequest, context: Context) -> participant_pb2.ExecuteResponse:
        await let_go.wait()
        return succeeded("done")

    old.on_execute["shop.act"] = wait
    clock = VirtualClock()
    async with serving(old) as old_target, serving(new) as new_target, new_stand(clock=clock) as stand:
        await stand.register(old_target, ttl_s=1)
        one, other = call(), call()
        stand.dispatcher.send([one])
        async with asyncio.timeout(WAIT_S):
            await old.arrived["shop.act"].wait()
        await clock.pass_time(2)
        await stand.register(new_target)
        stand.dispatcher.send([other])
        assert isinstance(await stand.replies.outcome_of(other), Succeeded)
        let_go.set()
        assert isinstance(await stand.replies.outcome_of(one), Succeeded)
    assert (len(old.executions), len(new.executions)) == (1, 1)


async def test_withdrawing_what_is_not_there_does_nothing(stand: Stand) -> None:
    one = call()
    stand.dispatcher.withdraw(one.saga_id, [one.attempt])
    async with serving(PlainParticipant()) as target:
        await stand.register(target)
        await answered_once(stand)


async def test_full_queue_ends_not_sent_at_once(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:  # R7
    monkeypatch.setattr(lane, "WAITING_MAX", 1_000)  # A hundredth of it, in a hundredth of the time.
    first = call()
    calls = [replace(first, attempt=first.attempt._replace(number=number)) for number in range(1_000 + 2)]
    stand.dispatcher.send(calls)
    await stand.replies.wait_for(2)
    assert [reply.attempt for _, reply in stand.replies.all] == [one.attempt for one in calls[1_000:]]
    assert all(isinstance(reply.outcome, NotSent) for _, reply in stand.replies.all)


async def test_action_that_no_replica_serves_is_not_sent(stand: Stand) -> None:  # R7
    async with serving(PlainParticipant()) as target:
        await stand.register(target, "shop", "other")
        one = call("shop.act")
        stand.dispatcher.send([one])
        outcome = await stand.replies.outcome_of(one)
    assert isinstance(outcome, NotSent)
    assert "serves 'act'" in outcome.failure.message
