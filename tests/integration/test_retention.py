"""A coordinator forgets sagas that ended long ago, by itself."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from participant_sdk import ParticipantServer, SagaClient
from participant_sdk.client import SagaNotFound
from saga.v1 import saga_pb2
from tests.integration.definitions import three_steps
from tests.otlp_receiver import OtlpReceiver
from tests.participants import bookkeeper
from tests.processes import CoordinatorProcess

A_MINUTE = timedelta(minutes=1)
A_MONTH_LATER = {"CLOCK_SHIFT_S": str(31 * 86_400)}


@pytest.mark.full
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
            async with OtlpReceiver() as receiver:
                metrics = {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": receiver.endpoint, "OTEL_METRIC_EXPORT_INTERVAL": "100"}
                await coordinator.start({**A_MONTH_LATER, **metrics})
                await receiver.wait_for_numbers(lambda numbers: numbers.get("saga.retention.deleted/sagas") == 1)
                shown = {name: receiver.numbers[name] for name in ("saga.retention.deleted/start_keys", "saga.held", "saga.shards")}
                assert shown == {"saga.retention.deleted/start_keys": 1, "saga.held": 0, "saga.shards": 1}  # what waits sleeps
                coordinator.terminate()
                assert "forgotten" in coordinator.log
            await coordinator.start(A_MONTH_LATER)
            with pytest.raises(SagaNotFound):
                await client.get(old.id)
            assert [saga.id async for saga in client.list()] == [waits.id]
            async with ParticipantServer(keeper, coordinator=coordinator.address):
                again = await client.start("three-steps", StringValue(value="go"), key="order 1")
                assert again.id != old.id
                assert (await again.wait(timeout=A_MINUTE)).status == saga_pb2.SAGA_STATUS_COMPLETED
