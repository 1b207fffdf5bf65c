"""Nodes, participants and clients are killed and stopped at random while the network is bad and the database is restarted."""

import asyncio
import signal
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from tests.budget import BUDGET, budget
from tests.integration.crashes.storm import STORMY, Storm, run_storm, used_seed
from tests.journals import PostgresWorld, make_template
from tests.pooler import WITH_STATEMENTS, WITHOUT_STATEMENTS, Pooling, pooler
from tests.postgres_server import PostgresServer


class PostgresBooks:
    """A database on a server. What is on the way to it can be restarted if it is ours."""

    def __init__(self, world: PostgresWorld, *, end: Callable[[], None] | None = None, start: Callable[[], None] | None = None) -> None:
        self._world = world
        self._end = end
        self._start = start

    @property
    def url(self) -> str:
        return self._world.node_url

    def execute(self, statement: str, /) -> Iterable[tuple[Any, ...]]:
        return self._world.execute(statement)

    async def restart(self) -> None:
        assert self._end is not None
        assert self._start is not None
        await asyncio.to_thread(self._end)
        await asyncio.to_thread(self._start)


@pytest.mark.full
async def test_few_kills_of_two_nodes_lose_and_double_nothing(postgres: tuple[URL, str], tmp_path: Path) -> None:  # P1, P2, P3, P6, R31
    server, template = postgres
    world = PostgresWorld(server).make(template)
    storm = Storm(seed=used_seed(), sagas=60, clients=2, kills=4, stops=1, stop_s_max=1.0, weather=STORMY, time_limit_s=90, nodes=2)
    place = await run_storm(storm, tmp_path, PostgresBooks(world))
    assert place.kills == storm.kills
    world.drop()


def storm_of_nodes(*, sagas: int, clients: int, kills: int, stops: int, time_limit_s: float) -> Storm:
    """Over three nodes, whose database, or what stands before it, is started again three times."""
    return Storm(
        seed=used_seed(),
        sagas=sagas,
        clients=clients,
        kills=kills,
        stops=stops,
        stop_s_max=8.0,  # longer than a lease
        weather=STORMY,
        time_limit_s=time_limit_s,
        nodes=3,
        restarts=3,
    )


@pytest.mark.full
@pytest.mark.timeout(1_200 * max(1.0, BUDGET))
async def test_many_kills_and_restarts_of_the_database_lose_and_double_nothing(tmp_path: Path) -> None:  # P1, P2, P3, P6, R26, R31
    server = PostgresServer(tmp_path / "postgres")
    await asyncio.to_thread(server.start)
    try:
        world = PostgresWorld(server.url)
        world.make(await asyncio.to_thread(make_template, server.url))
        storm = storm_of_nodes(sagas=budget(900), clients=6, kills=budget(20), stops=budget(4), time_limit_s=1_100 * max(1.0, BUDGET))
        books = PostgresBooks(world, end=partial(server.stop, signal.SIGQUIT), start=server.start)
        place = await run_storm(storm, tmp_path, books)
        assert place.kills == storm.kills
    finally:
        await asyncio.to_thread(server.stop)


@pytest.mark.full
@pytest.mark.timeout(450)  # beside another storm on two cores it takes three times as long as alone
@pytest.mark.parametrize("pooling", [WITH_STATEMENTS, WITHOUT_STATEMENTS], ids=["with-statements", "without-statements"])
async def test_kills_of_nodes_and_of_the_pooler_before_them_lose_and_double_nothing(
    postgres: tuple[URL, str], tmp_path: Path, pooling: Pooling
) -> None:  # P1, P2, P3, P6, R26, R31
    server, template = postgres
    with pooler(tmp_path / "pooler", server, pooling) as between:
        world = PostgresWorld(server, way=between.url_of).make(template)
        storm = storm_of_nodes(sagas=max(100, budget(300)), clients=3, kills=max(3, budget(6)), stops=2, time_limit_s=400)
        place = await run_storm(storm, tmp_path, PostgresBooks(world, end=between.kill, start=between.start))
        assert place.kills == storm.kills
        world.drop()
