"""What participants say of themselves: types that differ are not called, wishes are heeded, and the configured are asked."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from coordinator.codec.completion_tokens import CompletionTokens
from coordinator.core.inputs import Mismatched, NotSent, Succeeded
from coordinator.core.values import Code, Direction
from coordinator.dispatcher.descriptions import ASK_AGAIN_US, ASK_EVERY_US
from coordinator.dispatcher.grpc_dispatcher import BELIEVED_US
from participant_sdk.completion_token import CompletionIdentity, TokenInvalidError
from saga.v1 import participant_pb2
from tests.builders import seconds
from tests.contract.dispatcher.stand import PARTICIPANTS, STRING, TOKENS, NewStand, Stand, call, described
from tests.fakes import VirtualClock, one_turn
from tests.journals import eventually
from tests.participants import Context, PlainParticipant, serving

INT = "google.protobuf.Int64Value"


class Talkative(PlainParticipant):
    """Describes itself, and counts how often it is asked."""

    def __init__(self, description: participant_pb2.ParticipantDescription) -> None:
        super().__init__()
        self.description = description
        self.asked = 0
        self.before_answering: Callable[[], Awaitable[object]] | None = None

    async def Describe(  # noqa: N802
        self, request: participant_pb2.DescribeRequest, context: Context
    ) -> participant_pb2.DescribeResponse:
        self.asked += 1
        if self.before_answering is not None:
            await self.before_answering()
        return participant_pb2.DescribeResponse(description=self.description)


async def outcome_of_one(stand: Stand, direction: Direction = Direction.EXECUTE) -> object:
    one = call(direction=direction, input_type=STRING, output_type=STRING)
    stand.dispatcher.send([one])
    return await stand.replies.outcome_of(one)


# ── Types ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("direction", "description"),
    [
        (Direction.EXECUTE, described(output_type=INT)),
        (Direction.EXECUTE, described(input_type=INT)),
        (Direction.COMPENSATE, described(input_type=INT)),
    ],
)
async def test_registered_participant_of_other_types_is_not_called(
    stand: Stand, direction: Direction, description: participant_pb2.ParticipantDescription
) -> None:
    participant = PlainParticipant()
    async with serving(participant) as target:
        await stand.registry.register(target, description, seconds(60))
        one = call(direction=direction, input_type=STRING, output_type=STRING)
        stand.dispatcher.send([one])
        reply = await stand.replies.to(one)
        standing = stand.dispatcher.standing_of("shop")
    assert isinstance(reply.outcome, Mismatched)
    assert reply.sent_at is None
    assert reply.outcome.failure.code == Code.FAILED_PRECONDITION
    assert all(part in reply.outcome.failure.message for part in ("shop.act", STRING, INT, target))
    assert (participant.executions, participant.compensations, standing.under_way) == ([], [], 0)


async def test_undo_goes_to_a_participant_that_returns_something_else_now(stand: Stand) -> None:
    participant = PlainParticipant()
    async with serving(participant) as target:
        await stand.registry.register(target, described(output_type=INT), seconds(60))
        await outcome_of_one(stand, Direction.COMPENSATE)
    assert len(participant.compensations) == 1


async def test_registering_with_the_right_types_lets_the_next_attempt_go(stand: Stand) -> None:
    async with serving(PlainParticipant()) as target:
        await stand.registry.register(target, described(input_type=INT), seconds(60))
        assert isinstance(await outcome_of_one(stand), Mismatched)
        await stand.register(target)
        assert isinstance(await outcome_of_one(stand), Succeeded)


async def test_replica_of_other_types_is_passed_over(new_stand: NewStand) -> None:
    other, right = Talkative(described(input_type=INT)), PlainParticipant()
    async with serving(other) as other_target, serving(right) as right_target, new_stand(configured={"shop": other_target}) as stand:
        await stand.dispatcher.describe("shop")
        await stand.register(right_target)
        for _ in range(6):
            assert isinstance(await outcome_of_one(stand), Succeeded)
    assert (len(other.executions), len(right.executions)) == (0, 6)


async def test_configured_participant_of_other_types_is_not_called_once_that_is_known(new_stand: NewStand) -> None:
    participant = Talkative(described(input_type=INT))
    async with serving(participant) as target, new_stand(configured={"shop": target}) as stand:
        await outcome_of_one(stand)
        await eventually(lambda: _told(stand))
        seen = len(participant.executions)
        assert isinstance(await outcome_of_one(stand), Mismatched)
        assert len(participant.executions) == seen


def _told(stand: Stand) -> bool:
    configured = stand.registry.live("shop").configured
    return configured is not None and configured.told is not None


async def test_configured_participant_that_changed_since_is_asked_before_a_call_is_refused(new_stand: NewStand) -> None:
    clock, participant = VirtualClock(), Talkative(described(input_type=INT))
    async with serving(participant) as target, new_stand(clock=clock, configured={"shop": target}) as stand:
        await stand.dispatcher.describe("shop")
        assert isinstance(await outcome_of_one(stand), Mismatched)
        participant.description = described()
        await clock.pass_time(BELIEVED_US / 1_000_000 + 0.1)
        assert isinstance(await outcome_of_one(stand), Succeeded)
    assert participant.asked == 2


async def test_call_withdrawn_while_its_participant_is_asked_is_not_sent(new_stand: NewStand) -> None:  # R12
    """Sent after the saga has turned back it would be overtaken by its own undo."""
    clock, participant, answer = VirtualClock(), Talkative(described(input_type=INT)), asyncio.Event()
    async with serving(participant) as target, new_stand(clock=clock, configured={"shop": target}) as stand:
        await stand.dispatcher.describe("shop")
        participant.description, participant.before_answering = described(), answer.wait
        await clock.pass_time(BELIEVED_US / 1_000_000 + 0.1)
        one = call(input_type=STRING, output_type=STRING)
        stand.dispatcher.send([one])
        await eventually(lambda: participant.asked == 2)
        stand.dispatcher.withdraw(one.saga_id, [one.attempt])
        answer.set()
        reply = await stand.replies.to(one)
        standing = stand.dispatcher.standing_of("shop")
        assert isinstance(await outcome_of_one(stand), Succeeded), "others go on"
    assert isinstance(reply.outcome, NotSent)
    assert (len(participant.executions), standing.under_way) == (1, 0)


async def test_configured_participant_that_does_not_answer_any_more_is_called(new_stand: NewStand) -> None:
    """What it said long ago refuses nothing: the answer to the call itself says how things are."""
    clock, participant = VirtualClock(), Talkative(described(input_type=INT))
    async with serving(participant) as target, new_stand(clock=clock, configured={"shop": target}) as stand:
        await stand.dispatcher.describe("shop")
        await clock.pass_time(BELIEVED_US / 1_000_000 + 0.1)

        async def fail() -> None:
            raise RuntimeError("not now")

        participant.before_answering = fail
        assert isinstance(await outcome_of_one(stand), Succeeded)


# ── Asking ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_configured_participant_is_asked_once_in_the_background_and_its_wishes_are_heeded(new_stand: NewStand) -> None:
    participant = Talkative(described(concurrency=2, rate=50))
    async with serving(participant) as target, new_stand(configured={"shop": target}) as stand:
        for _ in range(20):
            assert isinstance(await outcome_of_one(stand), Succeeded)
        await eventually(lambda: stand.dispatcher.standing_of("shop").concurrency == 2)
        assert stand.dispatcher.standing_of("shop").rate_per_second == 50
    assert participant.asked == 1


async def test_description_that_is_slow_delays_no_call(new_stand: NewStand) -> None:
    participant = Talkative(described())
    participant.before_answering = asyncio.Event().wait
    async with serving(participant) as target, new_stand(configured={"shop": target}) as stand:
        for _ in range(5):
            assert isinstance(await outcome_of_one(stand), Succeeded)
    assert participant.asked == 1


async def test_description_is_asked_for_again_when_it_is_old_and_not_before(new_stand: NewStand) -> None:
    clock, participant = VirtualClock(), Talkative(described(concurrency=2))
    async with serving(participant) as target, new_stand(clock=clock, configured={"shop": target}) as stand:
        await outcome_of_one(stand)
        await eventually(lambda: stand.dispatcher.standing_of("shop").concurrency == 2)
        participant.description = described(concurrency=3)
        await clock.pass_time(ASK_EVERY_US / 1_000_000 - 1)
        await outcome_of_one(stand)
        assert participant.asked == 1
        await clock.pass_time(1)
        await outcome_of_one(stand)
        await eventually(lambda: stand.dispatcher.standing_of("shop").concurrency == 3)


async def test_participant_that_does_not_describe_itself_is_asked_seldom(new_stand: NewStand) -> None:
    clock, participant = VirtualClock(), Talkative(described())

    async def fail() -> None:
        raise RuntimeError("not now")

    participant.before_answering = fail
    async with serving(participant) as target, new_stand(clock=clock, configured={"shop": target}) as stand:
        for _ in range(10):
            await outcome_of_one(stand)
        await eventually(lambda: participant.asked == 1)
        await clock.pass_time(ASK_AGAIN_US / 1_000_000)
        await outcome_of_one(stand)
        await eventually(lambda: participant.asked == 2)


async def test_registered_participant_is_never_asked(stand: Stand) -> None:
    participant = Talkative(described())
    async with serving(participant) as target:
        await stand.register(target)
        for _ in range(3):
            await outcome_of_one(stand)
    assert participant.asked == 0


async def test_two_who_ask_at_once_ask_once(new_stand: NewStand) -> None:
    participant = Talkative(described())
    async with serving(participant) as target, new_stand(configured={"shop": target}) as stand:
        first, second = await asyncio.gather(stand.dispatcher.describe("shop"), stand.dispatcher.describe("shop"))
    assert (first, second) == (described(), described())
    assert participant.asked == 1


async def test_who_goes_away_while_asking_takes_the_answer_from_nobody(new_stand: NewStand) -> None:
    participant, let_go = Talkative(described()), asyncio.Event()
    participant.before_answering = let_go.wait
    async with serving(participant) as target, new_stand(configured={"shop": target}) as stand:
        first = asyncio.ensure_future(stand.dispatcher.describe("shop"))
        await eventually(lambda: participant.asked == 1)
        second = asyncio.ensure_future(stand.dispatcher.describe("shop"))
        await one_turn()
        first.cancel()
        await asyncio.wait([first])
        let_go.set()
        assert await second == described()
    assert participant.asked == 1


# ── Completion tokens ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@PARTICIPANTS
async def test_every_attempt_of_a_round_carries_the_same_token_that_only_this_coordinator_made(stand: Stand) -> None:  # R24
    participant = PlainParticipant()
    async with serving(participant) as target:
        await stand.register(target)
        first = call()
        for one in (first, call(number=2, like=first), call()):
            stand.dispatcher.send([one])
            await stand.replies.to(one)
    tokens = [request.completion_token for request in participant.executions]
    assert tokens[0] == tokens[1] != tokens[2]
    assert TOKENS.read(tokens[0]) == CompletionIdentity(first.saga_id, "step", 1)
    with pytest.raises(TokenInvalidError):
        CompletionTokens(b"another secret").read(tokens[0])
