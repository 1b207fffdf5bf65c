"""A journal in an SQLite file that can be made to fail."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from coordinator.journal import SqlJournal
from tests.journals import SqlWorld, Told
from tests.sqlite_faults import Faults


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
async def world(tmp_path: Path, faults: Faults) -> SqlWorld:
    return SqlWorld(tmp_path, faults.connect)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
async def journal(world: SqlWorld, told: Told) -> AsyncIterator[SqlJournal]:
    async with await world.open(told) as opened:
        yield opened
