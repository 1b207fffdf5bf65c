"""What a saga costs with one node and with several, on PostgreSQL, at the same total load: processor time, write-ahead log, rows.

Three steps, tracing off, no barrier; PostgreSQL with fsync, everything on this machine.
"""

import argparse
import asyncio
import os
import tempfile
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measured_run import WARM_UP_SAGAS, Work, processor_s
from benchmarks.system import Options, run_load, start_participants
from tests.journals import PostgresWorld, make_template
from tests.postgres_server import PostgresServer
from tests.processes import CoordinatorProcess


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Of one run, per saga where nothing else is said."""

    sagas_per_s: float
    nodes_ms: float
    """Processor time of all nodes."""
    postgres_ms: float
    wal_bytes: float
    rows: float
    commits: float
    """Of database transactions, whoever made them."""


async def measure(count: int, sagas: int, concurrency: int, rate: float) -> Costs:
    with tempfile.TemporaryDirectory(prefix="saga-nodes-") as name:
        async with AsyncExitStack() as stack:
            directory = Path(name)
            server, world, nodes = await open_nodes(directory, count, stack)
            await asyncio.to_thread(start_participants, directory, nodes[0].address, Options(), stack.enter_context(ExitStack()))
            await load(nodes, WARM_UP_SAGAS, concurrency)
            before = _Reading.of(world, nodes, server)
            took_s = await load(nodes, sagas, concurrency, rate)
            after = _Reading.of(world, nodes, server)
            done = sagas + count * min(WARM_UP_SAGAS, sagas // count)  # every load warms up first
            return Costs(
                sagas_per_s=sagas / took_s,
                nodes_ms=1000 * (after.nodes_s - before.nodes_s) / done,
                postgres_ms=1000 * (after.postgres_s - before.postgres_s) / done,
                wal_bytes=(after.wal - before.wal) / done,
                rows=(after.rows - before.rows) / done,
                commits=(after.commits - before.commits) / done,
            )


async def open_nodes(directory: Path, count: int, stack: AsyncExitStack) -> tuple[PostgresServer, PostgresWorld, list[CoordinatorProcess]]:
    """PostgreSQL as it is meant to be run, with fsync, and coordinators on it; the stack ends them."""
    server = PostgresServer(directory / "postgres", settings={"shared_buffers": "256MB"})
    await asyncio.to_thread(server.start)
    stack.callback(server.stop)
    world = PostgresWorld(server.url)
    world.make(await asyncio.to_thread(make_template, server.url))
    url = world.url.set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)
    nodes = [CoordinatorProcess(directory, name=f"node-{number}", url=url) for number in range(count)]
    for node in nodes:
        stack.enter_context(node)
        await node.start()
    return server, world, nodes


async def load(nodes: list[CoordinatorProcess], sagas: int, concurrency: int, rate: float = 0.0) -> float:
    """The same work in all, shared by the nodes; returns how long it took, in seconds."""
    share = Work(sagas=sagas // len(nodes), concurrency=concurrency // len(nodes), rate=rate / len(nodes))
    loads = [asyncio.to_thread(run_load, node.address, share) for node in nodes]
    return max(run.took_s for run in await asyncio.gather(*loads))


@dataclass(frozen=True, slots=True)
class _Reading:
    nodes_s: float
    postgres_s: float
    wal: int
    rows: int
    commits: int

    @classmethod
    def of(cls, world: PostgresWorld, nodes: list[CoordinatorProcess], server: PostgresServer) -> "_Reading":
        ((wal,),) = world.execute("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")
        ((rows,),) = world.execute("SELECT (SELECT count(*) FROM saga) + (SELECT count(*) FROM event)")
        ((commits,),) = world.execute("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")
        used_s = sum(processor_s(node.pid) for node in nodes)
        return cls(used_s, processor_s(server.pid), int(str(wal)), int(str(rows)), int(str(commits)))


def show(what: str, costs: Costs) -> None:
    used = f"processor ms/saga: nodes {costs.nodes_ms:.2f}, PostgreSQL {costs.postgres_ms:.2f}"
    written = f"log {costs.wal_bytes:.0f} bytes/saga, {costs.rows:.1f} rows/saga, {costs.commits:.2f} commits/saga"
    print(f"{what:<10} {costs.sagas_per_s:6.0f} sagas/s   {used}   {written}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sagas", type=int, default=4_000, help="per run (default %(default)s)")
    parser.add_argument("--concurrency", type=int, default=64, help="in flight, in all (default %(default)s)")
    parser.add_argument("--rate", type=float, default=0.0, help="sagas started per second in all; 0: a closed loop")
    parser.add_argument("--nodes", type=int, default=4, help="to compare with one (default %(default)s)")
    parser.add_argument("--runs", type=int, default=3, help="of each kind, in turns (default %(default)s)")
    given = parser.parse_args()
    how = f"{given.rate:g} a second" if given.rate else f"{given.concurrency} in flight"
    print(f"{given.sagas} sagas of three steps, {how}, {os.cpu_count()} cores")
    alone, together = [], []
    for _ in range(given.runs):
        alone.append(asyncio.run(measure(1, given.sagas, given.concurrency, given.rate)))
        show("one node", alone[-1])
        together.append(asyncio.run(measure(given.nodes, given.sagas, given.concurrency, given.rate)))
        show(f"{given.nodes} nodes", together[-1])
    ratio = sorted(many.nodes_ms for many in together)[len(together) // 2] / sorted(one.nodes_ms for one in alone)[len(alone) // 2]
    print(f"{given.nodes} nodes need {ratio:.2f} times the processor time of one, by the medians")


if __name__ == "__main__":
    main()
