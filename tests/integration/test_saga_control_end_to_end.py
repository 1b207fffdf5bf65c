"""Pause, terminate, delayed start, hooks and inherited deadlines, with a real coordinator and the books of its participant."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue

from participant_sdk import InvalidRequest, Saga, SagaAlreadyEnded, StepKind, StepNotWaitingError
from participant_sdk.client import AttemptUnderWay, NotNow, Resolution
from saga.v1 import coordinator_pb2, saga_pb2
from tests.integration.conftest import Running
from tests.integration.definitions import QUICK
from tests.integration.desk import (
    TIME_LIMIT,
    Desk,
    Held,
    Stand,
    check_books,
    facts,
    lose_replies,
    lose_until,
    of_every_kind,
    open_incidents,
    open_stand,
    passed,
    saga_of,
    step_of,
    until_over,
    with_question,
)
from tests.integration.following import statuses, until

pytestmark = pytest.mark.full

COMPLETED, COMPENSATED, FAILED = saga_pb2.SAGA_STATUS_COMPLETED, saga_pb2.SAGA_STATUS_COMPENSATED, saga_pb2.SAGA_STATUS_FAILED
RUNNING, COMPENSATING, PENDING = saga_pb2.SAGA_STATUS_RUNNING, saga_pb2.SAGA_STATUS_COMPENSATING, saga_pb2.SAGA_STATUS_PENDING
SHORT = timedelta(milliseconds=300)
ROUNDED_UP = 1.05
"""gRPC sends a timeout with few digits, rounded up."""


@pytest.fixture
async def stand(running: Running, tmp_path: Path) -> AsyncIterator[Stand]:
    async with open_stand(tmp_path, running.address) as stand:
        yield stand


async def probe(stand: Stand) -> None:
    """Another saga runs to its end: whatever the first one was allowed to do at once has been done by then."""
    handle = await stand.start(saga_of_take())
    assert (await handle.wait(timeout=TIME_LIMIT)).status == COMPLETED


def saga_of_take() -> Saga[StringValue]:
    saga = saga_of("probe")
    saga.step(Desk.note, kind=StepKind.BEST_EFFORT, execute_retry=QUICK, compensate_retry=QUICK)
    return saga


# ── Pause ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_pause_lets_what_is_under_way_come_to_rest_and_starts_nothing(stand: Stand) -> None:
    held = Held()
    stand.wire.on_execute["desk.take"] = held
    handle = await stand.start(of_every_kind(), "a gift")
    await held.held.wait()
    paused = await stand.client.operator.pause(handle.id, reason="the bank calls", actor="ann")
    assert (paused.paused.actor, paused.paused.reason) == ("ann", "the bank calls")
    assert (await stand.client.operator.pause(handle.id, actor="bob")).paused.actor == "ann", "paused already"
    held.open.set()
    await until(handle, "step_succeeded", step_id="take")
    await probe(stand)
    now = await handle.get()
    assert set(statuses(now).values()) == {"SUCCEEDED", "WAITING"}
    assert [request.action for request in stand.wire.executions if request.saga_id == handle.id] == ["desk.take"]
    assert [saga.id async for saga in stand.client.list(paused=True)] == [handle.id]
    await stand.client.operator.resume(handle.id, reason="it was nothing", actor="bob")
    saga = await until_over(handle)
    assert (saga.status, saga.HasField("paused")) == (COMPLETED, False)
    check_books(saga, await stand.lines(handle))
    people = [getattr(event, event.WhichOneof("fact") or "") async for event in stand.client.history(handle.id)]
    assert [(fact.actor, fact.reason) for fact in people if isinstance(fact, saga_pb2.SagaPaused | saga_pb2.SagaResumed)] == [
        ("ann", "the bank calls"),
        ("bob", "it was nothing"),
    ]


async def test_pause_holds_retries_and_compensations_too(stand: Stand) -> None:
    stand.wire.on_execute["desk.take"] = lose_replies(1_000)
    handle = await stand.start(with_question())
    await until(handle, "attempt_failed", count=2)
    await stand.client.operator.pause(handle.id)
    answer = await handle.cancel(actor="ada")
    assert answer.HasField("paused")
    await probe(stand)
    assert stand.wire.compensations == []
    assert await stand.lines(handle) == [("first", "do")]
    del stand.wire.on_execute["desk.take"]
    await stand.client.operator.resume(handle.id)
    assert (await until_over(handle)).status == COMPENSATED
    assert await stand.lines(handle) == [("first", "do"), ("first", "undo")]


async def test_limit_that_passes_during_a_pause_turns_back_before_the_pivot_is_called(stand: Stand) -> None:
    """Clocks run on and are judged at resume, before anything is sent."""
    held = Held()
    stand.wire.on_execute["desk.take"] = held
    saga = saga_of("paid")
    saga.step(Desk.take, execute_retry=QUICK, compensate_retry=QUICK)
    saga.step(Desk.pay, saga.input, kind=StepKind.PIVOT, execute_retry=QUICK)
    handle = await stand.start(saga, time_limit=SHORT)
    await held.held.wait()
    await stand.client.operator.pause(handle.id)
    held.open.set()
    await until(handle, "step_succeeded", step_id="take")
    await passed((await handle.get()).deadline.ToDatetime())
    assert (await handle.get()).status == RUNNING, "judged when it is resumed"
    await stand.client.operator.resume(handle.id)
    ended = await until_over(handle)
    assert (ended.status, ended.cause) == (COMPENSATED, saga_pb2.TURN_BACK_CAUSE_TIME_LIMIT)
    assert stand.wire.executed("desk.pay") == []
    assert await stand.lines(handle) == [("take", "do"), ("take", "undo")]


async def test_cancel_during_a_pause_turns_back_before_the_pivot_is_called(stand: Stand) -> None:  # R10
    held = Held()
    stand.wire.on_execute["desk.take"] = held
    handle = await stand.start(of_every_kind())
    await held.held.wait()
    await stand.client.operator.pause(handle.id)
    held.open.set()
    await until(handle, "step_succeeded", step_id="take")
    await handle.cancel(actor="ada")
    await stand.client.operator.resume(handle.id)
    saga = await until_over(handle)
    assert (saga.status, stand.wire.executed("desk.pay")) == (COMPENSATED, [])
    check_books(saga, await stand.lines(handle))


async def test_accepted_step_may_be_completed_during_a_pause_and_its_time_is_judged_at_the_end(stand: Stand) -> None:  # R24
    stand.desk.accepts_for = timedelta(seconds=1)
    kept, forgotten = await stand.start(with_question()), await stand.start(with_question())
    for handle in (kept, forgotten):
        await until(handle, "step_accepted")
        await stand.client.operator.pause(handle.id)
    over = step_of(await forgotten.get(), "ask").accepted_until.ToDatetime()
    tokens = {request.saga_id: request.completion_token for request in stand.wire.executed("desk.ask")}
    await stand.desk.complete(tokens[kept.id], stand.client)
    await probe(stand)
    assert [statuses(await handle.get())["ask"] for handle in (kept, forgotten)] == ["SUCCEEDED", "ACCEPTED"]
    await passed(over)
    assert statuses(await forgotten.get())["ask"] == "ACCEPTED"
    for handle in (kept, forgotten):
        await stand.client.operator.resume(handle.id)
    assert [(await until_over(handle)).status for handle in (kept, forgotten)] == [COMPLETED, COMPENSATED]
    assert await stand.lines(kept) == [("first", "do"), ("ask", "ask"), ("ask", "do"), ("last", "do")]
    assert await stand.lines(forgotten) == [("first", "do"), ("ask", "ask"), ("ask", "withdraw"), ("first", "undo")]


async def test_start_that_is_delayed_waits_for_the_end_of_a_pause(stand: Stand) -> None:  # B11
    handle = await stand.start(of_every_kind(), start_at=datetime.now(UTC) + SHORT)
    await stand.client.operator.pause(handle.id, actor="ann")
    await passed((await handle.get()).start_at.ToDatetime())
    await probe(stand)
    assert (await handle.get()).status == PENDING
    await stand.client.operator.resume(handle.id)
    saga = await until_over(handle)
    assert saga.status == COMPLETED
    check_books(saga, await stand.lines(handle))


async def test_start_that_is_delayed_and_cancelled_calls_its_hook_and_nobody_else(stand: Stand) -> None:  # R15, R16
    handle = await stand.start(of_every_kind(), start_at=datetime.now(UTC) + timedelta(hours=1))
    await handle.cancel(actor="ada")
    saga = await until_over(handle)
    assert (saga.status, saga.cause) == (COMPENSATED, saga_pb2.TURN_BACK_CAUSE_CANCELLED)
    assert await stand.lines(handle) == [("on_failure", "do")]


# ── Terminate ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_terminated_saga_stays_as_it_stands_and_tells_its_hook(stand: Stand) -> None:  # R15, R16
    held = Held()
    stand.wire.on_execute["desk.pay"] = held
    handle = await stand.start(of_every_kind())
    await held.held.wait()
    ended = await stand.client.operator.terminate(handle.id, reason="the shop has closed", actor="ann")
    assert (ended.status, ended.terminated.reason) == (FAILED, "the shop has closed")
    held.open.set()
    saga = await until_over(handle)
    assert (saga.status, saga.hook.id, saga.hook.status) == (FAILED, "on_failure", saga_pb2.STEP_STATUS_SUCCEEDED)
    lines = await stand.lines(handle)
    assert {("take", "do"), ("note", "do"), ("pay", "do"), ("on_failure", "do")} == set(lines)
    assert stand.wire.compensations == []
    for command in (
        handle.cancel(),
        stand.client.operator.pause(handle.id),
        stand.client.operator.retry_step(handle.id, "pay"),
        stand.client.operator.resolve_step(handle.id, "pay", Resolution.SKIPPED, reason="x"),
    ):
        with pytest.raises(SagaAlreadyEnded):
            await command
    assert (await stand.client.operator.terminate(handle.id, reason="again", actor="bob")).terminated.actor == "ann"


async def test_accepted_step_of_a_terminated_saga_is_told_that_it_is_not_wanted(stand: Stand) -> None:  # R24
    handle = await stand.start(with_question())
    await until(handle, "step_accepted")
    token = await stand.wire.token("desk.ask")
    await stand.client.operator.terminate(handle.id, reason="enough", actor="ann")
    assert (await stand.client.heartbeat(token)).is_cancelled
    with pytest.raises(StepNotWaitingError):
        await stand.client.complete_step(token, StringValue(value="yes"))
    assert (await facts(stand.client, handle))[-1] == "late_outcome"


# ── Hooks ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_outcome_is_told_at_once_and_the_hook_comes_when_its_participant_is_back(stand: Stand) -> None:  # R16
    stand.wire.on_execute["desk.tell"] = lose_until(there := asyncio.Event())
    handle = await stand.start(of_every_kind())
    saga = await handle.wait(timeout=TIME_LIMIT)
    assert (saga.status, saga.hook.status, saga.HasField("ended_at")) == (COMPLETED, saga_pb2.STEP_STATUS_EXECUTING, True)
    await until(handle, "attempt_failed", step_id="on_success", count=2)
    with pytest.raises(SagaAlreadyEnded):
        await handle.cancel()
    there.set()
    saga = await until_over(handle)
    assert saga.hook.status == saga_pb2.STEP_STATUS_SUCCEEDED
    check_books(saga, await stand.lines(handle))


async def test_hook_that_is_refused_is_an_incident_that_changes_no_outcome(stand: Stand) -> None:  # R11, R16
    handle = await stand.start(of_every_kind(), "silent")
    await until(handle, "incident_opened")
    saga = await handle.get()
    assert (saga.status, open_incidents(saga)) == (COMPLETED, [("HOOK_FAILED", "on_success")])
    await stand.client.operator.retry_step(handle.id, "on_success", message=StringValue(value="aloud"), reason="r", actor="ann")
    saga = await until_over(handle)
    assert (saga.status, open_incidents(saga), saga.hook.round) == (COMPLETED, [], 2)
    check_books(saga, await stand.lines(handle))


async def test_hook_may_be_left_out_by_a_person(stand: Stand) -> None:  # R16
    handle = await stand.start(of_every_kind(), "broke silent")
    await until(handle, "incident_opened")
    with pytest.raises(NotNow):
        await stand.client.operator.resolve_step(handle.id, "on_failure", Resolution.REJECTED, reason="x")
    await stand.client.operator.resolve_step(handle.id, "on_failure", Resolution.SKIPPED, reason="by mail", actor="ann")
    saga = await until_over(handle)
    assert (saga.status, open_incidents(saga), saga.hook.status) == (COMPENSATED, [], saga_pb2.STEP_STATUS_SKIPPED)
    assert ("on_failure", "do") not in await stand.lines(handle)


# ── Whose time it is ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_caller_that_waits_no_longer_turns_the_saga_back_if_it_said_so(stand: Stand) -> None:  # H5
    held = Held()
    stand.wire.on_execute["desk.take"] = held
    await stand.client.register(with_question())
    handle = await stand.client.start(with_question(), StringValue(value="x"), timeout=timedelta(seconds=1), inherit_deadline=True)
    saga = await handle.get()
    left_s = saga.deadline.ToDatetime() - saga.created_at.ToDatetime()
    assert timedelta() < left_s <= timedelta(seconds=1) * ROUNDED_UP
    await held.held.wait()
    await until(handle, "saga_turned_back")
    held.open.set()
    ended = await until_over(handle)
    assert (ended.status, ended.cause) == (COMPENSATED, saga_pb2.TURN_BACK_CAUSE_TIME_LIMIT)
    assert await stand.lines(handle) == [("first", "do"), ("first", "undo")]


async def test_earlier_one_of_both_limits_holds(running: Running, stand: Stand) -> None:  # H5
    await stand.client.register(with_question())
    request = coordinator_pb2.StartSagaRequest(inherit_deadline=True)
    request.definition.name = "with-question"
    request.input.Pack(StringValue(value="x"))
    request.time_limit.FromSeconds(5)
    saga = (await running.stub.StartSaga(request, timeout=60)).saga
    assert (saga.deadline.ToDatetime() - saga.created_at.ToDatetime()) == timedelta(seconds=5)
    request.time_limit.FromSeconds(3600)
    saga = (await running.stub.StartSaga(request, timeout=60)).saga
    assert (saga.deadline.ToDatetime() - saga.created_at.ToDatetime()) <= timedelta(seconds=60) * ROUNDED_UP
    request.ClearField("time_limit")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.stub.StartSaga(request)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_repairs_of_a_saga_that_stands_still_by_itself_are_refused_while_a_call_is_under_way(stand: Stand) -> None:  # R17
    held = Held()
    stand.wire.on_execute["desk.take"] = held
    handle = await stand.start(with_question())
    await held.held.wait()
    for command in (
        stand.client.operator.retry_step(handle.id, "first"),
        stand.client.operator.resolve_step(handle.id, "first", StringValue(value="x"), reason="x"),
        stand.client.operator.resolve_step(handle.id, "first", Resolution.SKIPPED, reason="x"),
    ):
        with pytest.raises(AttemptUnderWay):
            await command
    held.open.set()
    await until(handle, "step_accepted")
    with pytest.raises(AttemptUnderWay):
        await stand.client.operator.resolve_step(handle.id, "ask", Resolution.SKIPPED, reason="x")
    with pytest.raises(InvalidRequest):
        await stand.client.operator.terminate(handle.id, reason="")
    await handle.cancel()
    assert (await until_over(handle)).status == COMPENSATED
