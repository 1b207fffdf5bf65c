"""Relays that are killed in the middle of their work: others go on, nothing is lost, and no event overtakes an earlier one of its key."""

import asyncio
import signal
from pathlib import Path

import pytest
from sqlalchemy import URL

from tests.integration.outbox.places import arrived, relay_process, service_on, until_arrived
from tests.integration.outbox.relay_process import POLICY
from tests.outboxes import OutboxWorld, made_database

pytestmark = pytest.mark.full

EVENTS = 240
KEYS = 6
KILLS = (7, 60, 130)
"""After so many events a relay is killed."""


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
async def test_others_go_on_where_a_killed_relay_has_stopped(database: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if database == "sqlite":
        url = URL.create("sqlite+aiosqlite", database=str(tmp_path / "service.db"))
    else:
        url = made_database(request.getfixturevalue("postgres")[0]).set(drivername="postgresql+asyncpg")
    async with service_on(url) as world:
        relays = [relay_process(world, tmp_path) for _ in range(2)]
        writing = asyncio.create_task(_write(world))
        for kill in KILLS:
            await until_arrived(tmp_path, kill)
            relays[0].send_signal(signal.SIGKILL)
            await asyncio.to_thread(relays.pop(0).wait, 20)
            relays.append(relay_process(world, tmp_path))
        await writing
        statistics = await world.until_statistics(lambda statistics: statistics.published == EVENTS)
        for relay in relays:
            relay.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(relay.wait, 20) == 0, (tmp_path / "relay.log").read_text()
    assert (statistics.pending, statistics.failed) == (0, 0)
    found = arrived(tmp_path)
    assert {name for _, _, name in found} == {f"{number:03}" for number in range(EVENTS)}
    assert len(found) <= EVENTS + len(KILLS) * POLICY.rows_max, "only what a killed relay had is done again"
    for key in range(KEYS):
        first = list(dict.fromkeys(name for _, its, name in found if its == f"k{key}"))
        assert first == sorted(first)
    assert len({id_ for id_, _, _ in found}) == EVENTS, "repetitions have the same id"


async def _write(world: OutboxWorld) -> None:
    for number in range(EVENTS):
        key = f"k{number % KEYS}" if number % 3 else ""
        await world.place(f"{number:03}", key=key)
