"""Steps that are accepted and finished later, whatever the barrier keeps its rows in (R19, R24)."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from participant_sdk import CompletionPostponedError, CompletionRefusedError
from participant_sdk.barrier.completions import StoredResult
from participant_sdk.barrier.guarded import GuardedBarrier
from participant_sdk.barrier.verdict import Knowledge
from participant_sdk.effects import DATABASE, EXTERNAL, Effect
from participant_sdk.rpc_errors import ErrorReason, error_reason
from saga.v1 import participant_pb2
from tests.contract.barrier.calls import (
    Handler,
    Undo,
    acceptance,
    accepted,
    compensate_call,
    completion_call,
    execute_call,
    failed,
    packed,
    refusal,
    reply,
)
from tests.contract.barrier.conftest import World

COMPENSATED = participant_pb2.CompensateResponse(compensated=participant_pb2.Compensated(handler_ran=True))
NOTHING_TO_UNDO = participant_pb2.CompensateResponse(compensated=participant_pb2.Compensated(handler_ran=False))

pytestmark = pytest.mark.parametrize("effect", [DATABASE, EXTERNAL])


@pytest.fixture
async def handler(world: World) -> Handler:
    """Accepts once; if it ran again, that would be seen."""
    return Handler(world.write, outcomes=[accepted()])


async def complete(
    world: World,
    barrier: GuardedBarrier,
    response: participant_pb2.ExecuteResponse,
    *,
    wait_s: float = 5,
    meanwhile: Callable[[], Awaitable[None]] | None = None,
) -> participant_pb2.ExecuteResponse:
    """Completes with `response`, writing a line; returns what is stored. `meanwhile`: what happens while the row is locked."""
    async with barrier.completing(completion_call(wait_s=wait_s)) as found:
        if isinstance(found, StoredResult):
            return found.response
        assert found.action == "inventory.reserve"
        await world.write(found.sessions, "complete")
        if meanwhile is not None:
            await meanwhile()
        await found.conclude(response)
    return response


async def test_acceptance_is_committed_with_what_was_written_and_replayed(
    world: World, barrier: GuardedBarrier, handler: Handler, effect: Effect
) -> None:
    assert await barrier.execute(execute_call(world.clock, effect=effect), handler) == acceptance()
    world.clock.advance(600)
    # R24: the same limit again; it counts from when the coordinator hears of it first.
    assert await world.process().execute(execute_call(world.clock, effect=effect), handler) == acceptance()
    assert await world.lines() == ["execute 1"]


async def test_completion_is_stored_with_its_effect_and_answers_a_repeated_execute(
    world: World, barrier: GuardedBarrier, handler: Handler, effect: Effect
) -> None:
    await barrier.execute(execute_call(world.clock, effect=effect), handler)
    assert await complete(world, world.process(), reply("approved")) == reply("approved")
    assert await world.lines() == ["execute 1", "complete"]
    assert await barrier.execute(execute_call(world.clock, effect=effect), handler) == reply("approved")
    assert handler.runs == 1


async def test_completion_that_is_repeated_gets_what_was_stored_and_writes_nothing(
    world: World, barrier: GuardedBarrier, handler: Handler, effect: Effect
) -> None:
    await barrier.execute(execute_call(world.clock, effect=effect), handler)
    await complete(world, barrier, reply("approved"))
    assert await complete(world, world.process(), refusal()) == reply("approved")  # R24
    assert await world.lines() == ["execute 1", "complete"]


async def test_rejected_completion_keeps_what_it_wrote_and_leaves_nothing_to_undo(
    world: World, barrier: GuardedBarrier, handler: Handler, undo: Undo, effect: Effect
) -> None:
    await barrier.execute(execute_call(world.clock, effect=effect), handler)
    assert await complete(world, barrier, refusal()) == refusal()
    assert await barrier.execute(execute_call(world.clock, effect=effect), handler) == refusal()  # R5: sealed
    assert await barrier.compensate(compensate_call(world.clock, effect=effect), None, undo) == NOTHING_TO_UNDO
    assert await world.lines() == ["execute 1", "complete"]


async def test_compensation_of_an_accepted_step_runs_without_output_and_seals_it(
    world: World, barrier: GuardedBarrier, handler: Handler, undo: Undo, effect: Effect
) -> None:
    await barrier.execute(execute_call(world.clock, effect=effect), handler)
    assert await barrier.compensate(compensate_call(world.clock, effect=effect), None, undo) == COMPENSATED  # R19: it is a beginning
    assert undo.seen == [None]
    with pytest.raises(CompletionRefusedError, match="compensation came first"):  # R24
        await complete(world, world.process(), reply("approved"))
    late = await barrier.execute(execute_call(world.clock, effect=effect), handler)
    assert isinstance(late, participant_pb2.ExecuteResponse)
    assert error_reason(late.rejected.status) == ErrorReason.SEALED
    assert await world.lines() == ["execute 1", "undo 1"]


async def test_compensation_of_a_completed_step_undoes_its_output(
    world: World, barrier: GuardedBarrier, handler: Handler, undo: Undo, effect: Effect
) -> None:
    await barrier.execute(execute_call(world.clock, effect=effect), handler)
    await complete(world, barrier, reply("approved"))
    # The coordinator's time for it was over when the result came: it knows of none, the row does.
    assert await barrier.compensate(compensate_call(world.clock, effect=effect), None, undo) == COMPENSATED
    assert undo.seen == ["approved"]
    with pytest.raises(CompletionRefusedError):
        await complete(world, barrier, reply("approved"))
    assert await world.lines() == ["execute 1", "complete", "undo 1"]


async def test_accepted_step_that_a_person_resolved_as_succeeded_is_undone_with_that_output(
    world: World, barrier: GuardedBarrier, handler: Handler, undo: Undo, effect: Effect
) -> None:
    await barrier.execute(execute_call(world.clock, effect=effect), handler)
    call = compensate_call(world.clock, Knowledge.SUCCEEDED, effect=effect)  # R17, R20
    assert await barrier.compensate(call, packed("by hand"), undo) == COMPENSATED
    assert undo.seen == ["by hand"]


async def test_compensation_waits_for_a_completion_under_way_and_undoes_it(
    world: World, barrier: GuardedBarrier, handler: Handler, undo: Undo, effect: Effect
) -> None:
    await barrier.execute(execute_call(world.clock, effect=effect), handler)

    async def too_early() -> None:
        call = compensate_call(world.clock, effect=effect, time_left_s=0.2)
        answer = await world.process().compensate(call, None, undo)
        assert isinstance(answer, participant_pb2.CompensateResponse)
        assert answer.HasField("retry_later")

    await complete(world, barrier, reply("approved"), meanwhile=too_early)
    assert await barrier.compensate(compensate_call(world.clock, effect=effect), None, undo) == COMPENSATED
    assert undo.seen == ["approved"]
    assert await world.lines() == ["execute 1", "complete", "undo 1"]


async def test_completion_waits_for_a_compensation_under_way_and_is_refused(
    world: World, barrier: GuardedBarrier, handler: Handler, undo: Undo, effect: Effect
) -> None:
    await barrier.execute(execute_call(world.clock, effect=effect), handler)
    undo.gate = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        undoing = tasks.create_task(barrier.compensate(compensate_call(world.clock, effect=effect), None, undo))
        await undo.entered.wait()
        completing = tasks.create_task(_refused(complete(world, world.process(), reply("approved"))))
        undo.gate.set()
    assert undoing.result() == COMPENSATED
    assert "compensation came first" in completing.result()
    assert await world.lines() == ["execute 1", "undo 1"]


async def _refused(completing: Awaitable[object]) -> str:
    with pytest.raises(CompletionRefusedError) as caught:
        await completing
    return str(caught.value)


async def test_completion_that_fails_leaves_the_step_waiting(
    world: World, barrier: GuardedBarrier, handler: Handler, effect: Effect
) -> None:
    await barrier.execute(execute_call(world.clock, effect=effect), handler)

    async def break_off() -> None:
        raise RuntimeError("a bug of the caller")

    with pytest.raises(RuntimeError, match="a bug of the caller"):
        await complete(world, barrier, reply("approved"), meanwhile=break_off)
    assert await world.lines() == ["execute 1"]
    assert await complete(world, barrier, reply("approved")) == reply("approved")


async def test_completion_before_the_acceptance_is_committed_waits_for_it(
    world: World, barrier: GuardedBarrier, handler: Handler, effect: Effect
) -> None:
    handler.gate = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:  # R24
        executing = tasks.create_task(barrier.execute(execute_call(world.clock, effect=effect), handler))
        await handler.entered.wait()
        completing = tasks.create_task(complete(world, world.process(), reply("approved")))
        await asyncio.sleep(0)
        handler.gate.set()
    assert executing.result() == acceptance()
    assert completing.result() == reply("approved")
    assert await world.lines() == ["execute 1", "complete"]


async def test_completion_of_what_nobody_accepted_is_postponed_and_leaves_no_trace(
    world: World, barrier: GuardedBarrier, handler: Handler, undo: Undo, effect: Effect
) -> None:
    with pytest.raises(CompletionPostponedError, match="cannot be completed now"):
        await complete(world, barrier, reply("approved"), wait_s=0.05)
    assert await barrier.execute(execute_call(world.clock, effect=effect), handler) == acceptance()
    assert await complete(world, barrier, reply("approved")) == reply("approved")


async def test_completion_after_an_attempt_that_failed_waits_for_the_next_one(
    world: World, barrier: GuardedBarrier, handler: Handler, effect: Effect
) -> None:
    handler.outcomes = [failed(RuntimeError("lost after the letter was sent")), accepted()]
    await barrier.execute(execute_call(world.clock, effect=effect), handler)
    with pytest.raises(CompletionPostponedError):
        await complete(world, barrier, reply("approved"), wait_s=0.05)
    assert await barrier.execute(execute_call(world.clock, effect=effect), handler) == acceptance()
    assert await complete(world, barrier, reply("approved")) == reply("approved")


async def test_token_of_another_call_is_refused_before_anything_is_stored(
    world: World, barrier: GuardedBarrier, handler: Handler, effect: Effect
) -> None:
    await barrier.execute(execute_call(world.clock, effect=effect), handler)
    with pytest.raises(CompletionRefusedError, match="not the one that the accepted call came with"):
        async with barrier.completing(completion_call(token="forged")):
            raise AssertionError("no body may run")
    assert await complete(world, barrier, reply("approved")) == reply("approved")


async def test_handler_that_answers_at_once_after_it_could_have_accepted_is_replayed_to_a_completion(
    world: World, barrier: GuardedBarrier, effect: Effect
) -> None:
    await barrier.execute(execute_call(world.clock, effect=effect), Handler(world.write))
    assert await complete(world, barrier, reply("approved")) == reply("reply 1")
    assert await world.lines() == ["execute 1"]


async def test_two_completions_come_one_after_the_other_and_the_first_counts(
    world: World, barrier: GuardedBarrier, handler: Handler, effect: Effect
) -> None:
    await barrier.execute(execute_call(world.clock, effect=effect), handler)
    answers = await asyncio.gather(
        complete(world, world.process(), reply("ann")), complete(world, world.process(), reply("bob")), return_exceptions=False
    )
    assert answers[0] == answers[1]
    assert await world.lines() == ["execute 1", "complete"]
