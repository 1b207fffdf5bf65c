"""Actions whose effect is inside the barrier's database transaction (R5, R18, R20-R22)."""

import asyncio

import grpc
import pytest
from google.rpc import status_pb2

from participant_sdk.barrier.guarded import GuardedBarrier
from participant_sdk.barrier.verdict import Knowledge
from participant_sdk.rpc_errors import ErrorReason, error_reason
from saga.v1 import participant_pb2
from tests.contract.barrier.calls import Handler, Undo, compensate_call, execute_call, failed, packed, postponed, rejected, reply
from tests.contract.barrier.conftest import World

COMPENSATED = participant_pb2.CompensateResponse(compensated=participant_pb2.Compensated(handler_ran=True))
NOTHING_TO_UNDO = participant_pb2.CompensateResponse(compensated=participant_pb2.Compensated(handler_ran=False))
A_MONTH_S = 31 * 86_400


async def test_execute_takes_effect_and_answers(world: World, barrier: GuardedBarrier, handler: Handler) -> None:
    assert await barrier.execute(execute_call(world.clock), handler) == reply("reply 1")
    assert await world.lines() == ["execute 1"]


async def test_execute_again_replays_the_same_bytes(world: World, barrier: GuardedBarrier, handler: Handler) -> None:
    first = await barrier.execute(execute_call(world.clock), handler)
    again = await world.process().execute(execute_call(world.clock), handler)  # R18
    assert isinstance(again, participant_pb2.ExecuteResponse)
    assert again.SerializeToString() == first.SerializeToString()
    assert handler.runs == 1
    assert await world.lines() == ["execute 1"]


async def test_replay_long_after_retention_still_replays_while_the_row_is_there(
    world: World, barrier: GuardedBarrier, handler: Handler
) -> None:
    await barrier.execute(execute_call(world.clock), handler)
    world.clock.advance(A_MONTH_S)
    assert await barrier.execute(execute_call(world.clock, age_s=A_MONTH_S), handler) == reply("reply 1")


async def test_unknown_key_older_than_retention_is_never_run(world: World, barrier: GuardedBarrier, handler: Handler, undo: Undo) -> None:
    for answer in (  # R21
        await barrier.execute(execute_call(world.clock, age_s=A_MONTH_S), handler),
        await barrier.compensate(compensate_call(world.clock, age_s=A_MONTH_S), None, undo),
        await barrier.compensate(compensate_call(world.clock, Knowledge.SUCCEEDED, age_s=A_MONTH_S), packed("claimed"), undo),
    ):
        assert isinstance(answer, status_pb2.Status)
        assert answer.code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
        assert error_reason(answer) == ErrorReason.KEY_EXPIRED
    assert await world.lines() == []
    # Nothing was stored either: within retention the key is as if it had never been seen.
    assert await barrier.execute(execute_call(world.clock), handler) == reply("reply 1")


async def test_same_key_with_other_input_is_refused_in_both_directions(
    world: World, barrier: GuardedBarrier, handler: Handler, undo: Undo
) -> None:
    await barrier.execute(execute_call(world.clock), handler)
    for answer in (  # R22
        await barrier.execute(execute_call(world.clock, value=b"other"), handler),
        await barrier.compensate(compensate_call(world.clock, value=b"other"), None, undo),
    ):
        assert isinstance(answer, status_pb2.Status)
        assert answer.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
        assert error_reason(answer) == ErrorReason.KEY_PAYLOAD_MISMATCH
    assert await world.lines() == ["execute 1"]


async def test_rejection_is_rolled_back_sealed_and_replayed(world: World, barrier: GuardedBarrier, handler: Handler) -> None:
    handler.outcomes = [rejected()]
    first = await barrier.execute(execute_call(world.clock), handler)  # R5
    assert isinstance(first, participant_pb2.ExecuteResponse)
    assert first.rejected.sealed
    assert first.rejected.status.message == "none left"
    assert await world.lines() == []
    assert await world.process().execute(execute_call(world.clock), handler) == first
    assert handler.runs == 1


