"""Relays as processes, for tests that kill them."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

from sqlalchemy import URL
from sqlalchemy.ext.asyncio import create_async_engine

from tests.fork_server import FORK_SERVER, ForkedProcess
from tests.outboxes import WAIT_S, OutboxWorld
from tests.processes import ROOT, python_environment


@asynccontextmanager
async def service_on(url: URL) -> AsyncIterator[OutboxWorld]:
    """A service's database, with its tables."""
    if url.get_backend_name() == "sqlite":
        assert url.database is not None
        with closing(sqlite3.connect(url.database)) as database:
            database.execute("PRAGMA journal_mode = WAL")
    world = OutboxWorld(create_async_engine(url))
    await world.open()
    yield world
    await world.close()


def relay_process(world: OutboxWorld, directory: Path, *arguments: str) -> ForkedProcess:
    """A relay on that database; its broker is the file `broker` in the directory."""
    url = world.engine.url.render_as_string(hide_password=False)
    return FORK_SERVER.spawn(
        "tests.integration.outbox.relay_process",
        [url, str(directory / "broker"), *arguments],
        log=directory / "relay.log",
        environment=python_environment(),
        directory=ROOT,
    )


def arrived(directory: Path) -> list[tuple[str, str, str]]:
    """Id, key and name of what has reached the broker, in that order. A line that is not whole yet is left out."""
    broker = directory / "broker"
    text = broker.read_text() if broker.exists() else ""
    lines = [line.split() for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [(line[0], line[1], line[2]) for line in lines]


async def until_arrived(directory: Path, count: int) -> None:
    """Waits until so many lines have reached the broker."""
    async with asyncio.timeout(WAIT_S):
        while len(arrived(directory)) < count:
            await asyncio.sleep(0.01)
