"""Several coordinators, processes of their own, on one PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest
from sqlalchemy import URL

from participant_sdk import ParticipantServer, SagaClient
from tests.journals import PostgresWorld
from tests.participants import Bookkeeper, bookkeeper
from tests.processes import CoordinatorProcess

LEASE_S: Final = 5.0
WAIT_S: Final = 30.0
TTL: Final = timedelta(minutes=1)
"""Longer than the node at which it registers is away."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Nodes, a client for each, and a participant that is registered with the first of them only."""

    world: PostgresWorld
    nodes: Sequence[CoordinatorProcess]
    clients: Sequence[SagaClient]
    keeper: Bookkeeper

    def held(self) -> list[int]:
        """How many shards each live node has, in the database."""
        found = self.world.execute(
            "SELECT count(shard.id) FROM node LEFT JOIN shard ON shard.owner = node.id"
            " WHERE node.lease_until > extract(epoch FROM clock_timestamp()) * 1000000 GROUP BY node.id"
        )
        return sorted(int(str(count)) for (count,) in found)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits for what the database will show."""
        async with asyncio.timeout(WAIT_S):
            while not await asyncio.to_thread(condition):
                await asyncio.sleep(0.05)

    def owner_of(self, saga_id: str) -> int:
        """Which node drives a saga."""
        ((pid,),) = self.world.execute(
            "SELECT node.pid FROM saga JOIN shard ON shard.id = saga.shard JOIN node ON node.id = shard.owner WHERE saga_id = $1", saga_id
        )
        return [node.pid for node in self.nodes].index(int(str(pid)))


@asynccontextmanager
async def cluster_of(
    count: int, postgres: tuple[URL, str], directory: Path, way: Callable[[URL], URL] = lambda url: url
) -> AsyncIterator[Cluster]:
    """`way`: as of a `PostgresWorld`."""
    server, template = postgres
    world = PostgresWorld(server, way=way).make(template)
    async with AsyncExitStack() as stack:
        stack.callback(world.drop)
        nodes = [CoordinatorProcess(directory, name=f"node-{number}", url=world.node_url) for number in range(count)]
        for node in nodes:
            stack.enter_context(node)
            await node.start()
        keeper = await stack.enter_async_context(bookkeeper(directory))
        await stack.enter_async_context(ParticipantServer(keeper, coordinator=nodes[0].address, ttl=TTL))
        clients = [await stack.enter_async_context(SagaClient(node.address)) for node in nodes]
        cluster = Cluster(world, nodes, clients, keeper)
        share, rest = divmod(16, count)
        await cluster.until(lambda: cluster.held() == sorted(share + (number < rest) for number in range(count)))
        yield cluster


@pytest.fixture
async def pair(postgres: tuple[URL, str], tmp_path: Path) -> AsyncIterator[Cluster]:
    async with cluster_of(2, postgres, tmp_path) as cluster:
        yield cluster
