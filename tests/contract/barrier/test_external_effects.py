"""Actions whose effect is outside of the barrier's database transaction (R5, R19)."""

import asyncio

import grpc
import pytest
from google.rpc import status_pb2

from participant_sdk.barrier.guarded import GuardedBarrier
from participant_sdk.barrier.verdict import CompensateCall, ExecuteCall, Knowledge
from participant_sdk.effects import EXTERNAL
from participant_sdk.step_context import SessionSource
from saga.v1 import participant_pb2
from tests.contract.barrier.calls import (
    Handler,
    ManualClock,
    Undo,
    compensate_call,
    execute_call,
    failed,
    packed,
    postponed,
    rejected,
    reply,
)
from tests.contract.barrier.conftest import World

COMPENSATED = participant_pb2.CompensateResponse(compensated=participant_pb2.Compensated(handler_ran=True))
NOTHING_TO_UNDO = participant_pb2.CompensateResponse(compensated=participant_pb2.Compensated(handler_ran=False))


class Outside:
    """What is done outside of the database: it cannot be rolled back."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    async def write(self, sessions: SessionSource, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def outside() -> Outside:
    return Outside()


@pytest.fixture
async def handler(outside: Outside) -> Handler:
    return Handler(outside.write)


@pytest.fixture
async def undo(outside: Outside) -> Undo:
    return Undo(outside.write)


def execution(clock: ManualClock, *, time_left_s: float = 10) -> ExecuteCall:
    return execute_call(clock, effect=EXTERNAL, time_left_s=time_left_s)


def compensation(clock: ManualClock, knowledge: Knowledge = Knowledge.UNKNOWN) -> CompensateCall:
    return compensate_call(clock, knowledge, effect=EXTERNAL)


async def test_execute_runs_once_and_replays(world: World, barrier: GuardedBarrier, handler: Handler) -> None:
    assert await barrier.execute(execution(world.clock), handler) == reply("reply 1")
    assert await world.process().execute(execution(world.clock), handler) == reply("reply 1")
    assert handler.runs == 1


async def test_what_the_handler_wrote_through_its_session_is_committed_with_the_reply(world: World, barrier: GuardedBarrier) -> None:
    handler = Handler(world.write)
    assert await barrier.execute(execution(world.clock), handler) == reply("reply 1")
    assert await world.lines() == ["execute 1"]
    undo = Undo(world.write)
    assert await barrier.compensate(compensation(world.clock), None, undo) == COMPENSATED
    assert await world.lines() == ["execute 1", "undo 1"]


async def test_call_that_finds_another_attempt_running_is_asked_to_come_again(
    world: World, barrier: GuardedBarrier, handler: Handler, undo: Undo
) -> None:
    handler.gate = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(barrier.execute(execution(world.clock), handler))
        await handler.entered.wait()
        other = world.process()
        duplicate = await other.execute(execution(world.clock), handler)
        early = await other.compensate(compensation(world.clock), None, undo)
        handler.gate.set()
    assert isinstance(duplicate, participant_pb2.ExecuteResponse)
    assert isinstance(early, participant_pb2.CompensateResponse)
    assert duplicate.retry_later.delay.seconds == 10  # until the lock ends
    assert early.retry_later.delay.seconds == 10
    assert first.result() == reply("reply 1")
    assert (handler.runs, undo.seen) == (1, [])


async def test_failed_handler_may_run_again_at_once(world: World, barrier: GuardedBarrier, handler: Handler) -> None:
    handler.outcomes = [failed(RuntimeError("bug"))]
    answer = await barrier.execute(execution(world.clock), handler)
    assert isinstance(answer, status_pb2.Status)
    assert answer.code == grpc.StatusCode.UNKNOWN.value[0]
    assert await barrier.execute(execution(world.clock), handler) == reply("reply 2")


async def test_compensation_after_a_failed_handler_runs_without_output_and_seals(
    world: World, barrier: GuardedBarrier, handler: Handler, undo: Undo
) -> None:
    handler.outcomes = [failed(RuntimeError("bug"))]
    await barrier.execute(execution(world.clock), handler)
    assert await barrier.compensate(compensation(world.clock), None, undo) == COMPENSATED  # not a null compensation
    assert undo.seen == [None]
    late = await barrier.execute(execution(world.clock), handler)
    assert isinstance(late, participant_pb2.ExecuteResponse)
    assert late.rejected.sealed
    assert handler.runs == 1


async def test_after_a_crash_the_lock_holds_until_the_deadline_then_execute_runs_again(
    world: World, barrier: GuardedBarrier, handler: Handler
) -> None:
    handler.gate = asyncio.Event()
    first = asyncio.create_task(barrier.execute(execution(world.clock), handler))
    await handler.entered.wait()
    other = world.process()
    world.clock.advance(9.9)
    waiting = await other.execute(execution(world.clock), Handler(handler.write))
    assert isinstance(waiting, participant_pb2.ExecuteResponse)
    assert waiting.HasField("retry_later")
    world.clock.advance(0.2)
    assert await other.execute(execution(world.clock), Handler(handler.write)) == reply("reply 1")
    # The first one ends long after its deadline, when its key has been taken over: what others stored is what counts.
    handler.outcomes = [failed(RuntimeError("too late"))]
    handler.gate.set()
    await first
    assert await other.execute(execution(world.clock), handler) == reply("reply 1")


async def test_handler_that_ends_after_it_was_compensated_does_not_overwrite_the_seal(
    world: World, barrier: GuardedBarrier, handler: Handler, undo: Undo
) -> None:
    handler.gate = asyncio.Event()
    first = asyncio.create_task(barrier.execute(execution(world.clock), handler))
    await handler.entered.wait()
    world.clock.advance(11)
    assert await world.process().compensate(compensation(world.clock), None, undo) == COMPENSATED
    handler.gate.set()
    answer = await first
    assert isinstance(answer, status_pb2.Status)  # Unknown: it did run, after it was undone.
    assert answer.code == grpc.StatusCode.UNKNOWN.value[0]
    late = await barrier.execute(execution(world.clock), handler)
    assert isinstance(late, participant_pb2.ExecuteResponse)
    assert late.rejected.sealed


async def test_first_rejection_is_sealed(world: World, barrier: GuardedBarrier, handler: Handler, undo: Undo) -> None:
    handler.outcomes = [rejected()]
    first = await barrier.execute(execution(world.clock), handler)
    assert isinstance(first, participant_pb2.ExecuteResponse)
    assert first.rejected.sealed  # R5
    assert await world.process().execute(execution(world.clock), handler) == first
    assert await barrier.compensate(compensation(world.clock), None, undo) == NOTHING_TO_UNDO


async def test_rejection_after_an_attempt_that_may_have_had_an_effect_seals_nothing_and_is_undone(
    world: World, barrier: GuardedBarrier, handler: Handler, undo: Undo
) -> None:
    handler.outcomes = [failed(ConnectionError("charged, but the reply was lost")), rejected()]
    await barrier.execute(execution(world.clock), handler)
    second = await barrier.execute(execution(world.clock), handler)
    assert isinstance(second, participant_pb2.ExecuteResponse)
    assert second.HasField("rejected")
    assert not second.rejected.sealed  # R5: attempt 1 took effect, attempt 2 was told "already charged"
    assert await barrier.compensate(compensation(world.clock), None, undo) == COMPENSATED
    assert undo.seen == [None]


async def test_retry_later_of_the_first_attempt_forgets_the_key(
    world: World, barrier: GuardedBarrier, handler: Handler, undo: Undo
) -> None:
    handler.outcomes = [postponed()]
    answer = await barrier.execute(execution(world.clock), handler)
    assert isinstance(answer, participant_pb2.ExecuteResponse)
    assert answer.retry_later.delay.seconds == 7
    assert await barrier.compensate(compensation(world.clock), None, undo) == NOTHING_TO_UNDO


async def test_retry_later_after_a_failed_attempt_keeps_the_doubt(
    world: World, barrier: GuardedBarrier, handler: Handler, undo: Undo
) -> None:
    handler.outcomes = [failed(RuntimeError("bug")), postponed()]
    await barrier.execute(execution(world.clock), handler)
    await barrier.execute(execution(world.clock), handler)
    assert await barrier.compensate(compensation(world.clock), None, undo) == COMPENSATED
    assert undo.seen == [None]


async def test_cancelled_handler_unlocks_its_key(world: World, barrier: GuardedBarrier, handler: Handler) -> None:
    handler.gate = asyncio.Event()
    first = asyncio.create_task(barrier.execute(execution(world.clock), handler))
    await handler.entered.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    handler.gate = None
    assert await world.process().execute(execution(world.clock), handler) == reply("reply 2")


async def test_compensation_of_an_unknown_key_is_a_null_compensation(
    world: World, barrier: GuardedBarrier, handler: Handler, undo: Undo
) -> None:
    assert await barrier.compensate(compensation(world.clock), None, undo) == NOTHING_TO_UNDO
    assert undo.seen == []
    late = await barrier.execute(execution(world.clock), handler)
    assert isinstance(late, participant_pb2.ExecuteResponse)
    assert late.rejected.sealed


async def test_compensation_of_a_success_gets_the_stored_output(
    world: World, barrier: GuardedBarrier, handler: Handler, undo: Undo
) -> None:
    await barrier.execute(execution(world.clock), handler)
    assert await barrier.compensate(compensation(world.clock), None, undo) == COMPENSATED
    assert await world.process().compensate(compensation(world.clock), None, undo) == COMPENSATED
    assert undo.seen == ["reply 1"]


async def test_compensation_of_a_known_success_without_a_row_gets_the_coordinators_output(
    world: World, barrier: GuardedBarrier, undo: Undo
) -> None:
    call = compensation(world.clock, Knowledge.SUCCEEDED)  # R20
    assert await barrier.compensate(call, packed("claimed"), undo) == COMPENSATED
    assert undo.seen == ["claimed"]


@pytest.mark.parametrize("outcome", [postponed(), failed(RuntimeError("bug"))])
async def test_compensation_that_fails_keeps_the_key_sealed_and_runs_again_at_once(
    world: World, barrier: GuardedBarrier, handler: Handler, undo: Undo, outcome: object
) -> None:
    handler.outcomes = [failed(RuntimeError("bug"))]
    await barrier.execute(execution(world.clock), handler)
    undo.outcomes = [outcome]  # type: ignore[list-item]
    await barrier.compensate(compensation(world.clock), None, undo)
    late = await barrier.execute(execution(world.clock), handler)
    assert isinstance(late, participant_pb2.ExecuteResponse)
    assert late.rejected.sealed
    assert await barrier.compensate(compensation(world.clock), None, undo) == COMPENSATED
    assert undo.seen == [None, None]


async def test_compensation_that_finds_another_one_running_is_asked_to_come_again(
    world: World, barrier: GuardedBarrier, handler: Handler, undo: Undo
) -> None:
    await barrier.execute(execution(world.clock), handler)
    undo.gate = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(barrier.compensate(compensation(world.clock), None, undo))
        await undo.entered.wait()
        second = await world.process().compensate(compensation(world.clock), None, undo)
        undo.gate.set()
    assert isinstance(second, participant_pb2.CompensateResponse)
    assert second.retry_later.delay.seconds == 10
    assert first.result() == COMPENSATED
    assert undo.seen == ["reply 1"]
