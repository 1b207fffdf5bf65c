"""Participants are protected: from too many calls, and while they are not well; and nobody suffers for another."""

import asyncio
from collections import Counter

import grpc
import pytest

from coordinator.core.inputs import NotSent, Succeeded, Unknown
from coordinator.core.values import Code, Direction
from coordinator.dispatcher.grpc_dispatcher import LOOK_AGAIN_US
from coordinator.engine.ports import CallPlace, Circuit
from coordinator.limits import ParticipantLimits
from saga.v1 import participant_pb2
from tests.builders import seconds
from tests.contract.dispatcher.stand import PARTICIPANTS, WAIT_S, NewStand, Stand, call
from tests.fakes import VirtualClock
from tests.journals import eventually
from tests.participants import Context, Gate, PlainParticipant, serving
from tests.processes import free_port

QUICK = ParticipantLimits(concurrency=4, circuit_failures=3, circuit_open_s=0.05, circuit_open_s_max=0.4)
"""For stands with the real clock: left alone for so short a time that a test can wait for it."""
FIRM = ParticipantLimits(concurrency=4, circuit_failures=3, circuit_open_s=10, circuit_open_s_max=40)
"""For stands with a clock that stands still."""


def circuit_of(stand: Stand, participant: str = "shop") -> Circuit:
    return stand.dispatcher.standing_of(participant).circuit


class Moody(PlainParticipant):
    """Answers as its mood is, and counts."""

    def __init__(self, *actions: str) -> None:
        super().__init__()
        self.mood: grpc.StatusCode | None = None
        for action in actions or ("shop.act",):
            self.on_execute[action] = self._answer

    async def _answer(self, request: participant_pb2.ExecuteRequest, context: Context) -> participant_pb2.ExecuteResponse:
        if self.mood is not None:
            await context.abort(self.mood, "not today")
        return participant_pb2.ExecuteResponse(succeeded=participant_pb2.Succeeded(output=request.input))


async def send_one(stand: Stand, action: str = "shop.act", timeout_s: float = WAIT_S) -> object:
    one = call(action, timeout_s=timeout_s)
    stand.dispatcher.send([one])
    return await stand.replies.outcome_of(one)


