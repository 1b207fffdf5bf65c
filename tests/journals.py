"""Journals under test: what is appended, who listens, and the databases in which several journals can follow one another."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, closing
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple, Protocol, Self
from uuid import uuid4

import asyncpg
from sqlalchemy import URL, create_engine

from coordinator.core.events import Event, Fact, IncidentOpened, SagaStarted, StepSucceeded
from coordinator.core.values import ENDED, UNFINISHED, DefinitionKey, Failure, IncidentKind, Instant, Payload, SagaId, SagaStatus, StepId
from coordinator.engine.clock import SystemClock
from coordinator.engine.ports import (
    Append,
    Appended,
    Clock,
    Journal,
    JournalListener,
    SagaStart,
    StartKey,
    StoredDefinition,
    StoredParticipant,
)
from coordinator.journal import MemoryDatabase, MemoryJournal, SqlJournal
from coordinator.journal.leases import LEASE_US
from coordinator.journal.memory_database import IncidentRow
from coordinator.journal.opening import open_postgres, this_node
from coordinator.journal.schema import bring_up_to_date
from coordinator.journal.sql_journal import NodeOptions
from coordinator.journal.sqlite import Connect, connect
from tests.builders import DEFINITION, INPUT, TRACE, at, attempt

CREATED_AT, LATER_AT, EXPIRES_AT = at(1), at(2), at(10_000)
OPEN_INCIDENTS_OF = "SELECT id, kind, step_id, message FROM incident WHERE closed_at IS NULL AND saga_id ="
WAIT_S = 20.0
"""For what must happen at once, on a machine that may be busy."""


class Told:
    """A listener that remembers what it was told."""

    def __init__(self, on_appended: Callable[[Sequence[Appended]], None] = lambda _: None) -> None:
        self.results: list[Appended] = []
        self.batches: list[int] = []
        self.lost_reason: Failure | None = None
        self.shards_lost_of: list[tuple[frozenset[int], Failure]] = []
        self._on_appended = on_appended
        self._news = asyncio.Event()

    def appended(self, results: Sequence[Appended], /) -> None:
        self.results += results
        self.batches.append(len(results))
        self._on_appended(results)
        self._news.set()

    def shards_lost(self, shards: frozenset[int], reason: Failure, /) -> None:
        self.shards_lost_of.append((shards, reason))
        self._news.set()

    def lost(self, reason: Failure, /) -> None:
        assert self.lost_reason is None, "told once"
        self.lost_reason = reason
        self._news.set()

    async def until(self, count: int) -> list[Appended]:
        """Waits for that many results in all; returns them."""
        await self._until(lambda: len(self.results) >= count)
        return self.results

    async def until_lost(self) -> Failure:
        """Waits for the end."""
        await self._until(lambda: self.lost_reason is not None)
        assert self.lost_reason is not None
        return self.lost_reason

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():
                self._news.clear()
                await self._news.wait()


class ImpatientClock(SystemClock):
    """Whatever should wait is done at once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._loop = loop

    def call_at(self, instant: Instant, callback: Callable[[], None], /) -> Callable[[], None]:
        return self._loop.call_soon(callback).cancel


class OpenJournal(Journal, AbstractAsyncContextManager["OpenJournal"], Protocol):
    """A journal with its life."""

    async def aclose(self) -> None:
        """Ends it."""


class OpenIncident(NamedTuple):
    """An open incident as it is stored, seen by somebody else."""

    id: int
    kind: IncidentKind
    step_id: str | None
    message: str


class World(Protocol):
    """A database, apart from the journals that use it one after the other."""

    clock: Clock

    async def open(self, listener: JournalListener) -> OpenJournal:
        """A journal on this database."""

    def sequences(self, saga_id: SagaId) -> list[int]:
        """What is committed of a saga, seen by somebody else."""

    def damage(self, saga_id: SagaId, sequence: int) -> None:
        """Makes one event unreadable."""

    def incidents(self, saga_id: SagaId) -> list[OpenIncident]:
        """The open incidents of a saga."""


