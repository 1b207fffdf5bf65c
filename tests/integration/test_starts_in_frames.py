"""Many starts on one stream mean what they mean by themselves."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from participant_sdk import AlreadyExists, DefinitionNotFound, InvalidRequest, SagaClient, SagaNotCompleted
from participant_sdk.ids import new_saga_id
from saga.v1 import coordinator_pb2, participant_pb2, saga_pb2
from tests.integration.conftest import Running
from tests.integration.definitions import plain
from tests.participants import Context, Gate, PlainParticipant, register, serving
from tests.processes import CoordinatorProcess

X = StringValue(value="x")
WAIT_S = 20.0


@pytest.fixture
async def client(running: Running) -> AsyncIterator[SagaClient]:
    async with SagaClient(running.address, start_in_frames=True) as client:
        yield client


@pytest.fixture
async def participant(running: Running) -> AsyncIterator[PlainParticipant]:
    participant = PlainParticipant()
    async with serving(participant) as target:
        await register(running.address, target, "plain", "a", "b")
        await running.client.register(plain("s", "a", "b"))
        yield participant


async def eventually(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not is_so():
            await asyncio.sleep(0.01)


async def frame(
    stream: "grpc.aio.StreamStreamCall[coordinator_pb2.StartSagasRequest, coordinator_pb2.StartSagasResponse]",
) -> Sequence[coordinator_pb2.StartReply]:
    response = await stream.read()
    assert isinstance(response, coordinator_pb2.StartSagasResponse)
    return response.replies


async def test_each_is_answered_when_it_is_committed_or_has_ended(client: SagaClient, participant: PlainParticipant) -> None:  # H4
    gate = Gate()
    participant.on_execute["plain.b"] = gate
    handles = await asyncio.gather(*(client.start("s", X) for _ in range(20)))  # answered before anything can end
    assert len({handle.id for handle in handles}) == 20
    assert all(handle.is_new for handle in handles)
    running = [asyncio.ensure_future(client.run("s", X)) for _ in range(20)]
    await eventually(lambda: len(participant.executed("plain.b")) == 40)
    assert not any(run.done() for run in running)
    gate.open.set()
    assert {saga.status for saga in await asyncio.gather(*running)} == {saga_pb2.SAGA_STATUS_COMPLETED}


async def test_what_was_there_first_is_answered_too(client: SagaClient, participant: PlainParticipant) -> None:  # H1
    first = await client.start("s", X, key="order-1")
    again, other = await asyncio.gather(
        client.start("s", X, key="order-1"), client.start("s", StringValue(value="y"), key="order-1"), return_exceptions=True
    )
    assert not isinstance(again, BaseException)
    assert (again.id, again.is_new) == (first.id, False)
    assert isinstance(other, AlreadyExists)
    finished = await client.run("s", X, key="order-1")
    assert (finished.id, finished.status) == (first.id, saga_pb2.SAGA_STATUS_COMPLETED)


async def test_what_is_refused_harms_no_other(client: SagaClient, participant: PlainParticipant) -> None:
    good, unknown, wrong = await asyncio.gather(
        client.run("s", X), client.run("nobody-knows", X), client.run("s", Int32Value(value=1)), return_exceptions=True
    )
    assert isinstance(good, saga_pb2.Saga)
    assert isinstance(unknown, DefinitionNotFound)
    assert isinstance(wrong, InvalidRequest)
    assert wrong.reason == "INPUT_TYPE_MISMATCH"


async def test_saga_that_was_undone_is_told_in_full(client: SagaClient, participant: PlainParticipant) -> None:
    async def refuse(request: participant_pb2.ExecuteRequest, context: Context) -> participant_pb2.ExecuteResponse:
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not today")
        raise AssertionError

    participant.on_execute["plain.b"] = refuse
    with pytest.raises(SagaNotCompleted) as ended:
        await client.run("s", X)
    assert ended.value.saga.status == saga_pb2.SAGA_STATUS_COMPENSATED
    assert [step.id for step in ended.value.saga.steps] == ["a", "b"]


async def test_completed_saga_comes_without_what_nobody_asked_for(client: SagaClient, participant: PlainParticipant) -> None:
    saga = await client.run("s", X)
    assert (len(saga.steps), saga.HasField("input")) == (0, False)
    whole = await client.get(saga.id)
    assert (len(whole.steps), whole.HasField("input")) == (2, True)


async def test_caller_that_goes_away_is_not_waited_for_and_its_saga_goes_on(client: SagaClient, participant: PlainParticipant) -> None:
    gate = Gate()
    participant.on_execute["plain.a"] = gate
    saga_id = new_saga_id()
    going = asyncio.ensure_future(client.run("s", X, saga_id=saga_id))
    await participant.arrived["plain.a"].wait()
    going.cancel()
    assert (await asyncio.gather(going, return_exceptions=True))[0].__class__ is asyncio.CancelledError
    gate.open.set()
    assert (await client.wait(saga_id)).status == saga_pb2.SAGA_STATUS_COMPLETED


async def test_time_left_bounds_the_saga_if_asked(client: SagaClient, participant: PlainParticipant) -> None:  # H5
    participant.on_execute["plain.a"] = Gate()
    handle = await client.start("s", X, timeout=timedelta(seconds=7), inherit_deadline=True)
    saga = await handle.get()
    assert saga.deadline.ToMicroseconds() - saga.created_at.ToMicroseconds() == pytest.approx(7_000_000, abs=500_000)


async def test_rubbish_on_the_stream_is_refused_and_the_stream_goes_on(running: Running, participant: PlainParticipant) -> None:
    start = coordinator_pb2.StartSagaRequest(saga_id=new_saga_id(), definition=saga_pb2.DefinitionReference(name="s"), wait=True)
    start.input.Pack(X)
    gate = Gate()
    participant.on_execute["plain.a"] = gate
    stream = running.stub.StartSagas()
    calls = [coordinator_pb2.StartCall(id=1, start=start), coordinator_pb2.StartCall(id=1, start=start), coordinator_pb2.StartCall(id=2)]
    calls.append(coordinator_pb2.StartCall(id=3, start=start, time_left=Duration(seconds=1, nanos=-1)))
    await stream.write(coordinator_pb2.StartSagasRequest(calls=calls, forsaken=[99]))
    replies: dict[int, list[coordinator_pb2.StartReply]] = {1: [], 2: [], 3: []}
    async with asyncio.timeout(WAIT_S):
        while not all(replies.values()):
            for reply in await frame(stream):
                replies[reply.id].append(reply)
        assert {each.status.code for told in replies.values() for each in told} == {grpc.StatusCode.INVALID_ARGUMENT.value[0]}
        gate.open.set()
        (answer,) = await frame(stream)
        assert answer.started.saga.status == saga_pb2.SAGA_STATUS_COMPLETED
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF


async def test_stream_that_is_cut_off_leaves_sagas_that_go_on(running: Running, participant: PlainParticipant) -> None:
    gate = Gate()
    participant.on_execute["plain.a"] = gate
    start = coordinator_pb2.StartSagaRequest(saga_id=new_saga_id(), definition=saga_pb2.DefinitionReference(name="s"), wait=True)
    start.input.Pack(X)
    stream = running.stub.StartSagas()
    await stream.write(coordinator_pb2.StartSagasRequest(calls=[coordinator_pb2.StartCall(id=1, start=start)]))
    await participant.arrived["plain.a"].wait()
    stream.cancel()
    gate.open.set()
    assert (await running.client.wait(start.saga_id)).status == saga_pb2.SAGA_STATUS_COMPLETED


async def test_starts_survive_kills_and_graceful_stops(tmp_path: Path) -> None:  # P1, R2
    participant = PlainParticipant()
    with CoordinatorProcess(tmp_path) as coordinator:
        await coordinator.start()
        async with serving(participant) as target, SagaClient(coordinator.address, start_in_frames=True) as client:
            await register(coordinator.address, target, "plain", "a", "b")
            await client.register(plain("s", "a", "b"))
            ids = [new_saga_id() for _ in range(60)]
            running = [asyncio.ensure_future(client.run("s", X, saga_id=saga_id)) for saga_id in ids]
            await eventually(lambda: len(participant.executions) >= 20)
            coordinator.kill()
            await coordinator.start()
            await eventually(lambda: sum(run.done() for run in running) >= 5)
            running += [asyncio.ensure_future(client.run("s", X)) for _ in range(60)]
            assert await asyncio.to_thread(coordinator.terminate) == 0
            await coordinator.start()
            async with asyncio.timeout(60):
                sagas = await asyncio.gather(*running)
    assert {saga.status for saga in sagas} == {saga_pb2.SAGA_STATUS_COMPLETED}
    assert [saga.id for saga in sagas[:60]] == ids