async def test_compensating_a_rejected_step_finds_nothing_to_undo(
    world: World, barrier: GuardedBarrier, handler: Handler, undo: Undo
) -> None:
    handler.outcomes = [rejected()]
    await barrier.execute(execute_call(world.clock), handler)
    assert await barrier.compensate(compensate_call(world.clock), None, undo) == NOTHING_TO_UNDO
    assert undo.seen == []
    late = await barrier.execute(execute_call(world.clock), handler)
    assert isinstance(late, participant_pb2.ExecuteResponse)
    assert late.rejected.sealed
    assert handler.runs == 1


async def test_rejected_step_that_a_person_resolved_as_succeeded_is_undone_with_that_output(
    world: World, barrier: GuardedBarrier, handler: Handler, undo: Undo
) -> None:
    handler.outcomes = [rejected()]
    await barrier.execute(execute_call(world.clock), handler)
    call = compensate_call(world.clock, Knowledge.SUCCEEDED)  # R17, R20
    assert await barrier.compensate(call, packed("by hand"), undo) == COMPENSATED
    assert undo.seen == ["by hand"]


@pytest.mark.parametrize("postpone", [True, False])
async def test_retry_later_and_failure_are_rolled_back_and_not_stored(
    world: World, barrier: GuardedBarrier, handler: Handler, postpone: bool
) -> None:
    handler.outcomes = [postponed() if postpone else failed(RuntimeError("bug"))]
    answer = await barrier.execute(execute_call(world.clock), handler)
    if postpone:
        assert isinstance(answer, participant_pb2.ExecuteResponse)
        assert answer.retry_later.delay.seconds == 7
    else:
        assert isinstance(answer, status_pb2.Status)
        assert answer.code == grpc.StatusCode.UNKNOWN.value[0]
    assert await world.lines() == []
    assert await barrier.execute(execute_call(world.clock), handler) == reply("reply 2")
    assert await world.lines() == ["execute 2"]


async def test_compensation_undoes_the_stored_output_once(world: World, barrier: GuardedBarrier, handler: Handler, undo: Undo) -> None:
    await barrier.execute(execute_call(world.clock), handler)
    call = compensate_call(world.clock, Knowledge.SUCCEEDED)
    assert await barrier.compensate(call, packed("claimed"), undo) == COMPENSATED
    assert await world.process().compensate(compensate_call(world.clock), None, undo) == COMPENSATED
    assert undo.seen == ["reply 1"]
    assert await world.lines() == ["execute 1", "undo 1"]


async def test_compensation_of_an_unknown_key_seals_it_without_a_handler(
    world: World, barrier: GuardedBarrier, handler: Handler, undo: Undo
) -> None:
    assert await barrier.compensate(compensate_call(world.clock), None, undo) == NOTHING_TO_UNDO
    late = await world.process().execute(execute_call(world.clock), handler)
    assert isinstance(late, participant_pb2.ExecuteResponse)
    assert late.rejected.sealed
    assert error_reason(late.rejected.status) == ErrorReason.SEALED
    assert await barrier.compensate(compensate_call(world.clock), None, undo) == NOTHING_TO_UNDO
    assert (handler.runs, undo.seen) == (0, [])
    assert await world.lines() == []


async def test_compensation_of_a_known_success_without_a_row_runs_with_the_coordinators_output(
    world: World, barrier: GuardedBarrier, handler: Handler, undo: Undo
) -> None:
    call = compensate_call(world.clock, Knowledge.SUCCEEDED)  # R20
    assert await barrier.compensate(call, packed("claimed"), undo) == COMPENSATED
    assert await barrier.compensate(call, packed("claimed"), undo) == COMPENSATED
    assert undo.seen == ["claimed"]
    late = await barrier.execute(execute_call(world.clock), handler)
    assert isinstance(late, participant_pb2.ExecuteResponse)
    assert late.rejected.sealed
    assert await world.lines() == ["undo 1"]


@pytest.mark.parametrize("outcome", [postponed(), failed(RuntimeError("bug"))])
async def test_compensation_that_fails_is_rolled_back_and_run_again(
    world: World, barrier: GuardedBarrier, handler: Handler, undo: Undo, outcome: object
) -> None:
    await barrier.execute(execute_call(world.clock), handler)
    undo.outcomes = [outcome]  # type: ignore[list-item]
    await barrier.compensate(compensate_call(world.clock), None, undo)
    assert await world.lines() == ["execute 1"]
    assert await barrier.compensate(compensate_call(world.clock), None, undo) == COMPENSATED
    assert undo.seen == ["reply 1", "reply 1"]
    assert await world.lines() == ["execute 1", "undo 2"]


