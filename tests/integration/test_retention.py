"""A coordinator forgets sagas that ended long ago, by itself."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from participant_sdk import ParticipantServer, SagaClient
from participant_sdk.client import SagaNotFound
from saga.v1 import saga_pb2
from tests.integration.definitions import three_steps
from tests.participants import bookkeeper
from tests.processes import CoordinatorProcess

A_MINUTE = timedelta(minutes=1)
A_MONTH_LATER = {"CLOCK_SHIFT_S": str(31 * 86_400)}


async def test_saga_that_ended_a_month_ago_is_forgotten_and_what_waits_is_not(tmp_path: Path) -> None:
    with CoordinatorProcess(tmp_path, module="tests.crashing_coordinator") as coordinator:
        await coordinator.start()
        async with bookkeeper(tmp_path) as keeper, SagaClient(coordinator.address) as client:
            async with ParticipantServer(keeper, coordinator=coordinator.address):
                await client.register(three_steps())
                old = await client.start("three-steps", StringValue(value="go"), key="order 1")
                await old.wait(timeout=A_MINUTE)
                waits = await client.start("three-steps", StringValue(value="go"), start_at=datetime.now(UTC) + timedelta(days=60))
            coordinator.terminate()
            await coordinator.start(A_MONTH_LATER)
            async with asyncio.timeout(30):
                while "forgotten" not in coordinator.log:
                    await asyncio.sleep(0.02)
            with pytest.raises(SagaNotFound):
                await client.get(old.id)
            assert [saga.id async for saga in client.list()] == [waits.id]
            async with ParticipantServer(keeper, coordinator=coordinator.address):
                again = await client.start("three-steps", StringValue(value="go"), key="order 1")
                assert again.id != old.id
                assert (await again.wait(timeout=A_MINUTE)).status == saga_pb2.SAGA_STATUS_COMPLETED
