"""Outboxes under test: databases, those who write into them, and a publisher that keeps what it is given and fails as it is told."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from random import Random
from uuid import uuid4

from google.protobuf.wrappers_pb2 import StringValue
from sqlalchemy import URL, Column, Engine, MetaData, String, Table, create_engine, insert, select, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from participant_sdk.outbox import Outbox, OutboxEvent, OutboxRelay, OutboxStatistics, RelayPolicy
from participant_sdk.outbox.couriers import SagaStarter
from participant_sdk.outbox.outbox import AnySession
from saga.v1 import coordinator_pb2

WAIT_S = 30.0
"""For what must happen soon, on a machine that may be busy."""
TOPIC = "orders"
QUICK = RelayPolicy(
    attempts_max=5,
    backoff_min=timedelta(milliseconds=20),
    backoff_max=timedelta(milliseconds=80),
    publish_time_limit=timedelta(seconds=5),
    poll_min=timedelta(milliseconds=5),
    poll_max=timedelta(milliseconds=20),
    chance=Random(7),
)
"""A relay that does not make tests wait."""

business = MetaData()
orders = Table("orders", business, Column("id", String(64), primary_key=True))


def placed(name: str) -> StringValue:
    """An event."""
    return StringValue(value=name)


def name_of(event: OutboxEvent) -> str:
    return StringValue.FromString(event.payload).value


async def until(condition: Callable[[], bool]) -> None:
    """Waits for something that changes in this loop."""
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.005)


@dataclass
class Recorder:
    """Implements `Publisher`."""

    events: list[OutboxEvent] = field(default_factory=list)
    """What was taken, in that order."""
    tries: list[OutboxEvent] = field(default_factory=list)
    """What was given."""
    faults: dict[str, list[Exception]] = field(default_factory=lambda: defaultdict(list))
    """By event: what is raised first, each once."""
    always: dict[str, Exception] = field(default_factory=dict)
    """By event: what is raised each time."""
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    """What every call waits for. Open."""
    most_at_once: int = 0
    _now: int = 0

    def __post_init__(self) -> None:
        self.gate.set()

    async def publish(self, event: OutboxEvent, /) -> None:
        self.tries.append(event)
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        try:
            await asyncio.sleep(0)
            await self.gate.wait()
            name = name_of(event) if event.message_type else event.payload.decode()
            if self.faults[name]:
                raise self.faults[name].pop(0)
            if name in self.always:
                raise self.always[name]
            self.events.append(event)
        finally:
            self._now -= 1

    @property
    def names(self) -> list[str]:
        return [name_of(event) for event in self.events]

    async def until(self, count: int) -> None:
        """Waits until so many were taken."""
        await until(lambda: len(self.events) >= count)


@dataclass
class StartRecorder:
    """Implements `SagaStarter`: what a coordinator is asked."""

    requests: list[coordinator_pb2.StartSagaRequest] = field(default_factory=list)
    faults: list[Exception] = field(default_factory=list)

    async def start_prepared(
        self,
        request: coordinator_pb2.StartSagaRequest,
        /,
        *,
        timeout: timedelta | None = None,  # noqa: ASYNC109 - as SagaClient has it
    ) -> object:
        if self.faults:
            raise self.faults.pop(0)
        self.requests.append(request)
        return None


@dataclass
class OutboxWorld:
    """A service's database, by one kind of engine."""

    engine: AsyncEngine | Engine
    outbox: Outbox = field(default_factory=Outbox)

    @property
    def dialect(self) -> str:
        return self.engine.dialect.name

    async def open(self) -> None:
        await self.outbox.create_table(self.engine)
        if isinstance(self.engine, AsyncEngine):
            async with self.engine.begin() as connection:
                await connection.run_sync(business.create_all)
        else:
            business.create_all(self.engine)

    async def close(self) -> None:
        if isinstance(self.engine, AsyncEngine):
            await self.engine.dispose()
        else:
            self.engine.dispose()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AnySession]:
        """A session of the engine's kind, committed at the end."""
        if isinstance(self.engine, AsyncEngine):
            async with AsyncSession(self.engine) as session, session.begin():
                yield session
        else:
            with Session(self.engine) as blocking, blocking.begin():
                yield blocking

    async def place(self, *names: str, key: str = "") -> None:
        """Orders and their events, in one database transaction."""
        async with self.transaction() as session:
            for name in names:
                await execute(session, insert(orders).values(id=name))
                self.outbox.publish(session, placed(name), topic=TOPIC, key=key)

    async def placed_orders(self) -> list[str]:
        async with self.transaction() as session:
            return [str(row[0]) for row in await execute(session, select(orders.c.id).order_by(orders.c.id))]

    async def rows(self, *columns: str, where: str = "1 = 1") -> list[tuple[object, ...]]:
        """Of the outbox, by position."""
        table = self.outbox.table_name
        async with self.transaction() as session:
            found = await execute(session, text(f"SELECT {', '.join(columns)} FROM {table} WHERE {where} ORDER BY position"))
            return [tuple(row) for row in found]

    def relay(
        self,
        publisher: Recorder | None = None,
        client: SagaStarter | None = None,
        policy: RelayPolicy = QUICK,
        clock: Callable[[], int] | None = None,
        **changes: object,
    ) -> OutboxRelay:
        policy = replace(policy, **changes)  # type: ignore[arg-type]
        return OutboxRelay(self.engine, self.outbox, publisher=publisher, client=client, policy=policy, clock=clock)

    async def statistics(self) -> OutboxStatistics:
        return await self.outbox.statistics(self.engine)

    async def until_statistics(self, condition: Callable[[OutboxStatistics], bool]) -> OutboxStatistics:
        """Waits for what is written down."""
        async with asyncio.timeout(WAIT_S):
            while not condition(found := await self.statistics()):
                await asyncio.sleep(0.01)
            return found


async def execute(session: AnySession, statement: object) -> Sequence[tuple[object, ...]]:
    """On either kind of session."""
    result = session.execute(statement)  # type: ignore[call-overload]
    if asyncio.iscoroutine(result):
        result = await result
    return list(result) if result.returns_rows else []


async def flush(session: AnySession) -> None:
    result = session.flush()
    if asyncio.iscoroutine(result):
        await result


def made_database(server: URL) -> URL:
    """A new database on a PostgreSQL server."""
    name = f"service_{uuid4().hex}"
    root = create_engine(server.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    with root.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    root.dispose()
    return server.set(database=name)


def sqlite_engine(path: object, driver: str) -> AsyncEngine | Engine:
    """An engine on a SQLite file, of the kind that the driver has."""
    if driver == "aiosqlite":
        return create_async_engine(f"sqlite+aiosqlite:///{path}", connect_args={"timeout": 20})
    return create_engine(f"sqlite:///{path}", connect_args={"timeout": 20})
