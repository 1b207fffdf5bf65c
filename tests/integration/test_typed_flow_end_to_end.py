"""Expressions that fail at run time, large messages, and types that change, with a real coordinator and the books of its participant."""

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.wrappers_pb2 import Int64Value, StringValue

from participant_sdk import InvalidRequest, Saga, SagaHandle, StepKind, output_of
from participant_sdk.client import NotNow, Resolution
from saga.v1 import coordinator_pb2, operator_pb2, participant_pb2, saga_pb2
from tests.integration.conftest import Running
from tests.integration.definitions import QUICK
from tests.integration.desk import (
    TIME_LIMIT,
    Desk,
    Held,
    Stand,
    check_books,
    open_incidents,
    open_stand,
    saga_of,
    step_of,
    until_over,
)
from tests.integration.following import statuses, until

COMPLETED, COMPENSATED, FAILED = saga_pb2.SAGA_STATUS_COMPLETED, saga_pb2.SAGA_STATUS_COMPENSATED, saga_pb2.SAGA_STATUS_FAILED
RECIPROCAL = "google.protobuf.StringValue{value: string(1 / int(input))}"
"""Cannot be evaluated for "0", nor for what is no number."""
DOUBLED = "google.protobuf.StringValue{value: input + input}"
PAYLOAD_BYTES_MAX = 1024 * 1024
FRAME_BYTES = 4
"""Of a StringValue, besides its text, when that has some hundred thousand bytes."""
LARGEST = "x" * (PAYLOAD_BYTES_MAX - FRAME_BYTES)


@pytest.fixture
async def stand(running: Running, tmp_path: Path) -> AsyncIterator[Stand]:
    async with open_stand(tmp_path, running.address) as stand:
        yield stand


def sold(name: str, *, pay: str = "", ship: str = "", ship_when: str = "", output: str = "", hook: str = "") -> Saga[StringValue]:
    """take, the pivot pay, the retriable ship, and a hook; what is not given is the input."""
    saga = saga_of(name)
    saga.step(Desk.take, execute_retry=QUICK, compensate_retry=QUICK)
    saga.step(Desk.pay, pay or saga.input, kind=StepKind.PIVOT, execute_retry=QUICK)
    if ship_when:
        saga.step(Desk.ship, ship or saga.input, kind=StepKind.RETRIABLE, when=ship_when, execute_retry=QUICK)
    else:
        saga.step(Desk.ship, ship or saga.input, kind=StepKind.RETRIABLE, execute_retry=QUICK)
    if output:
        saga.returns(output, StringValue)
    saga.on_success(Desk.tell, hook or saga.input, execute_retry=QUICK)
    saga.on_failure(Desk.tell, "google.protobuf.StringValue{value: error.message}", execute_retry=QUICK)
    return saga


def texts(stand: Stand, action: str) -> list[str]:
    """What an action was called with."""
    return [StringValue.FromString(request.input.value).value for request in stand.wire.executed(action)]


# ── Expressions that fail ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_expression_that_fails_before_the_point_of_no_return_turns_back(stand: Stand) -> None:
    handle = await stand.start(sold("before", pay=RECIPROCAL), "0")
    saga = await until_over(handle)
    assert (saga.status, saga.cause, saga.failed_step_id) == (COMPENSATED, saga_pb2.TURN_BACK_CAUSE_EXPRESSION_FAILED, "pay")
    assert all(part in saga.error.message for part in ("1 / int(input)", "divi"))
    assert (statuses(saga)["pay"], step_of(saga, "pay").execute_attempts) == ("REJECTED", 0)
    assert stand.wire.executed("desk.pay") == []
    check_books(saga, await stand.lines(handle))
    (told,) = texts(stand, "desk.tell")
    assert "1 / int(input)" in told


async def stuck_at_ship(stand: Stand, saga: Saga[StringValue]) -> SagaHandle:
    handle = await stand.start(saga, "0")
    failed = await handle.wait(timeout=TIME_LIMIT)
    assert (failed.status, open_incidents(failed)) == (FAILED, [("EXPRESSION_FAILED", "ship")])
    assert "1 / int(input)" in failed.incidents[0].error.message
    return handle


