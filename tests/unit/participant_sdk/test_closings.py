"""Connections that a driver is still closing when a server stops."""

import asyncio

import pytest
from sqlalchemy.dialects.sqlite.aiosqlite import AsyncAdapt_aiosqlite_connection

from participant_sdk.closings import wait_for_closings


class Connection:
    """Closes as that of the driver does: what it waits for, also at its end, may never come."""

    def __init__(self, *, closes: bool) -> None:
        self._closes = closes

    async def _terminate_graceful_close(self) -> None:
        try:
            await asyncio.sleep(0) if self._closes else await asyncio.get_running_loop().create_future()
        finally:
            if not self._closes:
                await asyncio.get_running_loop().create_future()


@pytest.mark.parametrize("closes", [True, False])
async def test_connection_that_is_being_closed_is_waited_for_or_given_up(closes: bool) -> None:
    closing = asyncio.create_task(Connection(closes=closes)._terminate_graceful_close())
    await asyncio.sleep(0)
    await wait_for_closings(0.02)
    assert closing.done()
    assert closing.cancelled() is not closes


async def test_other_tasks_are_left_alone() -> None:
    other = asyncio.create_task(asyncio.sleep(3600))
    await wait_for_closings(0.02)
    assert not other.done()
    other.cancel()


def test_driver_names_its_closing_as_expected() -> None:
    assert AsyncAdapt_aiosqlite_connection._terminate_graceful_close.__qualname__.endswith("._terminate_graceful_close")
