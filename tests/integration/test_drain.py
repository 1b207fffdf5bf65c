"""SIGTERM: calls in flight finish, or are left to recovery. Nothing is lost."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from participant_sdk import SagaClient
from saga.v1 import participant_pb2, saga_pb2
from tests.integration.definitions import plain
from tests.participants import Context, PlainParticipant, register, serving, succeeded
from tests.processes import CoordinatorProcess, wait_until_draining

X = StringValue(value="x")


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[CoordinatorProcess]:
    with CoordinatorProcess(tmp_path, environment={"SAGA_DRAIN_TIME_LIMIT_S": "2"}) as process:
        yield process


async def test_call_in_flight_finishes_and_is_recorded(coordinator: CoordinatorProcess) -> None:  # C9
    participant = PlainParticipant()
    let_go = asyncio.Event()

    async def slow(request: participant_pb2.ExecuteRequest, context: Context) -> participant_pb2.ExecuteResponse:
        await let_go.wait()
        return succeeded("finished")

    participant.on_execute["plain.a"] = slow
    await coordinator.start()
    async with serving(participant) as target, SagaClient(coordinator.address) as client:
        await register(coordinator.address, target, "plain", "a", "b")
        await client.register(plain("s", "a", "b"))
        handle = await client.start("s", X)
        await participant.arrived["plain.a"].wait()
        ending = asyncio.create_task(asyncio.to_thread(coordinator.terminate))
        await wait_until_draining(coordinator.address)
        let_go.set()
        assert await ending == 0
        assert participant.executed("plain.b") == []  # nothing new is begun
        await coordinator.start()
        saga = await handle.wait(timeout=timedelta(seconds=30))
    assert saga.status == saga_pb2.SAGA_STATUS_COMPLETED
    assert len(participant.executed("plain.a")) == 1  # its answer was committed before the end


async def test_call_that_outlives_the_drain_is_left_to_recovery(coordinator: CoordinatorProcess) -> None:  # R29
    participant = PlainParticipant()
    hangs = True

    async def hang(request: participant_pb2.ExecuteRequest, context: Context) -> participant_pb2.ExecuteResponse:
        if hangs:
            await asyncio.Event().wait()
        return succeeded("at last")

    participant.on_execute["plain.a"] = hang
    await coordinator.start()
    async with serving(participant) as target, SagaClient(coordinator.address) as client:
        await register(coordinator.address, target, "plain", "a")
        await client.register(plain("s", "a", attempt_timeout=timedelta(seconds=60)))
        handle = await client.start("s", X)
        await participant.arrived["plain.a"].wait()
        assert await asyncio.to_thread(coordinator.terminate) == 0
        hangs = False
        await coordinator.start()
        saga = await handle.wait(timeout=timedelta(seconds=30))
    assert saga.status == saga_pb2.SAGA_STATUS_COMPLETED
    first, second = participant.executed("plain.a")
    assert first.key == second.key  # R1
    assert (first.attempt, second.attempt) == (1, 2)


async def test_watch_and_wait_survive_a_restart(coordinator: CoordinatorProcess) -> None:  # H2
    participant = PlainParticipant()
    let_go = asyncio.Event()

    async def slow(request: participant_pb2.ExecuteRequest, context: Context) -> participant_pb2.ExecuteResponse:
        await let_go.wait()
        return succeeded("finished")

    participant.on_execute["plain.b"] = slow
    await coordinator.start()
    async with serving(participant) as target, SagaClient(coordinator.address) as client:
        await register(coordinator.address, target, "plain", "a", "b")
        await client.register(plain("s", "a", "b"))
        running = asyncio.create_task(client.run("s", X))
        await participant.arrived["plain.b"].wait()
        (listed,) = [saga async for saga in client.list()]
        seen: list[int] = []

        async def watch() -> None:
            async for response in client.watch(listed.id):
                seen.append(response.event.sequence)

        watching = asyncio.create_task(watch())
        coordinator.kill()
        let_go.set()
        await coordinator.start()
        saga = await running
        await watching
    assert saga.status == saga_pb2.SAGA_STATUS_COMPLETED
    assert seen == list(range(1, saga.sequence + 1))  # no gap, nothing twice
