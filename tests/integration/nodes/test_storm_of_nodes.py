"""Nodes, participants and clients are killed and stopped at random while the network is bad and the database is restarted."""

import asyncio
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from tests.integration.crashes.storm import STORMY, Storm, run_storm, used_seed
from tests.journals import PostgresWorld, make_template
from tests.postgres_server import PostgresServer


class PostgresBooks:
    """A database on a server, which can be restarted if it is ours."""

    def __init__(self, world: PostgresWorld, server: PostgresServer | None = None) -> None:
        self._world = world
        self._server = server

    @property
    def url(self) -> str:
        return self._world.url.set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)

    def execute(self, statement: str, /) -> Iterable[tuple[Any, ...]]:
        return self._world.execute(statement)

    async def restart(self) -> None:
        assert self._server is not None
        await asyncio.to_thread(self._server.stop, signal.SIGQUIT)
        await asyncio.to_thread(self._server.start)


async def test_few_kills_of_two_nodes_lose_and_double_nothing(postgres: tuple[URL, str], tmp_path: Path) -> None:  # P1, P2, P3, P6, R31
    server, template = postgres
    world = PostgresWorld(server).make(template)
    storm = Storm(seed=used_seed(), sagas=60, clients=2, kills=4, stops=1, stop_s_max=1.0, weather=STORMY, time_limit_s=90, nodes=2)
    place = await run_storm(storm, tmp_path, PostgresBooks(world))
    assert place.kills == storm.kills
    world.drop()


@pytest.mark.full
@pytest.mark.timeout(1200)
async def test_many_kills_and_restarts_of_the_database_lose_and_double_nothing(tmp_path: Path) -> None:  # P1, P2, P3, P6, R26, R31
    server = PostgresServer(tmp_path / "postgres")
    await asyncio.to_thread(server.start)
    try:
        world = PostgresWorld(server.url)
        world.make(await asyncio.to_thread(make_template, server.url))
        storm = Storm(
            seed=used_seed(),
            sagas=3_000,
            clients=6,
            kills=40,
            stops=8,
            stop_s_max=8.0,  # longer than a lease
            weather=STORMY,
            time_limit_s=1_100,
            nodes=3,
            restarts=5,
        )
        place = await run_storm(storm, tmp_path, PostgresBooks(world, server))
        assert place.kills == storm.kills
    finally:
        await asyncio.to_thread(server.stop)
