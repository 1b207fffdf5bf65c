"""One database and one port, where coordinators come and go: in this process, or in one of their own that may be killed."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, Unpack

from coordinator.bootstrap import run_coordinator
from coordinator.settings import Settings
from coordinator.telemetry.setup import Telemetry
from tests.integration.desk import Stand, of_every_kind, open_stand, with_question
from tests.processes import CoordinatorProcess, free_port


class Limits(TypedDict, total=False):
    """Settings that a test may ask for."""

    participant_concurrency: int
    participant_rate_per_second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where coordinators come and go: one database, one port."""

    directory: Path
    process: CoordinatorProcess

    @asynccontextmanager
    async def coordinator_here(self, **settings: Unpack[Limits]) -> AsyncIterator[None]:
        """A coordinator in this process, for as long as the context lasts."""
        database = f"sqlite+aiosqlite:///{self.process.database}"
        made = Settings(address=self.process.address, database=database, drain_time_limit_s=0.2, **settings)
        async with run_coordinator(made, Telemetry(None)):
            yield


@asynccontextmanager
async def opened(directory: Path) -> AsyncIterator[tuple[Place, Stand]]:
    """A place where everything is registered, and nothing runs."""
    address = f"127.0.0.1:{free_port()}"
    with CoordinatorProcess(directory, module="tests.crashing_coordinator", address=address) as process:
        place = Place(directory=directory, process=process)
        async with AsyncExitStack() as stack:
            async with place.coordinator_here():
                stand = await stack.enter_async_context(open_stand(directory, address))
                await stand.client.register(of_every_kind())
                await stand.client.register(with_question())
            yield place, stand
