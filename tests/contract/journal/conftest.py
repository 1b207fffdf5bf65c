"""The journals that must behave alike."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import URL

from tests.journals import MemoryWorld, OpenJournal, PostgresWorld, SqlWorld, Told, World


@pytest.fixture(params=["memory", "sqlite", "postgres", "postgres of the next release"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    match request.param:
        case "memory":
            yield MemoryWorld()
        case "sqlite":
            yield SqlWorld(tmp_path).with_tables()
        case kind:
            server: tuple[URL, str] = request.getfixturevalue("postgres")
            world = PostgresWorld(server[0]).make(template=server[1])
            if kind != "postgres":
                world.migrate_ahead()
            yield world
            world.drop()


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
async def journal(world: World, told: Told) -> AsyncIterator[OpenJournal]:
    async with await world.open(told) as opened:
        yield opened