async def test_concurrent_duplicates_share_one_flight(world: World, barrier: GuardedBarrier, handler: Handler) -> None:
    handler.gate = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:  # R22
        flights = [tasks.create_task(barrier.execute(execute_call(world.clock), handler)) for _ in range(3)]
        await handler.entered.wait()
        handler.gate.set()
    assert [flight.result() for flight in flights] == [reply("reply 1")] * 3
    assert handler.runs == 1


async def test_duplicate_takes_over_when_the_first_is_cancelled(world: World, barrier: GuardedBarrier, handler: Handler) -> None:
    handler.gate = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(barrier.execute(execute_call(world.clock), handler))
        await handler.entered.wait()
        second = tasks.create_task(barrier.execute(execute_call(world.clock), handler))
        await asyncio.sleep(0)
        first.cancel()
        handler.gate.set()
    expected = 2 if world.can_be_cut_short else 1
    assert second.result() == reply(f"reply {expected}")
    assert await world.lines() == [f"execute {expected}"]


async def test_duplicate_that_cannot_wait_so_long_is_asked_to_come_again(world: World, barrier: GuardedBarrier, handler: Handler) -> None:
    handler.gate = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(barrier.execute(execute_call(world.clock), handler))
        await handler.entered.wait()
        second = await barrier.execute(execute_call(world.clock, time_left_s=0.02), handler)
        handler.gate.set()
    assert isinstance(second, participant_pb2.ExecuteResponse)
    assert second.HasField("retry_later")
    assert first.result() == reply("reply 1")


async def test_call_of_another_process_waits_for_the_row_less_than_its_time(
    world: World, barrier: GuardedBarrier, handler: Handler, undo: Undo
) -> None:
    handler.gate = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(barrier.execute(execute_call(world.clock), handler))
        await handler.entered.wait()
        other = world.process()
        duplicate = await other.execute(execute_call(world.clock, time_left_s=0.2), handler)  # R22
        compensation = await other.compensate(compensate_call(world.clock, time_left_s=0.2), None, undo)
        handler.gate.set()
    assert isinstance(duplicate, participant_pb2.ExecuteResponse)
    assert duplicate.HasField("retry_later")
    assert isinstance(compensation, participant_pb2.CompensateResponse)
    assert compensation.HasField("retry_later")
    assert first.result() == reply("reply 1")
    assert (handler.runs, undo.seen) == (1, [])
    assert await other.compensate(compensate_call(world.clock), None, undo) == COMPENSATED


async def test_cancelled_execution_leaves_all_of_it_or_nothing(world: World, barrier: GuardedBarrier, handler: Handler, undo: Undo) -> None:
    handler.gate = asyncio.Event()
    first = asyncio.create_task(barrier.execute(execute_call(world.clock), handler))
    await handler.entered.wait()
    first.cancel()
    if not world.can_be_cut_short:
        handler.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await first
    # All of it or nothing: what cannot be cut short is committed, and found by whoever asks again.
    lines, undone = ([], NOTHING_TO_UNDO) if world.can_be_cut_short else (["execute 1"], COMPENSATED)
    assert await world.lines() == lines
    assert await barrier.compensate(compensate_call(world.clock), None, undo) == undone


async def test_expired_keys_are_forgotten_in_batches_and_later_ones_kept(world: World, barrier: GuardedBarrier, handler: Handler) -> None:
    await barrier.execute(execute_call(world.clock), handler)
    world.clock.advance(A_MONTH_S - 60)
    assert await barrier.delete_expired(10) == 0
    world.clock.advance(120)  # beyond retention and its margin
    assert await barrier.delete_expired(10) == 1
    assert await barrier.delete_expired(10) == 0
    answer = await barrier.execute(execute_call(world.clock, age_s=A_MONTH_S + 60), handler)
    assert isinstance(answer, status_pb2.Status)
    assert error_reason(answer) == ErrorReason.KEY_EXPIRED
