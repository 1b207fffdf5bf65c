"""Several nodes on one PostgreSQL, the shop beside them and a load on all of them, while nodes are killed and the database is restarted.

Afterwards the books of the shop decide: every order that was completed stands once in each of them, and nothing stands of those that were
undone. Ends with 0 if that is so.
"""

import argparse
import asyncio
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final

from benchmarks.nodes import open_nodes
from examples.shop.place_order import place_order
from participant_sdk import SagaClient
from participant_sdk.client import CoordinatorError
from saga.v1 import saga_pb2
from shop.v1.shop_pb2 import PlaceOrder
from tests.fork_server import FORK_SERVER, ForkedProcess
from tests.journals import PostgresWorld
from tests.postgres_server import PostgresServer
from tests.processes import ROOT, CoordinatorProcess, free_port, python_environment, wait_until_serving

SERVICES: Final = ("inventory", "payments", "shipping")
PLENTY: Final = 1_000_000_000
STANDING: Final = {
    "inventory": "SELECT order_id FROM reservation",
    "payments": "SELECT order_id FROM payment WHERE NOT is_refunded",
    "shipping": "SELECT order_id FROM shipment WHERE NOT is_called_off",
}
"""The effects of each service that were not undone."""
PATIENCE: Final = timedelta(minutes=10)
_NAMES: Final = {saga_pb2.SAGA_STATUS_COMPLETED: "completed", saga_pb2.SAGA_STATUS_COMPENSATED: "compensated"}


@dataclass(slots=True)
class Cluster:
    """Everything that runs."""

    directory: Path
    server: PostgresServer
    world: PostgresWorld
    nodes: list[CoordinatorProcess]
    services: list[ForkedProcess] = field(default_factory=list)
    outcomes: dict[str, str] = field(default_factory=dict)
    """By order."""
    takeovers_s: list[float] = field(default_factory=list)
    """From the death of a node until others hold all of its shards."""
    restarts: int = 0

    def end_services(self) -> None:
        for service in self.services:
            service.send_signal(signal.SIGKILL)

    def books(self, name: str) -> Path:
        return self.directory / f"{name}.db"

    def shards_of(self, pid: int) -> list[int]:
        found = self.world.execute("SELECT shard.id FROM shard JOIN node ON node.id = shard.owner WHERE node.pid = $1", pid)
        return [int(str(shard)) for (shard,) in found]


async def run(given: argparse.Namespace) -> int:
    """Runs it; returns the exit code."""
    with tempfile.TemporaryDirectory(prefix="saga-cluster-") as directory:
        async with AsyncExitStack() as stack:
            cluster = await open_cluster(Path(directory), given.nodes, stack)
            print(
                f"PostgreSQL, {given.nodes} nodes and the shop run; {given.sagas} orders, {given.kills} kills, seed {given.seed}",
                flush=True,
            )
            began = time.monotonic()
            await drive(cluster, given)
            took_s = time.monotonic() - began
        return report(cluster, given, took_s)


async def open_cluster(directory: Path, count: int, stack: AsyncExitStack) -> Cluster:
    """Starts everything; the stack ends it."""
    server, world, nodes = await open_nodes(directory, count, stack)
    cluster = Cluster(directory, server, world, nodes)
    stack.callback(cluster.end_services)
    for number, name in enumerate(SERVICES):
        address = f"127.0.0.1:{free_port()}"
        environment = {"SHOP_DATABASE": str(cluster.books(name)), "SHOP_ADDRESS": address, "SAGA_ADDRESS": nodes[number % count].address}
        cluster.services.append(
            FORK_SERVER.spawn(
                f"examples.shop.{name}", [], log=directory / f"{name}.log", environment=python_environment(environment), directory=ROOT
            )
        )
        await wait_until_serving(address, cluster.services[-1])
    for name, statement in (("inventory", "UPDATE stock SET available = ?"), ("payments", "UPDATE account SET balance_cents = ?")):
        with closing(sqlite3.connect(cluster.books(name), isolation_level=None, timeout=10)) as books:
            books.execute(statement, (PLENTY,))
    return cluster


async def drive(cluster: Cluster, given: argparse.Namespace) -> None:
    """The load and the blows, until every order has ended."""
    chance = random.Random(given.seed)
    remaining = iter(range(given.sagas))
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(SagaClient(node.address, timeout=PATIENCE)) for node in cluster.nodes]
        await clients[0].register(place_order)
        progress = asyncio.create_task(show_progress(cluster, given.sagas))
        async with asyncio.TaskGroup() as tasks:
            for number in range(given.concurrency):
                tasks.create_task(order_after_order(cluster, clients[number % len(clients)], remaining))
            tasks.create_task(blow_after_blow(cluster, chance, given))
        progress.cancel()