class MemoryWorld:
    """A database in memory."""

    def __init__(self) -> None:
        self.clock: Clock = SystemClock(asyncio.get_running_loop())
        self.database = MemoryDatabase()

    async def open(self, listener: JournalListener) -> OpenJournal:
        return MemoryJournal(clock=self.clock, database=self.database, listener=listener)

    def sequences(self, saga_id: SagaId) -> list[int]:
        row = self.database.sagas.get(saga_id)
        return [] if row is None else list(range(1, len(row.payloads) + 1))

    def damage(self, saga_id: SagaId, sequence: int) -> None:
        self.database.sagas[saga_id].payloads[sequence - 1] = b"damaged"

    def incidents(self, saga_id: SagaId) -> list[OpenIncident]:
        return [
            OpenIncident(number, row.kind, row.step_id, row.failure.message)
            for number, row in sorted(self._incidents_of(saga_id).items())
            if row.closed_at is None
        ]

    def _incidents_of(self, saga_id: SagaId) -> dict[int, IncidentRow]:
        row = self.database.sagas.get(saga_id)
        return {} if row is None else row.incidents


@cache
def empty_database() -> bytes:
    """A database file with the tables and nothing in them: to make them takes long."""
    with TemporaryDirectory() as directory:
        path = Path(directory, "saga.db")
        engine = create_engine(f"sqlite:///{path}")
        with engine.begin() as connection:
            bring_up_to_date(connection, str(path))
        engine.dispose()
        return path.read_bytes()


class SqlWorld:
    """A database in an SQLite file. What it tells is read through a connection of its own."""

    def __init__(self, directory: Path, connect_to: Connect = connect) -> None:
        self.clock: Clock = SystemClock(asyncio.get_running_loop())
        self.path = directory / "saga.db"
        self._connect_to = connect_to

    def with_tables(self) -> Self:
        """Where it is of no interest how they come to be."""
        self.path.write_bytes(empty_database())
        return self

    async def open(self, listener: JournalListener) -> SqlJournal:
        return await SqlJournal.open(f"sqlite+aiosqlite:///{self.path}", clock=self.clock, listener=listener, connect=self._connect_to)

    def execute(self, statement: str, *parameters: object) -> list[tuple[object, ...]]:
        """Runs a statement as some other program would."""
        with closing(sqlite3.connect(self.path, isolation_level=None, timeout=WAIT_S)) as connection:
            return connection.execute(statement, parameters).fetchall()

    def sequences(self, saga_id: SagaId) -> list[int]:
        found = self.execute("SELECT sequence FROM event WHERE saga_id = ? ORDER BY position", saga_id)
        return [int(str(sequence)) for (sequence,) in found]

    def damage(self, saga_id: SagaId, sequence: int) -> None:
        self.execute("UPDATE event SET payload = ? WHERE saga_id = ? AND sequence = ?", b"damaged", saga_id, sequence)

    def incidents(self, saga_id: SagaId) -> list[OpenIncident]:
        return _open_incidents(self.execute(f"{OPEN_INCIDENTS_OF} ? ORDER BY id", saga_id))


NEXT_RELEASE: Final = (
    "ALTER TABLE saga ADD COLUMN tenant varchar(64), ADD COLUMN priority smallint NOT NULL DEFAULT 0",
    "ALTER TABLE event ADD COLUMN written_by varchar(36)",
    "ALTER TABLE saga_label ADD COLUMN origin smallint NOT NULL DEFAULT 0",
    "ALTER TABLE start_key ADD COLUMN tenant varchar(64)",
    "ALTER TABLE incident ADD COLUMN acknowledged_by varchar(64)",
    "ALTER TABLE definition ADD COLUMN tenant varchar(64)",
    "ALTER TABLE participant ADD COLUMN tenant varchar(64)",
    "ALTER TABLE shard ADD COLUMN weight smallint NOT NULL DEFAULT 1",
    "ALTER TABLE node ADD COLUMN zone varchar(64)",
    "CREATE TABLE relay_cursor (shard smallint PRIMARY KEY, position bigint NOT NULL)",
    "CREATE INDEX ix_saga_tenant ON saga (tenant, created_at, saga_id)",
    "UPDATE alembic_version SET version_num = '9998'",
)
"""What the next release might do to the tables while nodes of this one are alive."""


