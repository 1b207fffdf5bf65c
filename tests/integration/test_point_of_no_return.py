"""The point of no return, with a real coordinator and books: before it everything is undone, behind it all is done."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Unpack

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue

from participant_sdk import RetryPolicy, Saga, SagaAlreadyEnded, StepKind
from participant_sdk.builder import StepOptions
from participant_sdk.client import NotNow, PointOfNoReturnPassed, Resolution
from saga.v1 import participant_pb2, saga_pb2
from tests.integration.conftest import Running
from tests.integration.definitions import QUICK
from tests.integration.desk import (
    TIME_LIMIT,
    Context,
    Desk,
    Forward,
    Held,
    Lines,
    Stand,
    check_books,
    facts,
    lose,
    lose_until,
    of_every_kind,
    open_incidents,
    open_stand,
    passed,
    saga_of,
    step_of,
    until_over,
)
from tests.integration.following import statuses, until

COMPLETED, COMPENSATED, FAILED = saga_pb2.SAGA_STATUS_COMPLETED, saga_pb2.SAGA_STATUS_COMPENSATED, saga_pb2.SAGA_STATUS_FAILED
RUNNING, COMPENSATING = saga_pb2.SAGA_STATUS_RUNNING, saga_pb2.SAGA_STATUS_COMPENSATING
ONCE = RetryPolicy(max_attempts=1)
TENTH = timedelta(milliseconds=100)


@pytest.fixture
async def stand(running: Running, tmp_path: Path) -> AsyncIterator[Stand]:
    async with open_stand(tmp_path, running.address) as stand:
        yield stand


def refused_with(caught: "pytest.ExceptionInfo[NotNow | SagaAlreadyEnded]") -> tuple[int, str]:
    status = caught.value.status
    assert status is not None
    return status.code, caught.value.reason


PRECONDITION: int = grpc.StatusCode.FAILED_PRECONDITION.value[0]


# ── Nobody knows whether it took effect ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_lost_pivot_that_took_effect_goes_forward_though_cancelled_and_out_of_time(stand: Stand) -> None:  # P4, R1, R10, R13
    held = Held(loses_reply=True)
    stand.wire.on_execute["desk.pay"] = held
    handle = await stand.start(of_every_kind(execute_time_limit=timedelta(milliseconds=300)), time_limit=timedelta(milliseconds=300))
    await held.held.wait()
    answer = await handle.cancel(reason="changed my mind", actor="ada")
    assert (answer.status, answer.turn_back_requested.actor) == (RUNNING, "ada")
    again = await handle.cancel(reason="I said so", actor="bob")
    assert again.turn_back_requested.actor == "ada", "asked already"
    deadline = (await handle.get()).deadline.ToDatetime()
    await passed(deadline)
    held.open.set()
    saga = await until_over(handle)
    assert (saga.status, saga.HasField("turn_back_requested"), saga.cause) == (COMPLETED, False, saga_pb2.TURN_BACK_CAUSE_UNSPECIFIED)
    assert len({request.key for request in stand.wire.executed("desk.pay")}) == 1
    assert len(stand.wire.executed("desk.pay")) >= 2
    check_books(saga, await stand.lines(handle))
    assert (await facts(stand.client, handle)).count("turn_back_requested") == 1


async def test_lost_pivot_that_was_declined_turns_back_as_asked(stand: Stand) -> None:  # R5, R10
    """It never reached the participant, and when it does it is refused and sealed: known to have had no effect."""
    held = asyncio.Event()
    stand.wire.on_execute["desk.pay"] = lose_until(held)
    handle = await stand.start(of_every_kind(), "broke")
    await until(handle, "attempt_failed", step_id="pay", count=2)
    assert (await handle.cancel(actor="ada")).status == RUNNING
    held.set()
    saga = await until_over(handle)
    assert saga.status == COMPENSATED
    assert step_of(saga, "pay").status == saga_pb2.STEP_STATUS_REJECTED
    check_books(saga, await stand.lines(handle))


async def test_declined_pivot_undoes_everything_before_it(stand: Stand) -> None:  # R9
    handle = await stand.start(of_every_kind(), "a gift broke")
    saga = await until_over(handle)
    assert (saga.status, saga.failed_step_id) == (COMPENSATED, "pay")
    assert statuses(saga) == {"take": "COMPENSATED", "wrap": "COMPENSATED", "note": "COMPENSATED", "pay": "REJECTED", "ship": "WAITING"}
    check_books(saga, await stand.lines(handle))


@pytest.mark.parametrize("happened", [True, False])
async def test_pivot_out_of_attempts_while_unknown_is_for_a_person_to_say(stand: Stand, happened: bool) -> None:  # P4, R10, R17
    async def never_heard_of(
        forward: Forward, request: participant_pb2.ExecuteRequest, context: Context
    ) -> participant_pb2.ExecuteResponse:
        if happened:
            await forward()
        await lose(context)
        raise AssertionError("abort raises")

    stand.wire.on_execute["desk.pay"] = never_heard_of
    handle = await stand.start(of_every_kind(execute_retry=ONCE))
    failed = await handle.wait(timeout=TIME_LIMIT)
    assert (failed.status, open_incidents(failed)) == (FAILED, [("PIVOT_UNKNOWN", "pay")])
    assert (await handle.cancel(actor="ada")).status == FAILED, "recorded; a person still has to say what happened"
    if happened:
        await stand.client.operator.resolve_step(handle.id, "pay", StringValue(value="P-1"), reason="on the statement", actor="ann")
    else:
        await stand.client.operator.resolve_step(handle.id, "pay", Resolution.REJECTED, reason="not on the statement", actor="ann")
    saga = await until_over(handle)
    assert saga.status == (COMPLETED if happened else COMPENSATED)
    assert (step_of(saga, "pay").resolved.actor, open_incidents(saga)) == ("ann", [])
    lines = await stand.lines(handle)
    assert (("pay", "do") in lines) == happened
    check_books(saga, lines)


# ── Forward recovery ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_participant_that_is_away_behind_the_pivot_for_longer_than_every_limit_is_waited_for(stand: Stand) -> None:  # R13
    saga = shipped(execute_time_limit=TENTH)
    stand.wire.on_execute["desk.ship"] = lose_until(there := asyncio.Event())
    handle = await stand.start(saga, time_limit=timedelta(milliseconds=300))
    await until(handle, "step_succeeded", step_id="pay")
    await passed((await handle.get()).deadline.ToDatetime())
    await until(handle, "attempt_failed", step_id="ship", count=3)
    with pytest.raises(PointOfNoReturnPassed) as caught:
        await handle.cancel()
    assert refused_with(caught) == (PRECONDITION, "POINT_OF_NO_RETURN_PASSED")
    there.set()
    ended = await handle.wait(timeout=TIME_LIMIT)
    assert ended.status == COMPLETED
    assert await stand.lines(handle) == SHIPPED


SHIPPED: Lines = [("take", "do"), ("pay", "do"), ("ship", "do")]


def shipped(name: str = "shipped", **ship: Unpack[StepOptions]) -> Saga[StringValue]:
    saga = saga_of(name)
    saga.step(Desk.take, execute_retry=QUICK, compensate_retry=QUICK)
    saga.step(Desk.pay, saga.input, kind=StepKind.PIVOT, execute_retry=QUICK)
    options: StepOptions = {"kind": StepKind.RETRIABLE, "execute_retry": QUICK}
    options.update(ship)
    saga.step(Desk.ship, saga.input, **options)
    return saga


async def test_retriable_step_out_of_time_asks_a_person_who_has_it_tried_again(stand: Stand) -> None:  # R11, R13, R15
    stand.wire.on_execute["desk.ship"] = lose_until(there := asyncio.Event())
    handle = await stand.start(shipped(compensate_time_limit=timedelta(milliseconds=300)))
    failed = await handle.wait(timeout=TIME_LIMIT)
    assert (failed.status, open_incidents(failed)) == (FAILED, [("STEP_EXHAUSTED", "ship")])
    there.set()
    await stand.client.operator.retry_step(handle.id, "ship", reason="the road is open", actor="ann")
    assert (await handle.wait(timeout=TIME_LIMIT)).status == COMPLETED
    assert len({request.key for request in stand.wire.executed("desk.ship")}) == 1, "nobody knew that it had no effect (R1)"
    assert await stand.lines(handle) == SHIPPED


async def test_refused_step_behind_the_pivot_asks_at_once_and_gets_another_input_and_key(stand: Stand) -> None:  # R1, R11
    handle = await stand.start(shipped(), "nowhere")
    failed = await handle.wait(timeout=TIME_LIMIT)
    assert (failed.status, open_incidents(failed)) == (FAILED, [("STEP_REJECTED", "ship")])
    assert len(stand.wire.executed("desk.ship")) == 1
    await stand.client.operator.retry_step(handle.id, "ship", message=StringValue(value="somewhere"), reason="asked", actor="ann")
    saga = await handle.wait(timeout=TIME_LIMIT)
    assert (saga.status, step_of(saga, "ship").round) == (COMPLETED, 2)
    first, second = stand.wire.executed("desk.ship")
    assert first.key.removesuffix("/1") == second.key.removesuffix("/2")
    assert await stand.lines(handle) == SHIPPED


# ── Cancel before, during and after ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_cancel_before_the_pivot_turns_back_and_never_calls_it(stand: Stand) -> None:  # R10
    held = Held(before=True)
    stand.wire.on_execute["desk.take"] = held
    handle = await stand.start(shipped())
    await held.held.wait()
    assert (await handle.cancel(actor="ada")).status == COMPENSATING
    held.open.set()
    saga = await handle.wait(timeout=TIME_LIMIT)
    assert (saga.status, saga.cause) == (COMPENSATED, saga_pb2.TURN_BACK_CAUSE_CANCELLED)
    assert stand.wire.executed("desk.pay") == []
    assert await stand.lines(handle) == [("take", "do"), ("take", "undo")]
    assert (await handle.cancel()).status == COMPENSATED


async def test_cancel_after_the_end_is_refused(stand: Stand) -> None:
    handle = await stand.start(shipped())
    assert (await handle.wait(timeout=TIME_LIMIT)).status == COMPLETED
    with pytest.raises(SagaAlreadyEnded) as caught:
        await handle.cancel()
    assert refused_with(caught) == (PRECONDITION, "SAGA_ALREADY_ENDED")


async def test_pivot_that_is_left_out_counts_as_passed(stand: Stand) -> None:  # R9
    saga = saga_of("free")
    saga.step(Desk.take, execute_retry=QUICK, compensate_retry=QUICK)
    saga.step(Desk.pay, saga.input, kind=StepKind.PIVOT, when='input.contains("dear")', execute_retry=QUICK)
    saga.step(Desk.ship, saga.input, kind=StepKind.RETRIABLE, execute_retry=QUICK)
    handle = await stand.start(saga, "cheap nowhere")
    failed = await handle.wait(timeout=TIME_LIMIT)
    assert (failed.status, open_incidents(failed), statuses(failed)["pay"]) == (FAILED, [("STEP_REJECTED", "ship")], "SKIPPED")
    with pytest.raises(PointOfNoReturnPassed):
        await handle.cancel()
    await stand.client.operator.terminate(handle.id, reason="too cheap", actor="ann")
    ended = await until_over(handle)
    assert (ended.status, ended.terminated.actor, open_incidents(ended)) == (FAILED, "ann", [])
    assert await stand.lines(handle) == [("take", "do")], "nothing is undone by that"
    with pytest.raises(SagaAlreadyEnded):
        await handle.cancel()


async def test_best_effort_step_that_took_effect_is_undone_and_its_failure_stops_nobody(stand: Stand) -> None:  # R9, R12, R14
    mute, back = await stand.start(of_every_kind(), "mute"), await stand.start(of_every_kind(), "broke")
    ended = await until_over(mute)
    assert (ended.status, statuses(ended)["note"], open_incidents(ended)) == (COMPLETED, "REJECTED", [])
    check_books(ended, await stand.lines(mute))
    turned = await until_over(back)
    assert (turned.status, statuses(turned)["note"]) == (COMPENSATED, "COMPENSATED")
    check_books(turned, await stand.lines(back))
