"""Sagas that wait for long are rows and nothing else, until their time comes (D9)."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from participant_sdk import ParticipantServer, SagaClient
from saga.v1 import saga_pb2
from tests.integration.definitions import three_steps
from tests.otlp_receiver import OtlpReceiver
from tests.participants import bookkeeper
from tests.processes import CoordinatorProcess

A_MINUTE = timedelta(minutes=1)
AN_HOUR_LATER = {"CLOCK_SHIFT_S": str(3_600)}


@pytest.mark.full
async def test_sagas_that_begin_in_an_hour_are_not_held_and_begin_then(tmp_path: Path) -> None:
    with CoordinatorProcess(tmp_path, module="tests.crashing_coordinator") as coordinator:
        await coordinator.start()
        async with bookkeeper(tmp_path) as keeper, OtlpReceiver() as receiver, SagaClient(coordinator.address) as client:
            async with ParticipantServer(keeper, coordinator=coordinator.address):
                await client.register(three_steps())
                in_an_hour = datetime.now(UTC) + timedelta(hours=1)
                handles = [await client.start("three-steps", StringValue(value="go"), start_at=in_an_hour) for _ in range(50)]
                tomorrow = await client.start("three-steps", StringValue(value="go"), start_at=in_an_hour + timedelta(days=1))
            coordinator.kill()
            metrics = {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": receiver.endpoint, "OTEL_METRIC_EXPORT_INTERVAL": "50"}
            await coordinator.start(metrics)
            await receiver.wait_for_numbers(lambda numbers: "saga.held" in numbers)
            assert receiver.numbers["saga.held"] == 0
            assert (await tomorrow.get()).status == saga_pb2.SAGA_STATUS_PENDING
            coordinator.kill()
            await coordinator.start({**metrics, **AN_HOUR_LATER})
            await receiver.wait_for_numbers(lambda numbers: numbers["saga.held"] == 50)
            async with ParticipantServer(keeper, coordinator=coordinator.address):
                for handle in handles:
                    assert (await handle.wait(timeout=A_MINUTE)).status == saga_pb2.SAGA_STATUS_COMPLETED
            await client.cancel(tomorrow.id)
            assert (await tomorrow.get()).status == saga_pb2.SAGA_STATUS_COMPENSATED
            assert len(await keeper.lines()) == 50