class PostgresWorld:
    """A database of its own on a server that tests share. What it tells is read through a connection of its own."""

    def __init__(self, server: URL, lease_us: int = LEASE_US, way: Callable[[URL], URL] = lambda url: url) -> None:
        """`way`: the URL under which nodes reach the database of a URL; without a detour if nothing is said."""
        self.clock: Clock = SystemClock(asyncio.get_running_loop())
        self._server = server
        self._lease_us = lease_us
        self._way = way
        self.url = server.set(database=f"saga_{uuid4().hex}")

    @property
    def node_url(self) -> str:
        """As nodes are told it."""
        return self._way(self.url).set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)

    def make(self, template: str) -> Self:
        """Makes the database, with tables and nothing in them."""
        _execute(self._server, f'CREATE DATABASE "{self.url.database}" TEMPLATE "{template}" STRATEGY FILE_COPY')
        return self

    def migrate_ahead(self) -> Self:
        """A node of the next release starts: it adds to every table what this one does not know, and takes nothing away."""
        for statement in NEXT_RELEASE:
            self.execute(statement)
        return self

    def with_lease(self, lease_us: int) -> Self:
        """Nodes that are opened from now on hold their shards so long."""
        self._lease_us = lease_us
        return self

    def drop(self) -> None:
        """Takes it away, whoever still uses it."""
        _execute(self._server, f'DROP DATABASE IF EXISTS "{self.url.database}" WITH (FORCE)')

    async def open(self, listener: JournalListener) -> SqlJournal:
        options = NodeOptions(address="127.0.0.1:1", lease_us=self._lease_us)
        return await SqlJournal.open(self.node_url, clock=self.clock, listener=listener, options=options)

    def execute(self, statement: str, *parameters: object) -> list[tuple[object, ...]]:
        """Runs a statement as some other program would."""
        return _execute(self.url, statement, *parameters)

    def sequences(self, saga_id: SagaId) -> list[int]:
        found = self.execute("SELECT sequence FROM event WHERE saga_id = $1 ORDER BY position", saga_id)
        return [int(str(sequence)) for (sequence,) in found]

    def damage(self, saga_id: SagaId, sequence: int) -> None:
        self.execute("UPDATE event SET payload = $1 WHERE saga_id = $2 AND sequence = $3", b"damaged", saga_id, sequence)

    def incidents(self, saga_id: SagaId) -> list[OpenIncident]:
        return _open_incidents(self.execute(f"{OPEN_INCIDENTS_OF} $1 ORDER BY id", saga_id))


def _open_incidents(found: Iterable[tuple[object, ...]]) -> list[OpenIncident]:
    return [
        OpenIncident(int(str(number)), IncidentKind(int(str(kind))), None if step_id is None else str(step_id), str(message))
        for number, kind, step_id, message in found
    ]


def _execute(url: URL, statement: str, *parameters: object) -> list[tuple[object, ...]]:
    async def execute() -> list[tuple[object, ...]]:
        connection = await asyncpg.connect(host=url.host, port=url.port, user=url.username, password=url.password, database=url.database)
        try:
            return [tuple(row) for row in await connection.fetch(statement, *parameters)]
        finally:
            await connection.close()

    with ThreadPoolExecutor(1) as elsewhere:  # the loop of the test is running here
        return elsewhere.submit(asyncio.run, execute()).result()


def make_template(server: URL) -> str:
    """The name of a database with the tables and nothing in them: to make them takes long."""
    name = f"template_{uuid4().hex}"
    _execute(server, f'CREATE DATABASE "{name}"')

    async def make() -> None:
        opened = await open_postgres(server.set(database=name, drivername="postgresql+asyncpg"), this_node(""))
        await opened.reader.aclose()
        await opened.writer_host.run(opened.writer.close)
        await opened.writer_host.finish(opened.release)

    with ThreadPoolExecutor(1) as elsewhere:
        elsewhere.submit(asyncio.run, make()).result()
    return name