@pytest.mark.parametrize("where", ["input", "when"])
async def test_expression_that_fails_behind_it_asks_for_an_input_of_the_right_type(stand: Stand, where: str) -> None:  # R1, R11
    definition = sold(where, ship=RECIPROCAL) if where == "input" else sold(where, ship_when="1 / int(input) > 0")
    handle = await stuck_at_ship(stand, definition)
    operator = stand.client.operator
    with pytest.raises(NotNow) as again:
        await operator.retry_step(handle.id, "ship", reason="again")
    assert again.value.reason == "STEP_STATUS"
    with pytest.raises(InvalidRequest) as wrong:
        await operator.retry_step(handle.id, "ship", message=Int64Value(value=1), reason="a number")
    assert wrong.value.status is not None
    assert wrong.value.status.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert "StringValue" in str(wrong.value)
    assert "Int64Value" in str(wrong.value)
    assert open_incidents(await handle.get()) == [("EXPRESSION_FAILED", "ship")]
    await operator.retry_step(handle.id, "ship", message=StringValue(value="by hand"), reason="a text", actor="ann")
    saga = await until_over(handle)
    assert (saga.status, open_incidents(saga), texts(stand, "desk.ship")) == (COMPLETED, [], ["by hand"])
    check_books(saga, await stand.lines(handle))


async def test_step_whose_expression_failed_may_be_left_out_or_said_to_have_succeeded(stand: Stand) -> None:  # R17
    skipped = await stuck_at_ship(stand, sold("skipped", ship=RECIPROCAL))
    await stand.client.operator.resolve_step(skipped.id, "ship", Resolution.SKIPPED, reason="fetched", actor="ann")
    said = await stuck_at_ship(stand, sold("said", ship=RECIPROCAL, output="ship"))
    with pytest.raises(InvalidRequest):
        await stand.client.operator.resolve_step(said.id, "ship", Int64Value(value=1), reason="wrong type")
    await stand.client.operator.resolve_step(said.id, "ship", StringValue(value="S-1"), reason="by hand", actor="ann")
    first, second = await until_over(skipped), await until_over(said)
    assert (first.status, second.status, output_of(second, StringValue).value) == (COMPLETED, COMPLETED, "S-1")
    assert stand.wire.executed("desk.ship") == []


async def test_output_that_cannot_be_evaluated_is_said_by_a_person(stand: Stand) -> None:  # R11
    handle = await stand.start(sold("no-output", output=RECIPROCAL, hook="output"), "0")
    failed = await handle.wait(timeout=TIME_LIMIT)
    assert (failed.status, open_incidents(failed)) == (FAILED, [("EXPRESSION_FAILED", "")])
    assert "ResolveOutput" in (await stand.client.operator.explain(handle.id)).choices
    assert stand.wire.executed("desk.tell") == [], "it has not ended"
    with pytest.raises(InvalidRequest):
        await stand.client.operator.resolve_output(handle.id, Int64Value(value=1), reason="a number")
    await stand.client.operator.resolve_output(handle.id, StringValue(value="infinite"), reason="limit", actor="ann")
    saga = await until_over(handle)
    assert (saga.status, output_of(saga, StringValue).value, open_incidents(saga)) == (COMPLETED, "infinite", [])
    assert texts(stand, "desk.tell") == ["infinite"]
    check_books(saga, await stand.lines(handle))


async def test_hook_whose_expression_fails_waits_for_an_input_and_changes_no_outcome(stand: Stand) -> None:  # R16
    handle = await stand.start(sold("no-hook", hook=RECIPROCAL), "0")
    await until(handle, "incident_opened")
    saga = await handle.get()
    assert (saga.status, open_incidents(saga)) == (COMPLETED, [("HOOK_FAILED", "on_success")])
    assert "1 / int(input)" in saga.incidents[0].error.message
    await stand.client.operator.retry_step(handle.id, "on_success", message=StringValue(value="told"), reason="r", actor="ann")
    saga = await until_over(handle)
    assert open_incidents(saga) == []
    check_books(saga, await stand.lines(handle))


