from collections.abc import AsyncIterator

import pytest

from participant_sdk.client import SagaClient
from tests.unit.client.fake_coordinator import FakeCoordinator, served


@pytest.fixture
def coordinator() -> FakeCoordinator:
    return FakeCoordinator()


@pytest.fixture
async def address(coordinator: FakeCoordinator) -> AsyncIterator[str]:
    async with served(coordinator) as address:
        yield address


@pytest.fixture
async def client(address: str) -> AsyncIterator[SagaClient]:
    async with SagaClient(address) as client:
        yield client
