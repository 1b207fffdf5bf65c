"""What participants receive, who receives it, and how many at once."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack

import grpc
import pytest
from google.protobuf.message import Message

from coordinator.core.inputs import NotSent, Succeeded, Unknown
from coordinator.core.trace import attempt_traceparent
from coordinator.core.values import Direction, Instant, Payload, TraceContext
from coordinator.dispatcher.grpc_dispatcher import LIMIT_REACHED
from saga.v1 import participant_pb2
from tests.builders import TRACE, seconds
from tests.contract.dispatcher.stand import CONCURRENCY, PARTICIPANTS, STRING, WAIT_S, NewStand, Stand, call
from tests.fakes import VirtualClock, one_turn
from tests.participants import PlainParticipant, serving, succeeded

Context = grpc.aio.ServicerContext[Message, Message]


class Gate:
    """An action that keeps its callers until it is opened, and counts them."""

    def __init__(self) -> None:
        self.inside = 0
        self.most = 0
        self.came = 0
        self._opened = asyncio.Event()
        self._changed = asyncio.Condition()

    async def __call__(self, request: participant_pb2.ExecuteRequest, context: Context) -> participant_pb2.ExecuteResponse:
        async with self._changed:
            self.came += 1
            self.inside += 1
            self.most = max(self.most, self.inside)
            self._changed.notify_all()
        await self._opened.wait()
        self.inside -= 1
        return succeeded("done")

    def open(self) -> None:
        self._opened.set()

    async def wait_for(self, count: int) -> None:
        """Returns when that many are inside."""
        async with asyncio.timeout(WAIT_S), self._changed:
            await self._changed.wait_for(lambda: self.inside >= count)


# ── On the wire ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@PARTICIPANTS
async def test_execute_says_who_asks_for_what(stand: Stand) -> None:  # R1, R21
    participant = PlainParticipant()
    async with serving(participant) as target:
        await stand.register(target)
        one = call(number=7)
        stand.dispatcher.send([one])
        await stand.replies.to(one)
    (request,) = participant.executions
    assert (request.saga_id, request.step_id, request.action, request.attempt) == (one.saga_id, "step", "shop.act", 7)
    assert request.key == f"{one.saga_id}/step/execute/1"
    assert (request.definition.name, request.definition.version) == ("place-order", 3)
    assert request.first_attempt_at.ToMicroseconds() == 1_700_000_000_250_000
    assert (request.input.type_url, request.input.value) == (f"type.googleapis.com/{STRING}", b"\x0a\x01x")


@PARTICIPANTS
@pytest.mark.parametrize("output", [Payload(STRING, b"\x0a\x01y"), None])
async def test_compensate_says_what_is_known_of_the_execution(stand: Stand, output: Payload | None) -> None:  # R1, R20
    participant = PlainParticipant()
    async with serving(participant) as target:
        await stand.register(target)
        one = call(direction=Direction.COMPENSATE, output=output)
        stand.dispatcher.send([one])
        await stand.replies.to(one)
    (request,) = participant.compensations
    assert (request.key, request.execute_key) == (f"{one.saga_id}/step/compensate/1", f"{one.saga_id}/step/execute/1")
    assert request.input.value == b"\x0a\x01x"
    assert request.first_attempt_at.ToMicroseconds() == 1_700_000_000_250_000
    assert request.WhichOneof("execution") == ("unknown" if output is None else "succeeded")
    assert request.succeeded.output.value == (b"" if output is None else output.value)


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize(("timeout_s", "limit_s", "most_s"), [(5.0, None, 5.0), (5.0, 2.0, 2.0), (2.0, 5.0, 2.0)])
async def test_time_left_travels_as_the_deadline(
    stand: Stand, direction: Direction, timeout_s: float, limit_s: float | None, most_s: float
) -> None:  # R13
    participant = PlainParticipant()
    seen: list[float | None] = []

    async def look(request: participant_pb2.ExecuteRequest, context: Context) -> participant_pb2.ExecuteResponse:
        seen.append(context.time_remaining())
        return succeeded("done")

    async def look_at_undo(request: participant_pb2.CompensateRequest, context: Context) -> participant_pb2.CompensateResponse:
        seen.append(context.time_remaining())
        return participant_pb2.CompensateResponse(compensated=participant_pb2.Compensated())

    participant.on_execute["shop.act"], participant.on_compensate["shop.act"] = look, look_at_undo
    async with serving(participant) as target:
        await stand.register(target)
        limit = None if limit_s is None else Instant(stand.clock.now() + seconds(limit_s))
        one = call(timeout_s=timeout_s, send_before=limit, direction=direction)
        stand.dispatcher.send([one])
        await stand.replies.to(one)
    (remaining,) = seen
    request = participant.executions[0] if direction is Direction.EXECUTE else participant.compensations[0]
    assert remaining is not None
    assert most_s - 1.5 < remaining <= most_s * 1.05  # gRPC rounds deadlines up on the wire
    if stand.kind != "service":  # to which only the deadline of the call says it
        assert most_s - 1.5 < request.time_left.ToMicroseconds() / 1e6 <= most_s


async def test_limit_of_the_step_ends_a_call_that_is_under_way(stand: Stand) -> None:  # R13
    participant, gate = PlainParticipant(), Gate()
    participant.on_execute["shop.act"] = gate
    async with serving(participant) as target:
        await stand.register(target)
        one = call(timeout_s=WAIT_S, send_before=Instant(stand.clock.now() + seconds(0.3)))
        stand.dispatcher.send([one])
        assert isinstance(await stand.replies.outcome_of(one), Unknown)
        gate.open()


@pytest.mark.parametrize("trace", [TRACE, TraceContext(traceparent=TRACE.traceparent, tracestate="vendor=1,other=2")])
async def test_trace_context_of_the_attempt_travels(stand: Stand, trace: TraceContext) -> None:
    participant = PlainParticipant()
    seen: list[dict[str, object]] = []

    async def look(request: participant_pb2.ExecuteRequest, context: Context) -> participant_pb2.ExecuteResponse:
        seen.append(dict(context.invocation_metadata() or ()))
        return succeeded("done")

    participant.on_execute["shop.act"] = look
    async with serving(participant) as target:
        await stand.register(target)
        one = call(trace=trace)
        stand.dispatcher.send([one])
        await stand.replies.to(one)
    (metadata,) = seen
    assert metadata["traceparent"] == attempt_traceparent(trace, one.saga_id, one.attempt)
    assert metadata.get("tracestate", "") == trace.tracestate


async def test_saga_without_a_trace_sends_none(stand: Stand) -> None:
    participant = PlainParticipant()
    seen: list[dict[str, object]] = []

    async def look(request: participant_pb2.ExecuteRequest, context: Context) -> participant_pb2.ExecuteResponse:
        seen.append(dict(context.invocation_metadata() or ()))
        return succeeded("done")

    participant.on_execute["shop.act"] = look
    async with serving(participant) as target:
        await stand.register(target)
        one = call(trace=TraceContext(traceparent=""))
        stand.dispatcher.send([one])
        await stand.replies.to(one)
    assert "traceparent" not in seen[0]


# ── How many at once ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@PARTICIPANTS
@pytest.mark.parametrize(("wished", "expected"), [(0, CONCURRENCY), (2, 2), (1_000, CONCURRENCY)])
async def test_concurrency_is_bounded_and_the_participants_wish_is_honoured(stand: Stand, wished: int, expected: int) -> None:
    participant, gate = PlainParticipant(), Gate()
    participant.on_execute["shop.act"] = gate
    async with serving(participant) as target:
        await stand.register(target, concurrency=wished)
        calls = [call() for _ in range(20)]
        stand.dispatcher.send(calls)
        await gate.wait_for(expected)
        gate.open()
        await stand.replies.wait_for(20)
    assert gate.most == expected
    assert all(isinstance(reply.outcome, Succeeded) for _, reply in stand.replies.all)
    assert len(participant.executions) == 20


async def test_calls_of_one_participant_go_in_their_order(new_stand: NewStand) -> None:
    participant = PlainParticipant()
    async with serving(participant) as target, new_stand(concurrency=1) as stand:
        await stand.register(target)
        calls = [call() for _ in range(10)]
        stand.dispatcher.send(calls[:5])
        stand.dispatcher.send(calls[5:])
        await stand.replies.wait_for(10)
    assert [request.saga_id for request in participant.executions] == [one.saga_id for one in calls]


async def test_waiting_for_a_place_has_an_end_too(new_stand: NewStand) -> None:  # R7
    clock = VirtualClock()
    participant, gate = PlainParticipant(), Gate()
    participant.on_execute["shop.act"] = gate
    async with serving(participant) as target, new_stand(clock=clock, concurrency=1) as stand:
        await stand.register(target)
        first, second = call(timeout_s=100), call(timeout_s=5)
        stand.dispatcher.send([first, second])
        await gate.wait_for(1)
        await clock.pass_time(5)
        outcome = await stand.replies.outcome_of(second)
        gate.open()
        await stand.replies.to(first)
    assert isinstance(outcome, NotSent)
    assert "all its places are taken" in outcome.failure.message


async def test_call_whose_limit_has_passed_is_told_as_that(new_stand: NewStand) -> None:  # R7, R13
    clock = VirtualClock()
    participant, gate = PlainParticipant(), Gate()
    participant.on_execute["shop.act"] = gate
    async with serving(participant) as target, new_stand(clock=clock, concurrency=1) as stand:
        await stand.register(target)
        late = call(send_before=clock.now())
        stand.dispatcher.send([late])
        await clock.pass_time(0)
        outcome = await stand.replies.outcome_of(late)
        assert isinstance(outcome, NotSent)
        assert outcome.failure.message == LIMIT_REACHED
        under_way, waiting = call(timeout_s=100), call(timeout_s=100, send_before=Instant(clock.now() + seconds(5)))
        stand.dispatcher.send([under_way, waiting])
        await gate.wait_for(1)
        await clock.pass_time(5)
        outcome = await stand.replies.outcome_of(waiting)
        gate.open()
        await stand.replies.to(under_way)
    assert isinstance(outcome, NotSent)
    assert outcome.failure.message.startswith(f"{LIMIT_REACHED}: participant 'shop' could not be called: all its places are taken")


async def test_participant_that_hangs_delays_no_other(stand: Stand) -> None:  # P5
    participant, gate = PlainParticipant(), Gate()
    participant.on_execute["slow.act"] = gate
    async with serving(participant) as target:
        await stand.register(target, "slow")
        await stand.register(target, "quick")
        stuck = [call("slow.act") for _ in range(CONCURRENCY * 5)]
        quick = [call("quick.act") for _ in range(20)]
        stand.dispatcher.send([*stuck, *quick])
        await gate.wait_for(CONCURRENCY)
        await stand.replies.wait_for(20)
        assert {saga_id for saga_id, _ in stand.replies.all} == {one.saga_id for one in quick}
        gate.open()
        await stand.replies.wait_for(len(stuck) + len(quick))
    assert gate.most == CONCURRENCY


# ── Who is called ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_waiting_calls_go_when_the_participant_registers(stand: Stand) -> None:
    participant = PlainParticipant()
    calls = [call() for _ in range(10)]
    stand.dispatcher.send(calls)
    await one_turn()
    assert stand.replies.all == []
    async with serving(participant) as target:
        await stand.register(target)
        await stand.replies.wait_for(10)
    assert all(isinstance(reply.outcome, Succeeded) for _, reply in stand.replies.all)


async def test_replicas_take_turns(stand: Stand) -> None:
    participants = [PlainParticipant() for _ in range(3)]
    async with AsyncExitStack() as stack:
        for participant in participants:
            await stand.register(await stack.enter_async_context(serving(participant)))
        stand.dispatcher.send([call() for _ in range(12)])
        await stand.replies.wait_for(12)
    assert [len(participant.executions) for participant in participants] == [4, 4, 4]


async def test_only_replicas_that_serve_the_action_are_called(stand: Stand) -> None:
    """A new version that has one more action is rolled out beside the old one."""
    old, new = PlainParticipant(), PlainParticipant()
    async with serving(old) as old_target, serving(new) as new_target:
        await stand.register(old_target, "shop", "act")
        await stand.register(new_target, "shop", "act", "refund")
        stand.dispatcher.send([call("shop.refund") for _ in range(6)] + [call("shop.act") for _ in range(6)])
        await stand.replies.wait_for(12)
    assert all(isinstance(reply.outcome, Succeeded) for _, reply in stand.replies.all)
    assert Counter(request.action for request in old.executions) == {"shop.act": 3}
    assert Counter(request.action for request in new.executions) == {"shop.act": 3, "shop.refund": 6}


@PARTICIPANTS
async def test_expired_registration_is_not_called(new_stand: NewStand) -> None:
    clock = VirtualClock()
    gone, there = PlainParticipant(), PlainParticipant()
    async with serving(gone) as gone_target, serving(there) as there_target, new_stand(clock=clock) as stand:
        await stand.register(gone_target, ttl_s=30)
        await stand.register(there_target, ttl_s=90)
        await clock.pass_time(30)
        stand.dispatcher.send([call() for _ in range(4)])
        await stand.replies.wait_for(4)
    assert gone.executions == []
    assert len(there.executions) == 4


async def test_calls_wait_again_when_every_registration_has_expired(new_stand: NewStand) -> None:
    clock = VirtualClock()
    participant = PlainParticipant()
    async with serving(participant) as target, new_stand(clock=clock) as stand:
        await stand.register(target, ttl_s=30)
        await clock.pass_time(31)
        one = call()
        stand.dispatcher.send([one])
        await one_turn()
        assert participant.executions == []
        await stand.register(target, ttl_s=30)
        assert isinstance(await stand.replies.outcome_of(one), Succeeded)


async def test_participant_that_comes_back_at_its_place_is_called_again(stand: Stand) -> None:
    participant = PlainParticipant()
    async with serving(participant) as target:
        await stand.register(target)
        one = call()
        stand.dispatcher.send([one])
        assert isinstance(await stand.replies.outcome_of(one), Succeeded)
    port = int(target.rpartition(":")[2])
    async with serving(participant, port), asyncio.timeout(WAIT_S):
        outcomes: list[object] = []
        while not any(isinstance(outcome, Succeeded) for outcome in outcomes):  # each try is a call of its own, as the engine would make it
            again = call(timeout_s=2, number=len(outcomes) + 1)
            stand.dispatcher.send([again])
            outcomes.append(await stand.replies.outcome_of(again))


async def test_calls_of_many_sagas_at_once_all_end(stand: Stand) -> None:
    participant = PlainParticipant()
    async with serving(participant) as target:
        await stand.register(target)
        sent = [call(direction=direction) for _ in range(100) for direction in Direction]
        stand.dispatcher.send(sent)
        await stand.replies.wait_for(len(sent))
    assert Counter(saga_id for saga_id, _ in stand.replies.all) == Counter(one.saga_id for one in sent)