async def test_best_effort_step_whose_expression_fails_is_gone_without(stand: Stand) -> None:  # R9, R14
    saga = saga_of("noted")
    saga.step(Desk.take, execute_retry=QUICK, compensate_retry=QUICK)
    noted = saga.step(Desk.note, RECIPROCAL, kind=StepKind.BEST_EFFORT, execute_retry=QUICK, compensate_retry=QUICK)
    saga.step(Desk.pay, 'google.protobuf.StringValue{value: ran.note ? "noted" : "not noted"}', kind=StepKind.PIVOT, after=[noted])
    ends = [await until_over(await stand.start(saga, value)) for value in ("0", "1")]
    assert [(each.status, statuses(each)["note"]) for each in ends] == [(COMPLETED, "REJECTED"), (COMPLETED, "SUCCEEDED")]
    assert texts(stand, "desk.pay") == ["not noted", "noted"]


# ── Sizes ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_input_of_just_the_allowed_size_is_taken_and_one_byte_more_is_refused(stand: Stand) -> None:  # D6
    saga = await until_over(await stand.start(sold("large"), LARGEST))
    assert saga.status == COMPLETED
    assert [len(text) for text in texts(stand, "desk.ship")] == [len(LARGEST)]
    with pytest.raises(InvalidRequest) as caught:
        await stand.start(sold("large"), LARGEST + "x")
    assert caught.value.reason == "PAYLOAD_TOO_LARGE"


