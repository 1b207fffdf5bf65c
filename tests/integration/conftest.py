"""A coordinator in this process, on a real socket and a real database."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from coordinator.bootstrap import Coordinator, run_coordinator
from coordinator.settings import Settings
from coordinator.telemetry.setup import Telemetry
from participant_sdk import SagaClient
from participant_sdk.closings import wait_for_closings
from saga.v1 import coordinator_pb2_grpc
from tests.journals import empty_database


@pytest.fixture(autouse=True)
async def closings() -> AsyncIterator[None]:
    """No test leaves a connection behind that its driver is still closing: its loop could not be closed."""
    yield
    await wait_for_closings()


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A coordinator and ways to talk to it."""

    coordinator: Coordinator
    address: str
    client: SagaClient
    stub: "coordinator_pb2_grpc.SagaServiceAsyncStub"


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    database = tmp_path / "saga.db"
    database.write_bytes(empty_database())
    settings = Settings(address="127.0.0.1:0", database=f"sqlite+aiosqlite:///{database}", drain_time_limit_s=1.0)
    async with (
        run_coordinator(settings, Telemetry(None)) as coordinator,
        SagaClient(coordinator.address) as client,
        grpc.aio.insecure_channel(coordinator.address) as channel,
    ):
        yield Running(
            coordinator=coordinator,
            address=coordinator.address,
            client=client,
            stub=coordinator_pb2_grpc.SagaServiceStub(channel),
        )
