"""What nodes call to each other is heard at once, and missed by nobody who looks (D4, R31, R33)."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack, aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from sqlalchemy import URL

from coordinator.api import watch
from coordinator.bootstrap import run_coordinator
from coordinator.journal import SqlJournal
from coordinator.settings import Settings
from coordinator.telemetry.setup import Telemetry
from participant_sdk import ParticipantServer, SagaClient
from tests.integration.definitions import three_steps
from tests.journals import PostgresWorld, Told
from tests.participants import bookkeeper

WAIT_S = 10.0


@pytest.fixture
async def world(postgres: tuple[URL, str]) -> PostgresWorld:
    return PostgresWorld(postgres[0]).make(postgres[1])


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.01)


async def test_what_one_node_hints_at_another_hears_and_it_itself_does_not(world: PostgresWorld) -> None:
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(await world.open(Told())) for _ in range(2)]
        heard: list[list[str]] = [[], []]
        for node, words in zip(nodes, heard, strict=True):
            node.signals.follow(words.append)
        await until(lambda: all(node.signals.is_heard for node in nodes if isinstance(node, SqlJournal)))  # type: ignore[attr-defined]
        for number in range(250):
            nodes[0].signals.send(f"moved {number:036}")
        await until(lambda: len(heard[1]) >= 250)
        assert heard == [[], [f"moved {number:036}" for number in range(250)]]


@pytest.mark.full
async def test_connection_that_is_cut_is_made_again(world: PostgresWorld) -> None:
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(await world.open(Told())) for _ in range(2)]
        words: list[str] = []
        nodes[1].signals.follow(words.append)
        await until(lambda: all(node.signals.is_heard for node in nodes))  # type: ignore[attr-defined]
        world.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'saga-coordinator%'")
        await until(lambda: not any(node.signals.is_heard for node in nodes))  # type: ignore[attr-defined]
        nodes[0].signals.send("lost")
        await until(lambda: all(node.signals.is_heard for node in nodes))  # type: ignore[attr-defined]
        nodes[0].signals.send("heard")
        await until(lambda: words != [])
        assert words == ["heard"]


async def test_watcher_at_another_node_is_told_before_it_looks(
    world: PostgresWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the hint the second event would be seen after an hour."""
    monkeypatch.setattr(watch, "LOOK_AGAIN_S", 3_600.0)
    url = world.url.set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)
    async with AsyncExitStack() as stack:
        nodes = []
        for _ in range(2):
            settings = Settings(database=url, address="127.0.0.1:0")
            nodes.append(await stack.enter_async_context(run_coordinator(settings, Telemetry(None))))
        driver, other = [await stack.enter_async_context(SagaClient(node.address)) for node in nodes]
        keeper = await stack.enter_async_context(bookkeeper(tmp_path))
        await stack.enter_async_context(ParticipantServer(keeper, coordinator=nodes[0].address))
        await driver.register(three_steps())
        later = datetime.now(UTC) + timedelta(hours=1)
        handle = await driver.start("three-steps", StringValue(value="go"), start_at=later)
        async with asyncio.timeout(WAIT_S), aclosing(other.watch(handle.id)) as events:
            seen = [(await anext(events)).event.sequence]
            cancelling = asyncio.ensure_future(_cancel_when_awaited(nodes[0].engine, driver, handle.id))
            seen.append((await anext(events)).event.sequence)
            await cancelling
        assert seen == [1, 2]


async def _cancel_when_awaited(engine: object, client: SagaClient, saga_id: str) -> None:
    await until(lambda: saga_id in engine._subscriptions._listeners)  # type: ignore[attr-defined]
    await client.cancel(saga_id)