@pytest.mark.parametrize("where", ["pay", "ship"])
async def test_expression_whose_result_is_too_large_fails_like_any_other(stand: Stand, where: str) -> None:  # D6, R11
    definition = sold("doubled-pay", pay=DOUBLED) if where == "pay" else sold("doubled-ship", ship=DOUBLED)
    fits, too_large = LARGEST[: (len(LARGEST)) // 2], LARGEST[: len(LARGEST) // 2 + 1]
    assert (await until_over(await stand.start(definition, fits))).status == COMPLETED
    handle = await stand.start(definition, too_large)
    saga = await handle.wait(timeout=TIME_LIMIT)
    if where == "pay":
        await until_over(handle)
        assert (saga.status, saga.cause) == (COMPENSATED, saga_pb2.TURN_BACK_CAUSE_EXPRESSION_FAILED)
        assert str(PAYLOAD_BYTES_MAX) in saga.error.message
    else:
        assert (saga.status, open_incidents(saga)) == (FAILED, [("EXPRESSION_FAILED", "ship")])
        assert str(PAYLOAD_BYTES_MAX) in saga.incidents[0].error.message
        await stand.client.operator.retry_step(handle.id, "ship", message=StringValue(value="small"), reason="r", actor="ann")
        assert (await until_over(handle)).status == COMPLETED
    assert len(stand.wire.executed(f"desk.{where}")) == (1 if where == "pay" else 2)
    check_books(await handle.get(), await stand.lines(handle))


async def test_input_that_a_person_gives_is_bounded_too(stand: Stand) -> None:  # D6
    handle = await stuck_at_ship(stand, sold("bounded", ship=RECIPROCAL))
    with pytest.raises(InvalidRequest) as caught:
        await stand.client.operator.retry_step(handle.id, "ship", message=StringValue(value=LARGEST + "x"), reason="r")
    assert caught.value.reason == "PAYLOAD_TOO_LARGE"
    await stand.client.operator.retry_step(handle.id, "ship", message=StringValue(value=LARGEST), reason="r")
    assert (await until_over(handle)).status == COMPLETED


async def test_definition_with_many_expressions_is_registered_and_runs(stand: Stand) -> None:
    saga, count = saga_of("many"), 61
    first = saga.step(Desk.take, id="s0", execute_retry=QUICK, compensate_retry=QUICK)
    steps = [first]
    for number in range(1, count):
        text = f'google.protobuf.StringValue{{value: "{number}:" + string([1, 2, 3].map(n, n * {number})[2]) + ":" + s0}}'
        steps.append(
            saga.step(
                Desk.take,
                text if number % 3 else f'google.protobuf.StringValue{{value: "{number} " + s0}}',
                id=f"s{number}",
                after=[first],
                when=f"size(s0) > 0 && {number} % 2 == 1",
                execute_retry=QUICK,
                compensate_retry=QUICK,
            )
        )
    rows = [" + ".join(f'(ran.s{number} ? "1" : "0")' for number in range(row, row + 10)) for row in range(1, count, 10)]
    saga.returns(f"google.protobuf.StringValue{{value: {' + '.join(f'({row})' for row in rows)}}}", StringValue)
    ended = await until_over(await stand.start(saga, "y"))
    assert (ended.status, output_of(ended, StringValue).value) == (COMPLETED, ("10" * count)[: count - 1])
    check_books(ended, await stand.desk.lines(ended.id))


# ── Types that change while a saga runs ──────────────────────────────────────────────────────────────────────────────────────────────


async def release(running: Running, stand: Stand, *, number_for: str = "") -> None:
    """The participant registers again; one of its actions takes a number now."""
    described = (await stand.wire.Describe(participant_pb2.DescribeRequest(), None)).description  # type: ignore[arg-type] # not looked at
    for action in described.actions:
        if action.name == number_for:
            action.input_type = "google.protobuf.Int64Value"
    request = coordinator_pb2.RegisterParticipantRequest(target=stand.target, description=described)
    request.ttl.FromSeconds(3600)
    await running.stub.RegisterParticipant(request)


@pytest.mark.parametrize("is_behind", [False, True])
async def test_release_with_other_types_is_an_incident_and_is_not_called(running: Running, stand: Stand, is_behind: bool) -> None:
    action, before = ("ship", "pay") if is_behind else ("pay", "take")
    held = Held()
    stand.wire.on_execute[f"desk.{before}"] = held
    handle = await stand.start(sold("typed"))
    await held.held.wait()
    await release(running, stand, number_for=action)
    held.open.set()
    failed = await handle.wait(timeout=TIME_LIMIT)
    assert (failed.status, open_incidents(failed)) == (FAILED, [("TYPE_MISMATCH", action)])
    explained = await stand.client.operator.explain(handle.id)
    assert explained.waits[0].reason == operator_pb2.WAIT_REASON_INCIDENT
    await stand.client.operator.retry_step(handle.id, action, reason="still the wrong release")
    await until(handle, "incident_opened", count=2)
    assert stand.wire.executed(f"desk.{action}") == [], "not called, neither once nor in a loop"
    events = [event.WhichOneof("fact") async for event in stand.client.history(handle.id)]
    assert len(events) < 20
    if is_behind:
        await release(running, stand)
        await stand.client.operator.retry_step(handle.id, action, reason="the right release", actor="ann")
        expected = COMPLETED
    else:
        await handle.cancel(actor="ada")
        expected = COMPENSATED
    saga = await until_over(handle)
    assert (saga.status, open_incidents(saga)) == (expected, [])
    check_books(saga, await stand.lines(handle))


async def test_undo_of_an_action_that_takes_other_types_now_is_asked_for_and_not_sent(running: Running, stand: Stand) -> None:  # R15
    held = Held()
    stand.wire.on_execute["desk.take"] = held
    handle = await stand.start(sold("undone"))
    await held.held.wait()
    await release(running, stand, number_for="take")
    await handle.cancel(actor="ada")
    held.open.set()
    failed = await handle.wait(timeout=TIME_LIMIT)
    assert (failed.status, open_incidents(failed)) == (FAILED, [("TYPE_MISMATCH", "take")])
    assert stand.wire.compensations == []
    await release(running, stand)
    await stand.client.operator.retry_step(handle.id, "take", reason="the right release", actor="ann")
    saga = await until_over(handle)
    assert (saga.status, open_incidents(saga)) == (COMPENSATED, [])
    check_books(saga, await stand.lines(handle))
