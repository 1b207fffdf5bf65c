"""The journals that must behave alike."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL

from tests.journals import MemoryWorld, OpenJournal, PostgresWorld, SqlWorld, Told, World
from tests.pooler import WITHOUT_STATEMENTS, Pooler, pooler

POOLED, AHEAD = "postgres behind a pooler", "postgres of the next release"
FULL_ONLY = [pytest.param(kind, marks=pytest.mark.full) for kind in (POOLED, AHEAD)]


@pytest.fixture(scope="session")
def between(postgres: tuple[URL, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pooler]:
    """What stands between journals and PostgreSQL."""
    with pooler(tmp_path_factory.mktemp("pooler"), postgres[0], WITHOUT_STATEMENTS) as made:
        yield made


@pytest.fixture(params=["memory", "sqlite", "postgres", *FULL_ONLY])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    match request.param:
        case "memory":
            yield MemoryWorld()
        case "sqlite":
            yield SqlWorld(tmp_path).with_tables()
        case kind:
            server, template = request.getfixturevalue("postgres")
            ways = {"way": request.getfixturevalue("between").url_of} if kind == POOLED else {}
            world = PostgresWorld(server, **ways).make(template)
            if kind == AHEAD:
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
