"""Where a call is and how a participant stands: true for every reason to wait."""

import asyncio

import grpc

from coordinator.core.effects import CallParticipant
from coordinator.core.inputs import Succeeded
from coordinator.engine.ports import CallPlace, Circuit, ParticipantStanding
from coordinator.limits import ParticipantLimits
from tests.contract.dispatcher.stand import PARTICIPANTS, WAIT_S, NewStand, Stand, call
from tests.contract.dispatcher.test_protection import FIRM, Moody, open_circuit
from tests.fakes import VirtualClock
from tests.journals import eventually
from tests.participants import Gate, PlainParticipant, serving

LIMITS = ParticipantLimits(concurrency=1, rate_per_second=0.5)


def place_of(stand: Stand, one: CallParticipant) -> CallPlace:
    return stand.dispatcher.place_of(one.action.partition(".")[0], one.saga_id, one.attempt)


async def test_call_nobody_handed_over_is_not_here(stand: Stand) -> None:
    assert place_of(stand, call()) is CallPlace.NOT_HERE
    assert place_of(stand, call("nobody.act")) is CallPlace.NOT_HERE
    assert stand.dispatcher.standings() == []


async def test_call_to_nobody_waits_for_a_target(stand: Stand) -> None:
    one = call()
    stand.dispatcher.send([one])
    assert place_of(stand, one) is CallPlace.NO_TARGET
    async with serving(PlainParticipant()) as target:
        await stand.register(target)
        assert isinstance(await stand.replies.outcome_of(one), Succeeded)
    assert place_of(stand, one) is CallPlace.NOT_HERE


@PARTICIPANTS
async def test_call_whose_last_target_expires_waits_for_a_target(new_stand: NewStand) -> None:
    clock, participant, gate = VirtualClock(), PlainParticipant(), Gate()
    participant.on_execute["shop.act"] = gate
    async with serving(participant) as target, new_stand(clock=clock, concurrency=1) as stand:
        await stand.register(target, ttl_s=5)
        first, second = call(timeout_s=20), call(timeout_s=20)
        stand.dispatcher.send([first, second])
        assert (place_of(stand, first), place_of(stand, second)) == (CallPlace.UNDER_WAY, CallPlace.NO_PLACE)
        await clock.pass_time(6)
        assert (place_of(stand, first), place_of(stand, second)) == (CallPlace.UNDER_WAY, CallPlace.NO_TARGET)
        gate.open.set()
        await stand.replies.to(first)


async def test_place_and_rate_are_told_apart(new_stand: NewStand) -> None:
    clock, participant, gate = VirtualClock(), PlainParticipant(), Gate()
    participant.on_execute["shop.act"] = gate
    async with serving(participant) as target, new_stand(clock=clock, limits=LIMITS) as stand:
        await stand.register(target)
        first, second = call(), call()
        stand.dispatcher.send([first, second])
        assert (place_of(stand, first), place_of(stand, second)) == (CallPlace.UNDER_WAY, CallPlace.NO_PLACE)
        gate.open.set()
        await stand.replies.to(first)
        assert (place_of(stand, first), place_of(stand, second)) == (CallPlace.NOT_HERE, CallPlace.RATE)
        await clock.pass_time(2)
        await stand.replies.to(second)


async def test_open_circuit_is_told_with_when_and_why(new_stand: NewStand) -> None:
    clock, participant = VirtualClock(), Moody()
    async with serving(participant) as target, new_stand(clock=clock, limits=FIRM) as stand:
        await stand.register(target)
        await open_circuit(stand, participant, grpc.StatusCode.RESOURCE_EXHAUSTED)
        one = call()
        stand.dispatcher.send([one])
        assert place_of(stand, one) is CallPlace.CIRCUIT_OPEN
        standing = stand.dispatcher.standing_of("shop")
        assert standing.circuit is Circuit.OPEN
        assert standing.open_until is not None
        assert standing.open_until > clock.now()
        assert standing.last_failure is not None
        assert (standing.last_failure.code, standing.last_failure.message) == (8, "not today")
        await clock.pass_time((standing.open_until - clock.now()) / 1_000_000)
        assert place_of(stand, one) is CallPlace.UNDER_WAY  # exactly when it was said
        await stand.replies.to(one)
    standing = stand.dispatcher.standing_of("shop")
    assert (standing.circuit, standing.open_until, standing.last_failure) == (Circuit.CLOSED, None, None)


async def test_call_that_waits_for_the_probe_waits_for_the_circuit(new_stand: NewStand) -> None:
    clock, participant, gate = VirtualClock(), Moody(), Gate()
    async with serving(participant) as target, new_stand(clock=clock, limits=FIRM) as stand:
        await stand.register(target)
        await open_circuit(stand, participant)
        participant.on_execute["shop.act"] = gate
        probe, other = call(timeout_s=100), call(timeout_s=100)
        stand.dispatcher.send([probe, other])
        await clock.pass_time(10)
        assert (place_of(stand, probe), place_of(stand, other)) == (CallPlace.UNDER_WAY, CallPlace.CIRCUIT_OPEN)
        gate.open.set()
        await stand.replies.to(other)


async def test_participant_that_nobody_has_heard_of_has_a_standing_and_leaves_nothing(new_stand: NewStand) -> None:
    async with new_stand(limits=LIMITS) as stand:
        assert stand.dispatcher.standing_of("nobody") == ParticipantStanding(
            name="nobody",
            targets=(),
            under_way=0,
            waiting=0,
            concurrency=1,
            rate_per_second=0.5,
            circuit=Circuit.CLOSED,
            open_until=None,
            last_failure=None,
        )
        assert stand.dispatcher.standings() == []


@PARTICIPANTS
async def test_standings_are_of_all_that_are_registered_configured_or_called(new_stand: NewStand) -> None:
    participant, gate = PlainParticipant(), Gate()
    participant.on_execute["shop.act"] = gate
    async with serving(participant) as target, new_stand(concurrency=2, configured={"configured": "a:1"}) as stand:
        await stand.register(target, "shop", concurrency=1, rate=7)
        await stand.register(target, "bank")
        calls = [call(), call(), call("called.act")]
        stand.dispatcher.send(calls)
        await eventually(lambda: len(participant.executions) == 1)
        found = {standing.name: standing for standing in stand.dispatcher.standings()}
        assert list(found) == ["bank", "called", "configured", "shop"]
        shop = found["shop"]
        assert (shop.targets, shop.under_way, shop.waiting, shop.concurrency, shop.rate_per_second) == ((target,), 1, 1, 1, 7.0)
        assert (found["called"].targets, found["called"].waiting) == ((), 1)
        assert (found["configured"].targets, found["configured"].concurrency) == (("a:1",), 2)
        gate.open.set()
        async with asyncio.timeout(WAIT_S):
            await stand.replies.wait_for(2)
