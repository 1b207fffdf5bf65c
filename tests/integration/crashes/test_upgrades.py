"""A participant is upgraded while sagas run: two releases side by side, fields renamed and added, actions new, dropped or changed."""

import asyncio
import signal
import sqlite3
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest
from google.protobuf.message import Message

from participant_sdk import Saga, SagaClient, SagaHandle, StepKind
from saga.v1 import saga_pb2
from tests.fork_server import FORK_SERVER, ForkedProcess
from tests.integration.crashes.upgraded_process import NEW, NO, OLD, Messages
from tests.integration.definitions import QUICK
from tests.integration.desk import open_incidents
from tests.processes import ROOT, CoordinatorProcess, free_port, python_environment, wait_until_serving
from tests.simulation.journal_of_world import Deed

COMPLETED, COMPENSATED, FAILED = saga_pb2.SAGA_STATUS_COMPLETED, saga_pb2.SAGA_STATUS_COMPENSATED, saga_pb2.SAGA_STATUS_FAILED
TIME_LIMIT: Final = timedelta(seconds=60)
AT_ONCE: Final = 10
STEPS: Final[Mapping[str, tuple[str, ...]]] = {"old": ("take", "pay", "ship"), "new": ("take", "wrap", "pay", "ship")}
NO_EVERY: Final = 5
"""One saga in so many is refused at its pivot, and undone."""


class Replica:
    """One place of the shop, in one release after the other."""

    def __init__(self, directory: Path, coordinator: str) -> None:
        self._directory = directory
        self._coordinator = coordinator
        self._address = f"127.0.0.1:{free_port()}"
        self._process: ForkedProcess | None = None

    async def start(self, release: str) -> None:
        arguments = [release, str(self._directory), self._coordinator, self._address]
        log = self._directory / "shop.log"
        module = "tests.integration.crashes.upgraded_process"
        self._process = FORK_SERVER.spawn(module, arguments, log=log, environment=python_environment(), directory=ROOT)
        await wait_until_serving(self._address, self._process)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self._process is not None:
            process, self._process = self._process, None
            process.send_signal(number)
            assert await asyncio.to_thread(process.wait, 30) == (0 if number == signal.SIGTERM else -number)


class Shop:
    """The sagas of the clients, and the books."""

    def __init__(self, directory: Path, client: SagaClient) -> None:
        self.client = client
        self._directory = directory
        self._started: list[tuple[str, bool, SagaHandle]] = []
        self._ended = 0

    async def sell(self, definition: str, count: int) -> None:
        """Starts sagas one after the other, so that some are at every step, until so many have ended."""
        remaining = iter(range(count))

        async def one_after_the_other() -> None:
            for _ in remaining:
                handle = await self.start(definition)
                await handle.wait(timeout=TIME_LIMIT)
                self._ended += 1

        async with asyncio.TaskGroup() as tasks:
            for _ in range(AT_ONCE):
                tasks.create_task(one_after_the_other())

    async def start(self, definition: str) -> SagaHandle:
        is_sold = len(self._started) % NO_EVERY != 0
        words = "book" if is_sold else NO
        order = OLD.order(what=words) if definition == "old" else NEW.order(item=words, count=3)
        handle = await self.client.start(definition, order)
        self._started.append((definition, is_sold, handle))
        return handle

    async def until_ended(self, count: int) -> None:
        async with asyncio.timeout(TIME_LIMIT.total_seconds()):
            while self._ended < count:
                await asyncio.sleep(0.01)

    async def until_places_are(self, count: int) -> None:
        async with asyncio.timeout(TIME_LIMIT.total_seconds()):
            while sum(len(standing.targets) for standing in await self.client.operator.participants()) != count:
                await asyncio.sleep(0.01)

    async def check_books(self) -> None:
        """Every saga did every step once, or undid what it did."""
        deeds: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
        with closing(sqlite3.connect(self._directory / "shop.db")) as database:
            for saga_id, step_id, deed in database.execute("SELECT saga_id, step_id, deed FROM ledger"):
                deeds[saga_id][step_id, deed] += 1
        for definition, is_sold, handle in self._started:
            done = STEPS[definition] if is_sold else [step for step in STEPS[definition] if step in ("take", "wrap")]
            expected = Counter({(step, Deed.DO): 1 for step in done})
            if not is_sold:
                expected |= Counter({(step, Deed.UNDO): 1 for step in done})
            assert (await handle.get()).status == (COMPLETED if is_sold else COMPENSATED)
            assert deeds.pop(handle.id) == expected
        assert not deeds


