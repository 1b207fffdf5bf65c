"""What the SQL barrier costs a participant: processor time per call, beside the same handler with a database transaction of its own.

Calls go to the servicer as `Exchange` hands them over, in this process and without gRPC: what is measured is reading the call, the
barrier, the handler and its database. All variants take turns, A B C A B C, so that a noisy neighbour disturbs them alike; the table
shows medians, and what the fastest and the slowest run were.

    python -m benchmarks.barrier [--runs 5] [--calls 384] [--postgres]
"""

import argparse
import asyncio
import statistics
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from google.protobuf.wrappers_pb2 import StringValue
from sqlalchemy import (
    URL,
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    bindparam,
    create_engine,
    event,
    insert,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from participant_sdk import NoBarrier, Participant, SqlBarrier, StepContext, SyncStepContext, action
from participant_sdk.barrier.table import barrier_table
from participant_sdk.servicer import ParticipantServicer
from saga.v1 import participant_pb2
from tests.postgres_server import PostgresServer

CONCURRENCIES: Final = (1, 16, 64)
SHARED: Final = 64
WARM_UP_CALLS: Final = 64
REPLY: Final = StringValue(value="r" * 40)

tables = MetaData()
reservation = Table("reservation", tables, Column("key", String(255), primary_key=True), Column("quantity", Integer, nullable=False))
stock = Table("stock", tables, Column("sku", String(20), primary_key=True), Column("available", Integer, nullable=False))
barrier_table(tables)

RESERVE: Final = insert(reservation).values(key=bindparam("reservation_key"), quantity=1)
TAKE: Final = update(stock).where(stock.c.sku == bindparam("wanted")).values(available=stock.c.available - 1)
WANTED: Final = {"wanted": "widget"}


class OwnAsync(Participant, name="bench"):
    """No barrier: a database transaction of its own."""

    def __init__(self, engine: AsyncEngine) -> None:
        super().__init__(barrier=NoBarrier())
        self._engine = engine

    @action
    async def reserve(self, request: StringValue, step: StepContext) -> StringValue:
        async with AsyncSession(self._engine) as session, session.begin():
            await session.execute(RESERVE, {"reservation_key": step.key})
            await session.execute(TAKE, WANTED)
        return REPLY


class OwnSync(Participant, name="bench"):
    """The same in a thread."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(barrier=NoBarrier())
        self._engine = engine

    @action
    def reserve(self, request: StringValue, step: StepContext) -> StringValue:
        with Session(self._engine) as session, session.begin():
            session.execute(RESERVE, {"reservation_key": step.key})
            session.execute(TAKE, WANTED)
        return REPLY


class GuardedAsync(Participant, name="bench"):
    @action
    async def reserve(self, request: StringValue, step: StepContext) -> StringValue:
        await step.session.execute(RESERVE, {"reservation_key": step.key})
        await step.session.execute(TAKE, WANTED)
        return REPLY


class GuardedSync(Participant, name="bench"):
    @action
    def reserve(self, request: StringValue, step: SyncStepContext) -> StringValue:
        step.session.execute(RESERVE, {"reservation_key": step.key})
        step.session.execute(TAKE, WANTED)
        return REPLY


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to do the same work."""

    name: str
    own: str
    """The variant that it is compared with."""
    participant: Callable[[AsyncEngine, Engine], Participant]


VARIANTS: Final = (
    Variant("async, own transaction", "async, own transaction", lambda waiting, _: OwnAsync(waiting)),
    Variant("async, barrier", "async, own transaction", lambda waiting, _: GuardedAsync(barrier=SqlBarrier(waiting))),
    Variant(
        "async, barrier, shared",
        "async, own transaction",
        lambda waiting, _: GuardedAsync(barrier=SqlBarrier(waiting, calls_per_commit=SHARED)),
    ),
    Variant("sync, own transaction", "sync, own transaction", lambda _, blocking: OwnSync(blocking)),
    Variant("sync, barrier", "sync, own transaction", lambda _, blocking: GuardedSync(barrier=SqlBarrier(blocking))),
    Variant(
        "sync, barrier, shared",
        "sync, own transaction",
        lambda _, blocking: GuardedSync(barrier=SqlBarrier(blocking, calls_per_commit=SHARED)),
    ),
)


@dataclass(slots=True)
class Figures:
    """What the runs of one variant at one concurrency gave."""

    processor_ms: list[float] = field(default_factory=list)
    """Per call, of this whole process."""
    calls_per_s: list[float] = field(default_factory=list)


class Caller:
    """Sends frames of calls to a servicer, and waits for all the replies of one before it sends the next."""

    def __init__(self, participant: Participant) -> None:
        self._servicer = ParticipantServicer(participant)
        self._frames: asyncio.Queue[participant_pb2.ExchangeRequest | None] = asyncio.Queue()
        self._replies = self._servicer.Exchange(self._requests(), None)  # type: ignore[arg-type]  # streams do without a context

    async def call(self, calls: int, concurrency: int) -> None:
        for first in range(0, calls, concurrency):
            await self._frames.put(_frame(first, concurrency))
            missing = concurrency
            while missing:
                frame = await anext(self._replies)
                for reply in frame.replies:
                    if not reply.executed.HasField("succeeded"):
                        raise RuntimeError(f"a call was not executed: {reply}")
                missing -= len(frame.replies)

    async def close(self) -> None:
        await self._frames.put(None)
        async for _ in self._replies:
            pass
        self._servicer.close()

    async def _requests(self) -> AsyncIterator[participant_pb2.ExchangeRequest]:
        while (frame := await self._frames.get()) is not None:
            yield frame


def _frame(first: int, concurrency: int) -> participant_pb2.ExchangeRequest:
    frame = participant_pb2.ExchangeRequest()
    for number in range(first, first + concurrency):
        call = frame.calls.add(id=number + 1)
        saga_id = str(uuid.uuid4())
        request = participant_pb2.ExecuteRequest(
            saga_id=saga_id, step_id="reserve", action="bench.reserve", key=f"{saga_id}/reserve/execute/1", attempt=1
        )
        request.definition.name, request.definition.version = "bench", 1
        request.first_attempt_at.GetCurrentTime()
        request.time_left.FromSeconds(60)
        request.input.Pack(StringValue(value="x" * 190))
        call.execute.CopyFrom(request)
    return frame


@asynccontextmanager
async def engines(database: str, postgres: URL | None, directory: Path) -> AsyncIterator[tuple[AsyncEngine, Engine]]:
    """Both kinds of engine on one new database with the tables in it."""
    if postgres is None:
        path = directory / f"{database}.db"
        waiting, blocking = create_async_engine(f"sqlite+aiosqlite:///{path}"), create_engine(f"sqlite:///{path}")
        for engine in (waiting.sync_engine, blocking):
            event.listen(engine, "connect", _make_durable)
    else:
        server = create_engine(postgres.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
        with server.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {database}"))
        server.dispose()
        url = postgres.set(database=database)
        waiting = create_async_engine(url.set(drivername="postgresql+asyncpg"))
        blocking = create_engine(url.set(drivername="postgresql+psycopg"))
    with blocking.begin() as connection:
        _fill(connection)
    try:
        yield waiting, blocking
    finally:
        await waiting.dispose()
        blocking.dispose()


def _make_durable(connection: object, _: object) -> None:
    cursor = connection.cursor()  # type: ignore[attr-defined]  # of whichever driver
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


def _fill(connection: Connection) -> None:
    tables.create_all(connection)
    connection.execute(insert(stock).values(sku="widget", available=1_000_000_000))


async def measure(variant: Variant, name: str, postgres: URL | None, directory: Path, calls: int, figures: dict[int, Figures]) -> None:
    """One run of a variant at each concurrency, on a database of its own; checks that every call took effect once."""
    async with engines(name, postgres, directory) as (waiting, blocking), AsyncExitStack() as stack:
        caller = Caller(variant.participant(waiting, blocking))
        stack.push_async_callback(caller.close)
        await caller.call(WARM_UP_CALLS, 16)
        for concurrency, found in figures.items():
            processor_s, wall_s = time.process_time(), time.perf_counter()
            await caller.call(calls, concurrency)
            found.processor_ms.append((time.process_time() - processor_s) / calls * 1e3)
            found.calls_per_s.append(calls / (time.perf_counter() - wall_s))
        with blocking.connect() as connection:
            taken = 1_000_000_000 - connection.execute(text("SELECT available FROM stock")).scalar_one()
            reserved = connection.execute(text("SELECT count(*) FROM reservation")).scalar_one()
        if not taken == reserved == WARM_UP_CALLS + calls * len(figures):
            raise RuntimeError(f"{variant.name}: {taken} were taken and {reserved} reserved")


async def bench(title: str, postgres: URL | None, directory: Path, *, runs: int, calls: int) -> None:
    figures = {variant.name: {concurrency: Figures() for concurrency in CONCURRENCIES} for variant in VARIANTS}
    for run in range(runs):
        for number, variant in enumerate(VARIANTS):
            await measure(variant, f"bench_{run}_{number}", postgres, directory, calls, figures[variant.name])
    print(f"\n{title}: processor ms per call, median (fastest to slowest of {runs} runs); calls/s; times the own transaction\n")
    print("| | " + " | ".join(f"{each} at a time" for each in CONCURRENCIES) + " |\n|---|" + "---|" * len(CONCURRENCIES))
    for variant in VARIANTS:
        cells = []
        for concurrency in CONCURRENCIES:
            found, own = figures[variant.name][concurrency], figures[variant.own][concurrency]
            # Ratios of the same run, which the same neighbours disturbed.
            ratio = statistics.median(a / b for a, b in zip(found.processor_ms, own.processor_ms, strict=True))
            spread = f"{min(found.processor_ms):.2f} to {max(found.processor_ms):.2f}"
            cells.append(
                f"{statistics.median(found.processor_ms):.2f} ({spread}); {statistics.median(found.calls_per_s):,.0f}/s; {ratio:.2f} x"
            )
        print(f"| {variant.name} | " + " | ".join(cells) + " |")


async def main(runs: int, calls: int, *, with_postgres: bool) -> None:
    with tempfile.TemporaryDirectory() as made:
        directory = Path(made)
        await bench("SQLite, WAL, synchronous=FULL", None, directory, runs=runs, calls=calls)
        if with_postgres:
            server = PostgresServer(directory / "postgres", settings={})
            server.start()
            try:
                await bench("PostgreSQL, without its own processor time", server.url, directory, runs=runs, calls=calls)
            finally:
                server.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What the SQL barrier costs a participant.")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--calls", type=int, default=384, help="per variant, concurrency and run; a multiple of 64")
    parser.add_argument("--postgres", action="store_true", help="measure on PostgreSQL as well")
    given = parser.parse_args()
    asyncio.run(main(given.runs, given.calls, with_postgres=given.postgres))
