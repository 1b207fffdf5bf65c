import asyncio
from collections.abc import AsyncIterator

import pytest
from click.testing import CliRunner, Result

from coordinator.cli.app import main
from tests.unit.cli.scripted import Invoke
from tests.unit.client.fake_coordinator import FakeCoordinator, served


@pytest.fixture
def coordinator() -> FakeCoordinator:
    return FakeCoordinator()


@pytest.fixture
async def invoke(coordinator: FakeCoordinator) -> AsyncIterator[Invoke]:
    async with served(coordinator) as address:

        async def invoke(*arguments: str, stdin: str | None = None) -> Result:
            # In a thread: the command runs a loop of its own, while this one serves the coordinator.
            environment = {"SAGA_ADDRESS": address, "COLUMNS": "160"}
            return await asyncio.to_thread(CliRunner().invoke, main, arguments, input=stdin, env=environment)

        yield invoke