def definition_of(name: str, messages: Messages) -> Saga[Message]:
    saga = Saga(name, input=messages.order)
    for step in STEPS[name]:
        kind = {"pay": StepKind.PIVOT, "ship": StepKind.RETRIABLE}.get(step, StepKind.COMPENSATABLE)
        # Short for the last one: when nobody serves it any more, a person is to hear of it.
        limit = timedelta(seconds=4) if step == "ship" else TIME_LIMIT
        saga.step(
            f"shop.{step}",
            saga.input,
            request=messages.order,
            response=messages.receipt,
            id=step,
            kind=kind,
            execute_retry=QUICK,
            compensate_retry=QUICK,
            compensate_time_limit=limit,  # of forward recovery too (R13)
        )
    return saga


@asynccontextmanager
async def opened(directory: Path) -> AsyncIterator[tuple[Shop, Replica, Replica]]:
    with CoordinatorProcess(directory) as coordinator:
        await coordinator.start()
        replicas = Replica(directory, coordinator.address), Replica(directory, coordinator.address)
        try:
            async with SagaClient(coordinator.address) as client:
                await client.register(definition_of("old", OLD))
                yield Shop(directory, client), *replicas
        finally:
            for replica in replicas:
                await replica.end(signal.SIGKILL)


@pytest.mark.full
async def test_rolling_upgrade_and_a_crash_in_its_midst_lose_and_double_nothing(tmp_path: Path) -> None:  # P1, P2, R1
    async with opened(tmp_path) as (shop, one, other):
        await one.start("1")
        async with asyncio.TaskGroup() as selling:
            selling.create_task(shop.sell("old", 50))
            await shop.until_ended(8)
            await other.start("2")
            await shop.until_places_are(2)
            await shop.client.register(definition_of("new", NEW))  # one of the two can already do what it needs
            selling.create_task(shop.sell("new", 50))
            await shop.until_ended(25)  # both releases serve both definitions, but for what is new
            await one.end()
            await shop.until_ended(45)
            await one.start("2")
            await shop.until_ended(60)
            await other.end(signal.SIGKILL)
            await other.start("2")
        await shop.check_books()


# Until it has registered, the release without the action is called for it and says so itself (R6).
BREAKING: Final = {"without-ship": {"STEP_EXHAUSTED", "STEP_REJECTED"}, "other-ship": {"TYPE_MISMATCH"}}


@pytest.mark.full
@pytest.mark.parametrize("release", BREAKING)
async def test_release_that_breaks_an_action_is_an_incident_that_a_good_release_mends(tmp_path: Path, release: str) -> None:  # R11, R13
    async with opened(tmp_path) as (shop, one, _):
        await one.start("2")
        await shop.client.register(definition_of("new", NEW))
        await shop.sell("new", 10)
        await one.end()
        await one.start(release)
        handles = [await shop.start("new") for _ in range(10)]
        ends = [await handle.wait(timeout=TIME_LIMIT) for handle in handles]
        failed = [saga for saga in ends if saga.status == FAILED]
        assert len(failed) == len(ends) - len(ends) // NO_EVERY
        incidents = [incident for saga in failed for incident in open_incidents(saga)]
        assert [step_id for _, step_id in incidents] == ["ship"] * len(failed)
        assert {kind for kind, _ in incidents} <= BREAKING[release]
        await one.end()
        await one.start("2")
        for saga in failed:
            await shop.client.operator.retry_step(saga.id, "ship", reason="the right release is there")
        for handle in handles:
            await handle.wait(timeout=TIME_LIMIT)
        await shop.check_books()