async def order_after_order(cluster: Cluster, client: SagaClient, numbers: Iterator[int]) -> None:
    for number in numbers:
        order = PlaceOrder(
            order_id=f"order-{number}",
            sku="widget",
            quantity=1,
            amount_cents=100,
            card="declined" if number % 10 == 3 else "4242",
            address="" if number % 10 == 7 else "1 Main Street",
        )
        handle = await client.start(place_order, order, key=order.order_id)
        saga = await handle.wait()
        cluster.outcomes[order.order_id] = _NAMES.get(saga.status, saga_pb2.SagaStatus.Name(saga.status))


async def blow_after_blow(cluster: Cluster, chance: random.Random, given: argparse.Namespace) -> None:
    """Kills nodes, and restarts the database, spread over the load."""
    blows = ["kill"] * given.kills + ["restart"] * given.restarts
    chance.shuffle(blows)
    for number, blow in enumerate(blows, 1):
        while len(cluster.outcomes) < given.sagas * number // (len(blows) + 1):
            await asyncio.sleep(0.05)
        if blow == "restart":
            await asyncio.to_thread(cluster.server.stop, signal.SIGQUIT)
            await asyncio.to_thread(cluster.server.start)
            cluster.restarts += 1
        else:
            await kill_and_replace(cluster, chance.choice(cluster.nodes))


async def kill_and_replace(cluster: Cluster, node: CoordinatorProcess) -> None:
    """SIGKILL; and when others have what was its own, it is started again."""
    pid = node.pid
    node.kill()
    began = time.monotonic()
    while await asyncio.to_thread(cluster.shards_of, pid):
        await asyncio.sleep(0.02)
    cluster.takeovers_s.append(time.monotonic() - began)
    await node.start()


async def show_progress(cluster: Cluster, sagas: int) -> None:
    began, end = time.monotonic(), "\r" if sys.stdout.isatty() else "\n"
    while True:
        await asyncio.sleep(1 if sys.stdout.isatty() else 10)
        done = len(cluster.outcomes)
        rate = done / (time.monotonic() - began)
        line = f"{done:6} of {sagas} orders, {rate:4.0f}/s, {len(cluster.takeovers_s)} nodes killed, {cluster.restarts} restarts"
        print(line, end=end, flush=True)


def report(cluster: Cluster, given: argparse.Namespace, took_s: float) -> int:
    """Says how it went, and what is wrong."""
    ended = Counter(cluster.outcomes.values())
    print(f"{len(cluster.outcomes)} orders in {took_s:.0f} s: {', '.join(f'{count} {name}' for name, count in ended.most_common())}")
    if cluster.takeovers_s:
        times = sorted(cluster.takeovers_s)
        p50, p99 = times[len(times) // 2], times[min(len(times) - 1, len(times) * 99 // 100)]
        print(f"takeover of a killed node's shards: p50 {p50:.2f} s, p99 {p99:.2f} s of {len(times)} kills (a lease is 5 s)")
    wrong = list(violations(cluster, given.sagas))
    for text in wrong[:20]:
        print(f"WRONG: {text}")
    print("every order stands once or not at all" if not wrong else f"{len(wrong)} orders are wrong")
    return 1 if wrong else 0


def violations(cluster: Cluster, sagas: int) -> Iterator[str]:
    """What the books say against what the clients were told."""
    standing = {name: Counter(read(cluster.books(name), query)) for name, query in STANDING.items()}
    for number in range(sagas):
        order, refused = f"order-{number}", number % 10 in (3, 7)
        told = cluster.outcomes.get(order, "never told")
        expected = "compensated" if refused else "completed"
        if told != expected:
            yield f"{order} ended {told}, expected {expected}"
        for name in SERVICES:
            found, wanted = standing[name][order], 0 if refused else 1
            if found != wanted:
                yield f"{order} is {told} and stands {found} times at {name}, expected {wanted}"


def read(path: Path, query: str) -> Iterable[str]:
    with closing(sqlite3.connect(path)) as books:
        return [str(row[0]) for row in books.execute(query)]


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="make cluster", description=__doc__)
    parser.add_argument("--sagas", type=int, default=3_000, help="orders (default 3000)")
    parser.add_argument("--concurrency", type=int, default=48, help="orders in flight (default 48)")
    parser.add_argument("--nodes", type=int, default=3, help="coordinators (default 3)")
    parser.add_argument("--kills", type=int, default=6, help="of nodes, by SIGKILL (default 6)")
    parser.add_argument("--restarts", type=int, default=1, help="of PostgreSQL, without warning (default 1)")
    parser.add_argument("--seed", type=int, default=None, help="of what is killed when")
    given = parser.parse_args(arguments)
    given.seed = random.SystemRandom().randrange(2**32) if given.seed is None else given.seed
    try:
        return asyncio.run(run(given))
    except CoordinatorError as error:
        print(f"a client was given up on: {error}", file=sys.stderr)
        return os.EX_UNAVAILABLE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
