"""A stand for every test that wants one."""

from collections.abc import AsyncIterator

import pytest

from tests.unit.api.stand import Stand, opened


@pytest.fixture
async def stand() -> AsyncIterator[Stand]:
    async with opened() as made:
        yield made
