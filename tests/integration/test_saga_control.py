"""Starting, watching, waiting for, cancelling and listing sagas, through the client."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from participant_sdk import SagaNotCompleted
from saga.v1 import coordinator_pb2, participant_pb2, saga_pb2
from tests.integration.conftest import Running
from tests.integration.definitions import plain
from tests.participants import Context, Gate, PlainParticipant, register, serving, succeeded

X = StringValue(value="x")


async def test_watch_sees_every_event_once_and_ends_with_the_saga(running: Running) -> None:  # H2, R33
    async with serving(PlainParticipant()) as target:
        await register(running.address, target, "plain", "a", "b")
        await running.client.register(plain("s", "a", "b"))
        handle = await running.client.start("s", X)
        seen = [(response.event.sequence, response.event.WhichOneof("fact"), response.status) async for response in handle.watch()]
    running_, completed = saga_pb2.SAGA_STATUS_RUNNING, saga_pb2.SAGA_STATUS_COMPLETED
    assert seen == [
        (1, "saga_started", running_),
        (2, "step_succeeded", running_),
        (3, "step_succeeded", running_),
        (4, "saga_completed", completed),
    ]


async def test_watch_resumes_after_a_sequence(running: Running) -> None:  # H2, R33
    async with serving(PlainParticipant()) as target:
        await register(running.address, target, "plain", "a")
        await running.client.register(plain("s", "a"))
        saga = await running.client.run("s", X)
    request = coordinator_pb2.WatchSagaRequest(saga_id=saga.id, after_sequence=1)
    seen = [(response.event.sequence, response.status) async for response in running.stub.WatchSaga(request)]
    assert seen == [(2, saga_pb2.SAGA_STATUS_RUNNING), (3, saga_pb2.SAGA_STATUS_COMPLETED)]


async def test_history_is_paged(running: Running) -> None:
    async with serving(PlainParticipant()) as target:
        await register(running.address, target, "plain", "a", "b")
        await running.client.register(plain("s", "a", "b"))
        saga = await running.client.run("s", X)
    page = await running.stub.GetHistory(coordinator_pb2.GetHistoryRequest(saga_id=saga.id, page_size=3))
    assert ([event.sequence for event in page.events], page.more) == ([1, 2, 3], True)
    rest = await running.stub.GetHistory(coordinator_pb2.GetHistoryRequest(saga_id=saga.id, page_size=3, after_sequence=3))
    assert ([event.sequence for event in rest.events], rest.more) == ([4], False)


async def test_cancel_undoes_what_was_done(running: Running) -> None:  # B11
    participant, gate = PlainParticipant(), Gate()
    participant.on_execute["plain.b"] = gate
    async with serving(participant) as target:
        await register(running.address, target, "plain", "a", "b", "c")
        await running.client.register(plain("s", "a", "b", "c"))
        handle = await running.client.start("s", X)
        await participant.arrived["plain.b"].wait()
        answer = await handle.cancel(reason="changed my mind", actor="ada")
        assert answer.status == saga_pb2.SAGA_STATUS_COMPENSATING
        gate.open.set()  # the sibling in flight is awaited, then undone (R12)
        saga = await handle.wait(timeout=timedelta(seconds=20))
    assert (saga.status, saga.cause) == (saga_pb2.SAGA_STATUS_COMPENSATED, saga_pb2.TURN_BACK_CAUSE_CANCELLED)
    assert [request.step_id for request in participant.compensations] == ["b", "a"]
    assert participant.executed("plain.c") == []
    assert (await handle.cancel()).status == saga_pb2.SAGA_STATUS_COMPENSATED  # asked again: the same answer
    history = [event async for event in running.client.history(saga.id)]
    (turned_back,) = [event.saga_turned_back for event in history if event.HasField("saga_turned_back")]
    assert (turned_back.actor, turned_back.error.message) == ("ada", "changed my mind")


async def test_cancelled_pending_saga_ends_compensated_without_a_call(running: Running) -> None:  # R15
    participant = PlainParticipant()
    async with serving(participant) as target:
        await register(running.address, target, "plain", "a")
        await running.client.register(plain("s", "a"))
        handle = await running.client.start("s", X, start_at=datetime.now(UTC) + timedelta(hours=1))
        assert (await handle.get()).status == saga_pb2.SAGA_STATUS_PENDING
        await handle.cancel()
        saga = await handle.wait(timeout=timedelta(seconds=20))
    assert (saga.status, saga.cause) == (saga_pb2.SAGA_STATUS_COMPENSATED, saga_pb2.TURN_BACK_CAUSE_CANCELLED)
    assert participant.executions == []


async def test_saga_time_limit_turns_it_back(running: Running) -> None:  # B7
    participant, gate = PlainParticipant(), Gate()
    participant.on_execute["plain.b"] = gate
    async with serving(participant) as target:
        await register(running.address, target, "plain", "a", "b")
        await running.client.register(plain("s", "a", "b"))
        handle = await running.client.start("s", X, time_limit=timedelta(milliseconds=300))
        saga = await handle.wait(timeout=timedelta(seconds=20))
        gate.open.set()
    assert (saga.status, saga.cause) == (saga_pb2.SAGA_STATUS_COMPENSATED, saga_pb2.TURN_BACK_CAUSE_TIME_LIMIT)
    assert [request.step_id for request in participant.compensations] == ["b", "a"]


async def test_result_of_a_saga_that_did_not_complete_is_never_a_success(running: Running) -> None:
    participant = PlainParticipant()

    async def reject(request: participant_pb2.ExecuteRequest, context: Context) -> participant_pb2.ExecuteResponse:
        return participant_pb2.ExecuteResponse(rejected=participant_pb2.Rejected())

    participant.on_execute["plain.a"] = reject
    async with serving(participant) as target:
        await register(running.address, target, "plain", "a")
        await running.client.register(plain("s", "a"))
        handle = await running.client.start("s", X)
        with pytest.raises(SagaNotCompleted) as caught:
            await handle.result(timeout=timedelta(seconds=20))
    assert caught.value.status == saga_pb2.SAGA_STATUS_COMPENSATED
    assert caught.value.failed_step == "a"


async def test_output_of_a_saga_is_typed(running: Running) -> None:
    saga = plain("s")
    saga.returns(saga.step("plain.a", request=StringValue, response=StringValue))
    async with serving(PlainParticipant()) as target:
        await register(running.address, target, "plain", "a")
        await running.client.register(saga)
        handle = await running.client.start(saga, X)
        assert await handle.result(StringValue, timeout=timedelta(seconds=20)) == StringValue(value="a done")


async def test_parallel_steps_run_together_and_are_undone_after_their_successor(running: Running) -> None:  # B1, B2, R14
    participant = PlainParticipant()
    meeting = asyncio.Barrier(2)

    async def meet(request: participant_pb2.ExecuteRequest, context: Context) -> participant_pb2.ExecuteResponse:
        async with asyncio.timeout(10):
            await meeting.wait()  # passes only if both are under way at once
        return succeeded(request.step_id)

    async def reject(request: participant_pb2.ExecuteRequest, context: Context) -> participant_pb2.ExecuteResponse:
        return participant_pb2.ExecuteResponse(rejected=participant_pb2.Rejected())

    participant.on_execute.update({"plain.left": meet, "plain.right": meet, "plain.last": reject})
    saga = plain("s", "top")
    left = saga.step("plain.left", request=StringValue, response=StringValue)
    right = saga.step("plain.right", request=StringValue, response=StringValue, after=[])
    join = saga.step("plain.join", left, request=StringValue, response=StringValue, after=[left, right])
    saga.step("plain.last", request=StringValue, response=StringValue, after=[join])
    async with serving(participant) as target:
        await register(running.address, target, "plain", "top", "left", "right", "join", "last")
        await running.client.register(saga)
        ended = await (await running.client.start("s", X)).wait(timeout=timedelta(seconds=20))
    assert ended.status == saga_pb2.SAGA_STATUS_COMPENSATED
    undone = [request.step_id for request in participant.compensations]
    assert undone[0] == "join"
    assert set(undone[1:]) == {"left", "right", "top"}
    assert undone.index("left") < undone.index("top")
    assert StringValue.FromString(participant.executed("plain.join")[0].input.value).value == "left"


async def test_sagas_are_listed_by_status_definition_label_and_time(running: Running) -> None:  # E3
    async with serving(PlainParticipant()) as target:
        await register(running.address, target, "plain", "a")
        await running.client.register(plain("one", "a"))
        await running.client.register(plain("two", "a"))
        before = datetime.now(UTC)
        first = await running.client.run("one", X, labels={"team": "red"})
        second = await running.client.run("two", X, labels={"team": "red", "vip": "yes"})
        third = await running.client.start("two", X, start_at=datetime.now(UTC) + timedelta(hours=1))

    async def listed(**filters: object) -> list[str]:
        return [saga.id async for saga in running.client.list(**filters)]  # type: ignore[arg-type] # filters vary by row

    assert await listed() == [third.id, second.id, first.id]
    assert await listed(definition="two") == [third.id, second.id]
    assert await listed(labels={"team": "red"}) == [second.id, first.id]
    assert await listed(labels={"team": "red", "vip": "yes"}) == [second.id]
    assert await listed(statuses=[saga_pb2.SAGA_STATUS_PENDING]) == [third.id]
    assert await listed(created_before=before) == []
    assert await listed(created_from=before, definition="one") == [first.id]


async def test_saga_that_is_larger_than_a_message_can_still_be_read(running: Running) -> None:  # D6
    participant = PlainParticipant()

    async def large(request: participant_pb2.ExecuteRequest, context: Context) -> participant_pb2.ExecuteResponse:
        return succeeded("x" * 1_000_000)

    actions = [f"a{number}" for number in range(6)]
    participant.on_execute.update({f"plain.{action}": large for action in actions})
    async with serving(participant) as target:
        await register(running.address, target, "plain", *actions)
        await running.client.register(plain("s", *actions))
        saga = await running.client.wait((await running.client.start("s", X)).id)
    assert (saga.status, saga.payloads_omitted) == (saga_pb2.SAGA_STATUS_COMPLETED, True)
    outputs = [event.step_succeeded.output async for event in running.client.history(saga.id) if event.HasField("step_succeeded")]
    assert [len(StringValue.FromString(output.value).value) for output in outputs] == [1_000_000] * 6


async def test_saga_that_outgrows_its_limit_turns_back(running: Running) -> None:  # D6
    participant = PlainParticipant()

    async def large(request: participant_pb2.ExecuteRequest, context: Context) -> participant_pb2.ExecuteResponse:
        return succeeded("x" * 1_000_000)

    actions = [f"a{number}" for number in range(9)]
    participant.on_execute.update({f"plain.{action}": large for action in actions})
    async with serving(participant) as target:
        await register(running.address, target, "plain", *actions)
        await running.client.register(plain("s", *actions))
        saga = await (await running.client.start("s", X)).wait(timeout=timedelta(seconds=20))
    assert (saga.status, saga.cause) == (saga_pb2.SAGA_STATUS_COMPENSATED, saga_pb2.TURN_BACK_CAUSE_PAYLOAD_LIMIT)
    assert len(participant.compensations) == 9
