"""What a saga costs with one node and with several, on PostgreSQL, at the same total load: processor time, write-ahead log, rows.

Three steps, tracing off, no barrier; PostgreSQL with fsync, everything on this machine.
"""

import argparse
import asyncio
import os
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.throughput import child
from benchmarks.throughput import load as load_one
from tests.journals import PostgresWorld, make_template
from tests.postgres_server import PostgresServer
from tests.processes import CoordinatorProcess, free_port, wait_until_serving

WARM_UP_SAGAS: Final = 400
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


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
            target = f"127.0.0.1:{free_port()}"
            participants = stack.enter_context(child("benchmarks.participants", "--coordinator", nodes[0].address, "--address", target))
            await wait_until_serving(target, participants)
            await load(nodes, WARM_UP_SAGAS, concurrency)
            before = _Reading.of(world, nodes, server)
            took_s = await load(nodes, sagas, concurrency, rate)
            after = _Reading.of(world, nodes, server)
            return Costs(
                sagas_per_s=sagas / took_s,
                nodes_ms=1000 * (after.nodes_s - before.nodes_s) / sagas,
                postgres_ms=1000 * (after.postgres_s - before.postgres_s) / sagas,
                wal_bytes=(after.wal - before.wal) / sagas,
                rows=(after.rows - before.rows) / sagas,
                commits=(after.commits - before.commits) / sagas,
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
    share, at_once = sagas // len(nodes), concurrency // len(nodes)
    loads = [asyncio.to_thread(load_one, node.address, share, at_once, mapped=False, rate=rate / len(nodes)) for node in nodes]
    return max(result["took_s"] for result in await asyncio.gather(*loads))


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
        used = sum(_used_s(pid) for pid in [server.pid, *_children_of(server.pid)])
        return cls(sum(_used_s(node.pid) for node in nodes), used, int(str(wal)), int(str(rows)), int(str(commits)))


def _used_s(pid: int) -> float:
    """Of a process, and of the children of it that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS_PER_S


def _children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


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