async def open_circuit(stand: Stand, participant: Moody, mood: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> None:
    """Fails as often as is needed."""
    participant.mood = mood
    for _ in range(FIRM.circuit_failures):
        assert circuit_of(stand) is Circuit.CLOSED
        await send_one(stand)
    assert circuit_of(stand) is Circuit.OPEN
    participant.mood = None


# ── Down ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_participant_that_is_down_is_tried_a_few_times_and_the_others_keep_their_pace(new_stand: NewStand) -> None:  # P5
    there = PlainParticipant()
    async with serving(there) as target, new_stand(clock=VirtualClock(), limits=FIRM) as stand:
        await stand.register(f"127.0.0.1:{free_port()}", "down")
        await stand.register(target, "shop")
        lost = [call("down.act") for _ in range(500)]
        well = [call("shop.act") for _ in range(100)]
        stand.dispatcher.send([*lost, *well])
        for one in well:
            assert isinstance(await stand.replies.outcome_of(one), Succeeded)
        await eventually(lambda: stand.dispatcher.standing_of("down").under_way == 0)
        standing = stand.dispatcher.standing_of("down")
        tried = [reply for one in lost for reply in stand.replies.of(one)]
    assert standing.circuit is Circuit.OPEN
    assert FIRM.circuit_failures <= len(tried) < FIRM.circuit_failures + FIRM.concurrency
    assert all(isinstance(reply.outcome, Unknown) for reply in tried)
    assert standing.waiting == len(lost) - len(tried)
    assert circuit_of(stand) is Circuit.CLOSED


async def test_one_that_cannot_be_connected_to_gets_no_call_while_that_lasts(new_stand: NewStand) -> None:  # R7
    """Its circuit lets a probe through again and again; but that nobody is there is seen without one."""
    clock = VirtualClock()
    port, participant = free_port(), PlainParticipant()
    async with new_stand(clock=clock, limits=FIRM) as stand:
        await stand.register(f"127.0.0.1:{port}")
        for _ in range(FIRM.circuit_failures):
            await send_one(stand)
        waiting = call(timeout_s=3_600)
        stand.dispatcher.send([waiting])
        await clock.pass_time(600)
        assert stand.replies.of(waiting) == []
        assert len(clock.armed) == 1
        assert clock.armed[0] - clock.now() <= LOOK_AGAIN_US
        async with serving(participant, port), asyncio.timeout(WAIT_S):
            while not stand.replies.of(waiting):  # gRPC connects by the real time, within 2 s
                await clock.pass_time(1)
                await asyncio.sleep(0.005)
            assert isinstance(await stand.replies.outcome_of(waiting), Succeeded)
    assert len(participant.executions) == 1


async def test_calls_go_again_by_themselves_when_it_is_back(new_stand: NewStand) -> None:
    port, participant = free_port(), PlainParticipant()
    async with new_stand(limits=QUICK) as stand:
        await stand.register(f"127.0.0.1:{port}")
        calls = [call() for _ in range(100)]
        stand.dispatcher.send(calls)
        await eventually(lambda: circuit_of(stand) is Circuit.OPEN)
        async with serving(participant, port):
            await stand.replies.wait_for(len(calls))
            outcomes = Counter(type(reply.outcome) for _, reply in stand.replies.all)
            assert circuit_of(stand) is Circuit.CLOSED
            assert stand.dispatcher.standing_of("shop").last_failure is None
    assert outcomes[Unknown] < QUICK.circuit_failures + QUICK.concurrency
    assert outcomes[Succeeded] == len(calls) - outcomes[Unknown]


async def test_registering_again_is_a_sign_of_life(new_stand: NewStand) -> None:
    clock, participant = VirtualClock(), Moody()
    async with serving(participant) as target, new_stand(clock=clock, limits=FIRM) as stand:
        await stand.register(target)
        await open_circuit(stand, participant)
        waiting = call()
        stand.dispatcher.send([waiting])
        assert stand.dispatcher.place_of("shop", waiting.saga_id, waiting.attempt) is CallPlace.CIRCUIT_OPEN
        await stand.register(target)
        assert isinstance(await stand.replies.outcome_of(waiting), Succeeded)
    assert circuit_of(stand) is Circuit.CLOSED


# ── Not well ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_open_circuit_keeps_calls_back_then_lets_one_probe_go(new_stand: NewStand) -> None:
    clock, participant, gate = VirtualClock(), Moody(), Gate()
    async with serving(participant) as target, new_stand(clock=clock, limits=FIRM) as stand:
        await stand.register(target)
        await open_circuit(stand, participant)
        seen = len(participant.executions)
        participant.on_execute["shop.act"] = gate
        calls = [call(timeout_s=100) for _ in range(20)]
        stand.dispatcher.send(calls)
        await clock.pass_time(4.9)
        assert stand.dispatcher.standing_of("shop").under_way == 0
        await clock.pass_time(5.1)
        await eventually(lambda: len(participant.executions) == seen + 1)
        standing = stand.dispatcher.standing_of("shop")
        assert (standing.circuit, standing.under_way, standing.waiting) == (Circuit.HALF_OPEN, 1, 19)
        gate.open.set()
        for one in calls:
            assert isinstance(await stand.replies.outcome_of(one), Succeeded)


async def test_failed_probe_leaves_it_alone_for_longer(new_stand: NewStand) -> None:
    clock, participant = VirtualClock(), Moody()
    async with serving(participant) as target, new_stand(clock=clock, limits=FIRM) as stand:
        await stand.register(target)
        await open_circuit(stand, participant)
        participant.mood = grpc.StatusCode.UNAVAILABLE
        await clock.pass_time(10)
        await send_one(stand)
        standing = stand.dispatcher.standing_of("shop")
    assert standing.open_until is not None
    assert clock.now() + seconds(10) <= standing.open_until <= clock.now() + seconds(20)


async def test_call_that_waits_too_long_for_it_is_no_attempt_and_says_why(new_stand: NewStand) -> None:  # R7
    clock, participant = VirtualClock(), Moody()
    async with serving(participant) as target, new_stand(clock=clock, limits=FIRM) as stand:
        await stand.register(target)
        await open_circuit(stand, participant)
        one = call(timeout_s=2)
        stand.dispatcher.send([one])
        await clock.pass_time(2)
        outcome = await stand.replies.outcome_of(one)
    assert isinstance(outcome, NotSent)
    assert "left alone for a while; the last error was: not today" in outcome.failure.message
    assert outcome.failure.code == Code.UNAVAILABLE


async def test_undo_waits_like_any_other_call(new_stand: NewStand) -> None:
    clock, participant = VirtualClock(), Moody()
    async with serving(participant) as target, new_stand(clock=clock, limits=FIRM) as stand:
        await stand.register(target)
        await open_circuit(stand, participant)
        one = call(direction=Direction.COMPENSATE)
        stand.dispatcher.send([one])
        assert stand.dispatcher.place_of("shop", one.saga_id, one.attempt) is CallPlace.CIRCUIT_OPEN
        await clock.pass_time(10)
        await stand.replies.to(one)
    assert len(participant.compensations) == 1


@pytest.mark.parametrize(
    "mood", [grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNIMPLEMENTED]
)
async def test_refusals_and_faults_of_its_own_keep_nobody_out(new_stand: NewStand, mood: grpc.StatusCode) -> None:
    participant = Moody()
    participant.mood = mood
    async with serving(participant) as target, new_stand(clock=VirtualClock(), limits=FIRM) as stand:
        await stand.register(target)
        for _ in range(FIRM.circuit_failures * 3):
            await send_one(stand)
        assert circuit_of(stand) is Circuit.CLOSED


async def test_one_saga_that_is_always_too_large_opens_nothing_but_many_do(new_stand: NewStand) -> None:  # P5
    participant = Moody()
    participant.mood = grpc.StatusCode.RESOURCE_EXHAUSTED
    async with serving(participant) as target, new_stand(clock=VirtualClock(), limits=FIRM) as stand:
        await stand.register(target)
        poison = call()
        for number in range(1, 11):
            again = call(number=number, like=poison)
            stand.dispatcher.send([again])
            await stand.replies.to(again)
        assert circuit_of(stand) is Circuit.CLOSED
        for _ in range(FIRM.circuit_failures - 1):  # the poison counts once too
            await send_one(stand)
        assert circuit_of(stand) is Circuit.OPEN


async def test_circuit_that_is_switched_off_never_opens(new_stand: NewStand) -> None:
    never = ParticipantLimits(circuit_failures=0)
    async with new_stand(limits=never) as stand:
        await stand.register(f"127.0.0.1:{free_port()}")
        for _ in range(10):
            assert isinstance(await send_one(stand), Unknown)
        assert circuit_of(stand) is Circuit.CLOSED


# ── Several places ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_replica_that_cannot_be_connected_to_costs_one_call_and_is_called_again_when_it_is_back(new_stand: NewStand) -> None:
    there, port, back = PlainParticipant(), free_port(), PlainParticipant()
    async with serving(there) as target, new_stand(limits=QUICK) as stand:
        await stand.register(target)
        await stand.register(f"127.0.0.1:{port}")
        outcomes = [await send_one(stand) for _ in range(50)]
        assert sum(isinstance(outcome, Unknown) for outcome in outcomes) == 1
        assert len(there.executions) == 49
        async with serving(back, port), asyncio.timeout(WAIT_S):
            while not back.executions:
                assert isinstance(await send_one(stand), Succeeded)


async def test_replica_that_fails_call_after_call_is_passed_over(new_stand: NewStand) -> None:
    ill, well = Moody(), PlainParticipant()
    ill.mood = grpc.StatusCode.UNAVAILABLE
    async with serving(ill) as ill_target, serving(well) as well_target, new_stand(clock=VirtualClock(), limits=FIRM) as stand:
        await stand.register(ill_target)
        await stand.register(well_target)
        outcomes = [await send_one(stand) for _ in range(60)]
        assert circuit_of(stand) is Circuit.CLOSED
    assert len(ill.executions) == FIRM.circuit_failures
    assert sum(isinstance(outcome, Unknown) for outcome in outcomes) == FIRM.circuit_failures


async def test_all_replicas_down_open_the_circuit_together(new_stand: NewStand) -> None:
    async with new_stand(clock=VirtualClock(), limits=FIRM) as stand:
        for _ in range(3):
            await stand.register(f"127.0.0.1:{free_port()}")
        for _ in range(FIRM.circuit_failures):
            await send_one(stand)
        assert circuit_of(stand) is Circuit.OPEN


# ── Rate ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_no_more_than_the_rate_are_sent(new_stand: NewStand) -> None:
    clock, participant = VirtualClock(), PlainParticipant()
    limits = ParticipantLimits(rate_per_second=20)
    async with serving(participant) as target, new_stand(clock=clock, limits=limits) as stand:
        await stand.register(target)
        calls = [call(timeout_s=100) for _ in range(30)]
        stand.dispatcher.send(calls)
        await stand.replies.wait_for(2)
        for wanted in range(3, 13):
            assert stand.dispatcher.standing_of("shop").waiting == len(calls) - (wanted - 1)
            await clock.pass_time(0.05)
            await stand.replies.wait_for(wanted)
        assert stand.dispatcher.place_of("shop", calls[-1].saga_id, calls[-1].attempt) is CallPlace.RATE
        await clock.pass_time(1)
        await stand.replies.wait_for(30)


async def test_rate_is_kept_by_the_real_clock_too(new_stand: NewStand) -> None:
    participant, loop = PlainParticipant(), asyncio.get_running_loop()
    async with serving(participant) as target, new_stand(limits=ParticipantLimits(rate_per_second=100)) as stand:
        await stand.register(target)
        begun = loop.time()
        stand.dispatcher.send([call() for _ in range(60)])
        await stand.replies.wait_for(60)
    assert loop.time() - begun >= 0.5  # 10 at once, 50 more at 100/s


@PARTICIPANTS
async def test_lower_rate_that_the_participant_wishes_is_kept(new_stand: NewStand) -> None:
    clock, participant = VirtualClock(), PlainParticipant()
    async with serving(participant) as target, new_stand(clock=clock, limits=ParticipantLimits(rate_per_second=1_000)) as stand:
        await stand.register(target, rate=10)
        calls = [call() for _ in range(3)]
        stand.dispatcher.send(calls)
        await stand.replies.wait_for(1)
        await clock.pass_time(0.099)
        assert stand.dispatcher.standing_of("shop").waiting == 2
        await stand.register(target, rate=0)  # it changed its mind
        await stand.replies.wait_for(3)


async def test_call_that_waits_too_long_for_its_turn_is_not_sent(new_stand: NewStand) -> None:  # R7
    clock, participant = VirtualClock(), PlainParticipant()
    async with serving(participant) as target, new_stand(clock=clock, limits=ParticipantLimits(rate_per_second=0.1)) as stand:
        await stand.register(target)
        first, second = call(timeout_s=5), call(timeout_s=5)
        stand.dispatcher.send([first, second])
        await stand.replies.to(first)
        await clock.pass_time(5)
        outcome = await stand.replies.outcome_of(second)
    assert isinstance(outcome, NotSent)
    assert "0.1 calls per second" in outcome.failure.message
