"""A node on a database that has grown for long, beside one on an empty database: a million finished sagas and 200,000 that sleep.

What is told:

  start    from the start of the process until it serves, cold imports included; the median of three
  memory   resident, once it serves and after the load
  lists    a page of ListSagas by every filter, the first one and one far down; how many sagas are on it; how many rows the database
           reads for it, those that do not fit among them, and by which index. SQLite does not count rows: a tenth of the
           instructions of its virtual machine is about as many
  cost     processor time of the node for a new saga of three steps, on the large and on the empty database in turns

Ends with 1 if a page takes longer than it may, or if much of the table is read for it. A missed aim of the others is told and no more:
they depend on the machine. PostgreSQL runs with fsync, and is given VACUUM ANALYZE after it was filled, as its autovacuum would do in time;
SQLite plans without statistics, as it does in use. Needs some 6 GB in the folder for temporary files, and a quarter of an hour.

  python -m benchmarks.large                                        SQLite, everything
  python -m benchmarks.large --postgres                             the same on PostgreSQL
  python -m benchmarks.large --finished 20000 --sleeping 2000       to see that it works
"""

import argparse
import asyncio
import contextlib
import itertools
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import grpc
from sqlalchemy import URL, Connection, event

from benchmarks.many_sagas import SPAN, PostgresFilling, SqliteFilling, customer, fill, filler_saga, make_templates
from benchmarks.measured_run import Work
from benchmarks.system import Options, resident_mib, run_load, start_participants
from coordinator.api.pages import PAGE_SIZE_DEFAULT, saga_page_token
from coordinator.codec.values import to_timestamp
from coordinator.core.values import IncidentKind, Instant, SagaId, SagaStatus
from coordinator.engine.ports import SagaFilter
from coordinator.journal import postgres, sqlite
from coordinator.journal.database_file import DatabaseFile
from coordinator.journal.hosts import Greenlets, Threads
from coordinator.journal.listings import list_sagas
from coordinator.journal.reader import Reader
from participant_sdk import SagaClient
from saga.v1 import coordinator_pb2, coordinator_pb2_grpc, saga_pb2
from tests.journals import PostgresWorld, make_template
from tests.postgres_server import PostgresServer
from tests.processes import ROOT, free_port, python_environment, wait_until_serving

START_AIM_S: Final = 3.0
MEMORY_AIM_MIB: Final = 200.0
COST_AIM: Final = 0.10
PAGE_AIM_MS: Final = 50.0
STARTS: Final = 3
START_LIMIT_S: Final = 900.0
EXIT_LIMIT_S: Final = 60.0
PLANNED_ANEW: Final = 5
"""So many times PostgreSQL plans a prepared statement for its parameters before it thinks of a plan for all."""
FIRST_REQUESTS: Final = postgres.READERS * (PLANNED_ANEW + 1)
"""For a page, before any is timed: every connection that the node reads by has then settled on a plan."""
REQUESTS: Final = 15
"""For a page, of which the median is told."""
PART_READ: Final = 20
"""Who reads more rows for a page than the twentieth part of all sagas is said to read the table: his page costs what others have done."""
PAGE_ROWS: Final = 5_000
"""So many may be read in a database of any size: a page of each of six statuses, and the others between them."""
INSTRUCTIONS_PER_ROW: Final = 10
"""Of SQLite, to go to the next row of an index, look at it and find that it does not fit; 7 to 20 were seen."""
POSTGRES_SETTINGS: Final = {"shared_buffers": "256MB", "max_wal_size": "4GB"}


# ── Nodes ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


