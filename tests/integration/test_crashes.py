"""The coordinator is killed with SIGKILL: at every commit, and at random moments of many sagas. The books decide whether all is well."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from participant_sdk import ParticipantServer, SagaClient, SagaHandle
from saga.v1 import saga_pb2
from tests.budget import budget
from tests.integration.definitions import three_steps
from tests.participants import Bookkeeper, bookkeeper
from tests.processes import CoordinatorProcess

STEPS = ("first", "second", "third")
DONE = [(step, "do") for step in STEPS]
UNDONE = [("first", "do"), ("second", "do"), ("second", "undo"), ("first", "undo")]
A_MINUTE = timedelta(minutes=1)
OUTAGE_MAX = timedelta(minutes=3)
"""Twenty kills one after the other on a busy machine leave a client little between them."""


@asynccontextmanager
async def books_kept_for(coordinator: CoordinatorProcess, directory: Path) -> AsyncIterator[Bookkeeper]:
    """A participant that stays alive while the coordinator is killed, and registers again by itself."""
    async with bookkeeper(directory) as keeper, ParticipantServer(keeper, coordinator=coordinator.address, ttl=timedelta(seconds=3)):
        yield keeper


def check(lines: dict[str, list[tuple[str, str]]], sagas: Sequence[saga_pb2.Saga], refused: set[str]) -> None:
    """Every effect once, every undo once and after its effect, in the inverse order; outcomes as the books say."""
    for saga in sagas:
        written = lines.get(saga.id, [])
        if saga.status == saga_pb2.SAGA_STATUS_COMPLETED:
            assert saga.id not in refused
            assert written == DONE
        else:
            assert saga.status == saga_pb2.SAGA_STATUS_COMPENSATED
            assert saga.id in refused
            assert written == UNDONE
    assert set(lines) == {saga.id for saga in sagas}


async def run_through_crash(directory: Path, crash_at: str) -> bool:
    """One saga that completes and one that is compensated, through one crash; False if the process ended both before that moment."""
    with CoordinatorProcess(directory, module="tests.crashing_coordinator") as coordinator:
        await coordinator.start()
        async with books_kept_for(coordinator, directory) as keeper, SagaClient(coordinator.address) as client:
            await client.register(three_steps())
            coordinator.terminate()
            await coordinator.start({"CRASH_AT": crash_at})

            died = asyncio.Event()

            async def restart_after_death() -> None:
                await coordinator.wait()
                died.set()
                await coordinator.start()

            async with asyncio.TaskGroup() as tasks:
                restarting = tasks.create_task(restart_after_death())
                ended = await asyncio.gather(
                    start_and_wait(client, "go"),
                    start_and_wait(client, "refuse"),
                )
                # It may be serving again before it has been seen to.
                crashed = died.is_set() or not coordinator.is_running
                if not crashed:
                    restarting.cancel()
            refused = {ended[1].id}
            check(await keeper.lines(), ended, refused)
            return crashed


async def start_and_wait(client: SagaClient, value: str) -> saga_pb2.Saga:
    handle = await client.start("three-steps", StringValue(value=value))
    return await handle.wait(timeout=A_MINUTE)


MOMENTS = [f"{moment}:{commit}" for commit in range(1, 10) for moment in ("before", "after", "released")]
FAST = {"after:3"}
REACHED = {"before:2", "after:3", "released:4"}
"""Moments that every run comes to, however commits are shared."""


@pytest.mark.parametrize("moment", [moment if moment in FAST else pytest.param(moment, marks=pytest.mark.full) for moment in MOMENTS])
async def test_crash_at_each_commit_loses_and_doubles_nothing(tmp_path: Path, moment: str) -> None:  # P1, P2, R25, R29
    crashed = await run_through_crash(tmp_path, moment)
    assert crashed or moment not in REACHED


async def kill_at_random(directory: Path, *, sagas: int, kills: int, seed: int) -> None:
    chance = random.Random(seed)
    with CoordinatorProcess(directory) as coordinator:
        await coordinator.start()
        async with books_kept_for(coordinator, directory) as keeper, SagaClient(coordinator.address, timeout=OUTAGE_MAX) as client:
            await client.register(three_steps())
            refused: set[str] = set()
            ended: list[saga_pb2.Saga] = []
            restarts = 0

            async def one(number: int) -> None:
                value = f"refuse {number}" if number % 3 == 0 else f"go {number}"
                handle: SagaHandle = await client.start("three-steps", StringValue(value=value))
                if number % 3 == 0:
                    refused.add(handle.id)
                ended.append(await handle.wait(timeout=timedelta(minutes=5)))

            async def kill_and_restart() -> None:
                nonlocal restarts
                while restarts < kills:
                    before = len(ended)
                    target = before + chance.randrange(1, max(2, sagas // (kills + 1)))
                    while len(ended) < min(target, sagas - 1) and restarts:
                        await asyncio.sleep(0.005)  # a random moment is what is wanted here
                    coordinator.kill()
                    restarts += 1
                    await coordinator.start()

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(kill_and_restart())
                for number in range(sagas):
                    tasks.create_task(one(number))
            assert restarts == kills
            assert len(ended) == sagas
            check(await keeper.lines(), ended, refused)


@pytest.mark.full
async def test_kills_while_sagas_run_lose_and_double_nothing(tmp_path: Path) -> None:  # P1, P2
    await kill_at_random(tmp_path, sagas=30, kills=2, seed=random.randrange(2**32))


@pytest.mark.full
@pytest.mark.timeout(600)
async def test_many_kills_over_many_sagas_lose_and_double_nothing(tmp_path: Path) -> None:  # P1, P2
    await kill_at_random(tmp_path, sagas=budget(200), kills=budget(20), seed=random.randrange(2**32))