# ── Appends ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def new_ids(count: int) -> list[SagaId]:
    """Ids that nobody has yet, in their order."""
    return sorted(SagaId(str(uuid4())) for _ in range(count))


def new_id() -> SagaId:
    """An id that nobody has yet."""
    return SagaId(str(uuid4()))


def start_key(key: str, *, expires_at: Instant = EXPIRES_AT, definition_name: str = DEFINITION.name) -> StartKey:
    """A key to start with."""
    return StartKey(definition_name=definition_name, key=key, expires_at=expires_at)


def first(
    saga_id: SagaId,
    *also: Fact,
    key: StartKey | None = None,
    asks: str = "this",
    labels: Iterable[tuple[str, str]] = (),
    created_at: Instant = CREATED_AT,
    definition: DefinitionKey = DEFINITION,
    status: SagaStatus = SagaStatus.RUNNING,
    wake_at: Instant | None = None,
    unfinished: bool | None = None,
    paused: bool = False,
    shard: int = 0,
) -> Append:
    """The append that starts a saga; two that ask for the same have the same fingerprint. Whether it is unfinished follows from the status
    if nothing else is said."""
    some = tuple(labels)
    started = SagaStarted(
        definition=definition,
        input=INPUT,
        labels=some,
        idempotency_key="" if key is None else key.key,
        start_at=wake_at,
        deadline=None,
        trace=TRACE,
    )
    start = SagaStart(definition=definition, fingerprint=asks.encode().ljust(32, b"."), labels=some, key=key, created_at=created_at)
    events = tuple(Event(sequence, created_at, fact) for sequence, fact in enumerate((started, *also), 1))
    return Append(
        saga_id=saga_id,
        events=events,
        status=status,
        is_unfinished=status in UNFINISHED if unfinished is None else unfinished,
        is_paused=paused,
        has_ended=status in ENDED,
        wake_at=wake_at,
        start=start,
        shard=shard,
    )


def step_done(step_id: str = "a", number: int = 1) -> StepSucceeded:
    """A fact that changes nothing but the step."""
    return StepSucceeded(attempt=attempt(step_id, number), sent_at=at(1), output=INPUT)


def then(
    saga_id: SagaId,
    sequence: int,
    *facts: Fact,
    status: SagaStatus = SagaStatus.RUNNING,
    when: Instant = LATER_AT,
    unfinished: bool | None = None,
    paused: bool = False,
    ended: bool | None = None,
    shard: int = 0,
) -> Append:
    """An append to a saga that was started, from that sequence on; a step that is done if nothing else is said. Whether it is unfinished
    or has ended follows from the status if nothing else is said."""
    return Append(
        saga_id=saga_id,
        events=tuple(Event(place, when, fact) for place, fact in enumerate(facts or (step_done(),), sequence)),
        status=status,
        is_unfinished=status in UNFINISHED if unfinished is None else unfinished,
        is_paused=paused,
        has_ended=status in ENDED if ended is None else ended,
        wake_at=None,
        shard=shard,
    )


def incident(
    number: int = 1, kind: IncidentKind = IncidentKind.STEP_REJECTED, step_id: str | None = "a", message: str = "stock is gone"
) -> IncidentOpened:
    """An incident that is opened."""
    about = None if step_id is None else StepId(step_id)
    return IncidentOpened(id=number, kind=kind, step_id=about, failure=Failure(9, message, (Payload("shop.v1.Reason", b"detail"),)))


def definition(name: str, version: int, content: bytes = b"plan") -> StoredDefinition:
    """A definition to store."""
    return StoredDefinition(key=DefinitionKey(name, version), content=content, registered_at=at(version))


def participant(name: str, target: str, description: bytes = b"actions", expires_s: float = 30) -> StoredParticipant:
    """A registration to store."""
    return StoredParticipant(name=name, target=target, description=description, expires_at=at(expires_s))


async def eventually(condition: Callable[[], bool]) -> None:
    """Waits for what no listener is told of."""
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.005)