class Node:
    """`saga serve` as anybody starts it: not forked from a process that has imported everything, whose memory and time it would share."""

    def __init__(self, directory: Path, name: str, database: str | URL) -> None:
        self.database = database
        self.address = f"127.0.0.1:{free_port()}"
        self._log = directory / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> float:
        """Returns after how many seconds it served."""
        began = time.perf_counter()
        self._process = self._spawn()
        async with asyncio.timeout(START_LIMIT_S):
            while True:
                with contextlib.suppress(TimeoutError):  # of that function, which has less patience
                    await wait_until_serving(self.address, self._process)
                    return time.perf_counter() - began

    def _spawn(self) -> subprocess.Popen[bytes]:
        url = self.database if isinstance(self.database, str) else self.database.render_as_string(hide_password=False)
        command = [sys.executable, "-m", "coordinator", "serve", "--address", self.address, "--database", url]
        with self._log.open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, env=python_environment())

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.wait(EXIT_LIMIT_S)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two nodes, and what the large database is filled and looked into with."""

    large: Node
    empty: Node
    filling: SqliteFilling | PostgresFilling
    reader: Reader


async def open_pair(directory: Path, stack: AsyncExitStack, *, is_postgres: bool) -> Pair:
    """Databases with their tables and definitions, and nodes that do not run now; the stack ends all of it."""
    if is_postgres:
        server = PostgresServer(directory / "postgres", settings=POSTGRES_SETTINGS)
        stack.callback(server.stop)
        await asyncio.to_thread(server.start)
        template = await asyncio.to_thread(make_template, server.url)
        urls = [PostgresWorld(server.url).make(template).url.set(drivername="postgresql+asyncpg") for _ in range(2)]
        large, empty = (Node(directory, name, url) for name, url in zip(("large", "empty"), urls, strict=True))
        filling: SqliteFilling | PostgresFilling = PostgresFilling(urls[0])
        reader = Reader(postgres.reading_engine(urls[0], "explain"), host=Greenlets(), trouble_of=postgres.trouble_of)
    else:
        path = directory / "large.db"
        large, empty = Node(directory, "large", str(path)), Node(directory, "empty", str(directory / "empty.db"))
        filling = SqliteFilling(path)
        engine = sqlite.reading_engine(DatabaseFile(path), sqlite.connect)
        reader = Reader(engine, host=Threads(1, "explain"), trouble_of=sqlite.trouble_of)
    stack.push_async_callback(reader.aclose)
    for node in (large, empty):
        stack.callback(node.stop)
        await node.start()
        async with SagaClient(node.address) as client:
            for name in ("order", "refund", "report"):
                await client.register(filler_saga(name))
        node.stop()
    return Pair(large=large, empty=empty, filling=filling, reader=reader)


# ── Lists ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

NOBODY: Final = frozenset({SagaStatus.COMPENSATING})
"""No saga is left in it."""
WEB, RARE, EU, NEVER = ("channel", "web"), ("customer", customer(42)), ("region", "eu"), ("region", "mars")
"""Labels: of a third, of a few dozen, of a sixth, and of no saga."""


def filters(oldest: Instant) -> Iterator[tuple[str, SagaFilter]]:
    """Every filter that there is, where many and where few fit; and such that many fit one condition of, and few or none all of them."""
    completed, failed, pending = (frozenset({each}) for each in (SagaStatus.COMPLETED, SagaStatus.FAILED, SagaStatus.PENDING))
    day, hour = 86_400_000_000, 3_600_000_000
    middle = Instant(oldest + 15 * day)
    yield "all", SagaFilter()
    for name, statuses in (("COMPLETED", completed), ("FAILED", failed), ("PENDING", pending), ("COMPENSATING: none", NOBODY)):
        yield f"status {name}", SagaFilter(statuses=statuses)
    yield "status of all kinds", SagaFilter(statuses=frozenset(SagaStatus))
    for name in ("order", "report", "nothing"):
        yield f"definition {name}", SagaFilter(definition_name=name)
    for what, labels in (("many", (EU,)), ("few", (RARE,)), ("none", (NEVER,)), ("many + many", (WEB, EU)), ("many + few", (WEB, RARE))):
        yield f"label {what}", SagaFilter(labels=labels)
    yield "created from", SagaFilter(created_from=middle)
    yield "created before", SagaFilter(created_before=middle)
    yield "created in one hour", SagaFilter(created_from=middle, created_before=Instant(middle + hour))
    for is_so in (True, False):
        yield f"paused {is_so}", SagaFilter(is_paused=is_so)
        yield f"needs person {is_so}", SagaFilter(needs_person=is_so)
    yield "definition order + status COMPLETED", SagaFilter(definition_name="order", statuses=completed)
    yield "definition order + status FAILED", SagaFilter(definition_name="order", statuses=failed)
    yield "definition report + status FAILED", SagaFilter(definition_name="report", statuses=failed)
    yield "definition report + status PENDING", SagaFilter(definition_name="report", statuses=pending)
    yield "label many + status COMPLETED", SagaFilter(labels=(EU,), statuses=completed)
    yield "label many + status FAILED", SagaFilter(labels=(EU,), statuses=failed)
    yield "label many + status COMPENSATING: none", SagaFilter(labels=(EU,), statuses=NOBODY)
    yield "label few + status PENDING", SagaFilter(labels=(RARE,), statuses=pending)
    yield "label many + definition order", SagaFilter(labels=(EU,), definition_name="order")
    yield "label many + definition report", SagaFilter(labels=(EU,), definition_name="report")
    yield "label many + definition report + status PENDING", SagaFilter(labels=(EU,), definition_name="report", statuses=pending)
    yield "status FAILED + created in one day", SagaFilter(statuses=failed, created_from=middle, created_before=Instant(middle + day))
    yield "definition report + created before", SagaFilter(definition_name="report", created_before=middle)
    yield "label few + created before", SagaFilter(labels=(RARE,), created_before=middle)
    yield "paused + status COMPLETED: none", SagaFilter(is_paused=True, statuses=completed)
    yield "paused + label few", SagaFilter(is_paused=True, labels=(RARE,))
    yield "not paused + status PENDING", SagaFilter(is_paused=False, statuses=pending)
    yield "needs person + definition report", SagaFilter(needs_person=True, definition_name="report")
    yield "needs person + paused: none", SagaFilter(needs_person=True, is_paused=True)
    yield "needs no person + status FAILED: none", SagaFilter(needs_person=False, statuses=failed)
    yield "incident many", SagaFilter(incident_kinds=frozenset({IncidentKind.COMPENSATION_EXHAUSTED}))
    yield "incident none", SagaFilter(incident_kinds=frozenset({IncidentKind.LATE_OUTCOME}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page by one filter."""

    length: int
    took_ms: float
    rows: int
    """That were read."""
    plan: Sequence[str]
    indexes: frozenset[str]
    has_scan: bool


