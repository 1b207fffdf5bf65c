"""The journals that must behave alike."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.journals import MemoryWorld, OpenJournal, SqlWorld, Told, World


@pytest.fixture(params=["memory", "sqlite"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    return MemoryWorld() if request.param == "memory" else SqlWorld(tmp_path).with_tables()


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
async def journal(world: World, told: Told) -> AsyncIterator[OpenJournal]:
    async with await world.open(told) as opened:
        yield opened