async def measure_lists(pair: Pair, sagas: int) -> int:
    """Tells of each filter; returns how many are bad."""
    newest = (await pair.reader.read(partial(list_sagas, where=SagaFilter(), before=None, limit=1)))[0].created_at
    oldest = Instant(newest - int(SPAN / timedelta(microseconds=1)))
    bad: list[tuple[str, Page]] = []
    tell(f"\n{'filter':<48} {'first page':>20} {'far down':>20} {'rows read':>11}   index")
    async with grpc.aio.insecure_channel(pair.large.address) as channel:
        for name, where in filters(oldest):
            low, high = where.created_from or oldest, where.created_before or newest
            far = Instant(high - (high - low) * 2 // 3), SagaId("ffffffff-ffff-ffff-ffff-ffffffffffff")
            pages = [await measure_page(pair.reader, channel, where, before) for before in (None, far)]
            faults = ["SCAN"] * any(page.has_scan for page in pages)
            faults += ["READS THE TABLE"] * any(page.rows > max(PAGE_ROWS, sagas // PART_READ) for page in pages)
            faults += ["SLOW"] * any(page.took_ms > PAGE_AIM_MS for page in pages)
            times = " ".join(f"{page.length:4} in {page.took_ms:8.1f} ms " for page in pages)
            indexes = ", ".join(sorted(frozenset().union(*(page.indexes for page in pages))))
            tell(f"{name:<48}  {times}{max(page.rows for page in pages):11,}   {indexes}   {', '.join(faults)}")
            if faults:
                bad.append((name, max(pages, key=lambda page: page.rows)))
    for name, page in bad:
        tell("\n".join([f"\n{name}:", *page.plan]))
    return len(bad)


async def measure_page(reader: Reader, channel: grpc.aio.Channel, where: SagaFilter, before: tuple[Instant, SagaId] | None) -> Page:
    """Through the API; kinds of incidents, which ListSagas is not asked for but actions on many sagas are, within this process."""
    page = await reader.read(partial(explained, where=where, before=before))
    stub, request = coordinator_pb2_grpc.SagaServiceStub(channel), request_of(where, before)
    lengths, times_ms = [], []
    for _ in range(FIRST_REQUESTS + REQUESTS):
        began = time.perf_counter()
        if where.incident_kinds:
            lengths.append(len(await reader.read(partial(list_sagas, where=where, before=before, limit=PAGE_SIZE_DEFAULT))))
        else:
            lengths.append(len((await stub.ListSagas(request)).sagas))
        times_ms.append(1000 * (time.perf_counter() - began))
    return replace(page, length=max(lengths), took_ms=statistics.median(times_ms[FIRST_REQUESTS:]))


def request_of(where: SagaFilter, before: tuple[Instant, SagaId] | None) -> coordinator_pb2.ListSagasRequest:
    return coordinator_pb2.ListSagasRequest(
        page_token="" if before is None else saga_page_token(*before),
        statuses=[saga_pb2.SagaStatus.ValueType(status) for status in where.statuses],
        definition_name=where.definition_name,
        labels=dict(where.labels),
        created_from=None if where.created_from is None else to_timestamp(where.created_from),
        created_before=None if where.created_before is None else to_timestamp(where.created_before),
        paused=where.is_paused,
        needs_person=where.needs_person,
    )


def explained(connection: Connection, where: SagaFilter, before: tuple[Instant, SagaId] | None) -> Page:
    """What the database says of the very statements of a list, within a transaction such as a node reads in."""
    asked: list[tuple[str, Any]] = []

    def note(_: object, __: object, statement: str, parameters: Any, *___: object) -> None:
        if re.search(r"FROM saga\b", statement):  # not the one that reads the labels of what was found
            asked.append((statement, parameters))

    event.listen(connection, "before_cursor_execute", note)
    list_sagas(connection, where, before, PAGE_SIZE_DEFAULT + 1)
    event.remove(connection, "before_cursor_execute", note)
    explain = explain_sqlite if connection.dialect.name == "sqlite" else explain_postgres
    parts = [explain(connection, statement, parameters) for statement, parameters in asked]
    plan = [line for lines, _ in parts for line in lines]
    scan = r"SCAN saga(?! USING)|Seq Scan on saga\b"
    return Page(
        length=0,
        took_ms=0.0,
        rows=sum(rows for _, rows in parts),
        plan=plan,
        indexes=frozenset(index for line in plan for index in re.findall(r"(?:INDEX|using|Scan on) ((?:ix|pk|sqlite)_\w+)", line)),
        has_scan=any(re.search(scan, line) for line in plan),
    )


def explain_sqlite(connection: Connection, statement: str, parameters: Any) -> tuple[list[str], int]:
    """How it searches, and how many rows it reads for that, by the instructions it needs."""
    lines = [f"  {row[3]}" for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
    driver: Any = connection.connection.driver_connection
    rows = itertools.count()
    driver.set_progress_handler(lambda: next(rows) < 0, INSTRUCTIONS_PER_ROW)
    connection.exec_driver_sql(statement, parameters).all()
    driver.set_progress_handler(None, 0)
    return lines, next(rows)


def explain_postgres(connection: Connection, statement: str, parameters: Any) -> tuple[list[str], int]:
    """How it has searched, and how many rows it has read for that, entries of indexes included.

    A statement that is repeated on a connection is planned for its parameters at first, and after some times perhaps for any: the worse
    of the two is told.
    """
    types = dict(re.findall(r"\$(\d+)::([A-Z]+)", statement))
    given = ", ".join(types[str(place)] for place in range(1, len(parameters) + 1))
    cells = ", ".join(str(cell) if isinstance(cell, int) else "'" + cell.replace("'", "''") + "'" for cell in parameters)
    connection.exec_driver_sql(f"PREPARE asked ({given}) AS {statement}")
    found = []
    for _ in range(PLANNED_ANEW + 1):
        lines = [str(row[0]) for row in connection.exec_driver_sql(f"EXPLAIN (ANALYZE, BUFFERS) EXECUTE asked ({cells})")]
        found.append((lines, rows_read(lines)))
    connection.exec_driver_sql("DEALLOCATE asked")
    return max(found, key=lambda each: each[1])


def rows_read(plan: Sequence[str]) -> int:
    rows, loops = 0.0, 1.0
    for line in plan:
        if found := re.search(r" Scan\b.*\(actual .*rows=([\d.]+) loops=(\d+)", line):
            loops = float(found[2])
            rows += float(found[1]) * loops
        elif found := re.search(r"Rows Removed by .*: (\d+)", line):
            rows += float(found[1]) * loops
    return round(rows)


# ── The rest ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def measure_starts(pair: Pair) -> None:
    """Both run afterwards."""
    times: dict[Node, list[float]] = {pair.large: [], pair.empty: []}
    for _ in range(STARTS):
        for node, its_times in times.items():
            node.stop()
            tell("a node starts", is_passing=True)
            its_times.append(await node.start())
    for what, (node, its_times) in zip(("large", "empty"), times.items(), strict=True):
        took_s, used_mib = statistics.median(its_times), resident_mib(node.process.pid)
        tell(f"start, {what:<8} {took_s:8.2f} s{missed(took_s, START_AIM_S)}   then {used_mib:6.1f} MiB{missed(used_mib, MEMORY_AIM_MIB)}")


async def measure_costs(pair: Pair, sagas: int, concurrency: int, runs: int) -> None:
    costs: dict[Node, list[float]] = {pair.large: [], pair.empty: []}
    names = {pair.large: "large", pair.empty: "empty"}
    work = Work(sagas=sagas, concurrency=concurrency)
    with contextlib.ExitStack() as stack:
        for node in costs:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="saga-bench-")))
            await asyncio.to_thread(start_participants, directory, node.address, Options(), stack)
        for number, node in itertools.product(range(runs), costs):  # in turns, so that a noisy minute hits both
            run = await asyncio.to_thread(run_load, node.address, work, {"node": node.process.pid})
            costs[node].append(run.processor_ms["node"])
            tell(f"run {number + 1}, {names[node]:<8} {costs[node][-1]:6.2f} ms/saga   {sagas / run.took_s:5.0f} sagas/s")
    large, empty = (statistics.median(found) for found in costs.values())
    tell(f"cost, medians: {large:.2f} against {empty:.2f} ms/saga, {large / empty - 1:+.1%}{missed(large / empty - 1, COST_AIM)}")
    used_mib = resident_mib(pair.large.process.pid)
    tell(f"memory, large, after the load {used_mib:.1f} MiB{missed(used_mib, MEMORY_AIM_MIB)}")


def missed(found: float, aim: float) -> str:
    return f" (AIM MISSED: {aim:g})" if found > aim else ""


def tell(text: str, /, *, is_passing: bool = False) -> None:
    """On a terminal a passing line is overwritten by the next one."""
    is_overwritten = is_passing and sys.stdout.isatty()
    print(f"\r\x1b[K{text}" if sys.stdout.isatty() else text, end="" if is_overwritten else "\n", flush=True)


async def run(given: argparse.Namespace) -> int:
    """Returns the exit code."""
    total = given.finished + given.sleeping
    with tempfile.TemporaryDirectory(prefix="saga-large-") as name:
        async with AsyncExitStack() as stack:
            directory = Path(name)
            tell("the sagas to multiply are run", is_passing=True)
            node = Node(directory, "templates", str(directory / "templates.db"))
            stack.callback(node.stop)
            await node.start()
            templates = await make_templates(node.address, directory / "templates.db")
            node.stop()
            pair = await open_pair(directory, stack, is_postgres=given.postgres)
            await fill(pair.filling, templates, finished=given.finished, sleeping=given.sleeping, tell=tell)
            await measure_starts(pair)
            bad = await measure_lists(pair, total)
            tell(f"\n{bad or 'no'} lists take longer than {PAGE_AIM_MS:.0f} ms or read the table\n")
            await measure_costs(pair, given.sagas, given.concurrency, given.runs)
    return 1 if bad else 0


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.large", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--postgres", action="store_true", help="on PostgreSQL, with fsync, instead of SQLite")
    parser.add_argument("--finished", type=int, default=1_000_000, help="sagas at rest in the large database (default %(default)s)")
    parser.add_argument("--sleeping", type=int, default=200_000, help="sagas in it that wait for months (default %(default)s)")
    parser.add_argument("--sagas", type=int, default=2_000, help="new ones per run of the load (default %(default)s)")
    parser.add_argument("--concurrency", type=int, default=64, help="of them in flight (default %(default)s)")
    parser.add_argument("--runs", type=int, default=3, help="of the load on each of the two databases, in turns (default %(default)s)")
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
