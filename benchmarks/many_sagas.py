"""Fills a database with a million sagas for `benchmarks.large`, without running a million.

A few dozen are run, one of each kind, on a coordinator of their own. Their rows are multiplied with ids, keys, labels and times of their
own, and their events are written anew with them, so that each can be replayed as if it had been run. What is made is the same every time,
but for the times.
"""

import itertools
import random
import sqlite3
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Protocol

import asyncpg
from google.protobuf.api_pb2 import Mixin
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import URL, Table

from benchmarks.participants import MESSAGE
from coordinator.codec.values import fill_timestamp, instant_of
from coordinator.core.values import Instant
from coordinator.journal.membership import SHARDS
from coordinator.journal.tables import EVENT, INCIDENT, SAGA, SAGA_LABEL, START_KEY
from participant_sdk import (
    Accepted,
    NoBarrier,
    Participant,
    ParticipantServer,
    Rejected,
    RetryPolicy,
    Saga,
    SagaClient,
    StepContext,
    StepDefaults,
    action,
)
from participant_sdk.ids import saga_id_of
from saga.v1 import saga_pb2

SPAN: Final = timedelta(days=29, hours=12)
"""In which all were created: just short of the time after which sagas that have ended are forgotten."""
AHEAD: Final = timedelta(days=90)
"""Sleepers wake so long after they were created: none of them while anything is measured."""
KEPT: Final = timedelta(days=60)
"""Start keys, likewise."""
DEFINITIONS: Final = {"order": 60, "refund": 39, "report": 1}
"""Percent of the sagas. Of the last there are none that sleep, but for those that are paused."""
REGIONS: Final = ("", "", "", "", "eu", "us")
"""A label, each as often as it stands here; who has none of it has no labels."""
CUSTOMERS: Final = 10_000
"""Different values of another label."""
SLOT_SAGAS: Final = 500
"""Sagas that are made at once. They are created a microsecond apart; in their events all of them were at the same time."""
FILL_CACHE_KIB: Final = 1_000_000

TABLES: Final = (SAGA, SAGA_LABEL, START_KEY, EVENT, INCIDENT)
"""Those that sagas have rows in; what others refer to comes first."""
_TIMES: Final = frozenset({"created_at", "updated_at", "ended_at", "wake_at", "opened_at", "closed_at", "expires_at"})
_FLAGS: Final = frozenset({"unfinished", "paused", "needs_person"})


class Kind(StrEnum):
    """How a saga stands. Its participant is told by the input."""

    COMPLETED = "completed"
    COMPENSATED = "compensated"
    FAILED = "failed"
    """With an open incident."""
    PAUSED = "paused"
    """Before it began."""
    PENDING = "pending"
    """Its start time is far off."""
    ACCEPTED = "accepted"
    """A step of it is finished months later."""


FINISHED: Final = {Kind.COMPLETED: 80.0, Kind.COMPENSATED: 19.0, Kind.FAILED: 0.5, Kind.PAUSED: 0.5}
"""Percent. Paused ones can still go on, but only a person makes them: they count with those that are at rest."""
SLEEPING: Final = {Kind.PENDING: 80.0, Kind.ACCEPTED: 20.0}

What = tuple[str, Kind, str]
"""Definition, kind and region."""
Cells = dict[str, Any]
"""A row, by column."""
Batch = Mapping[Table, list[tuple[Any, ...]]]
"""Rows in the order of the columns in `tables`."""


class Database(Protocol):
    """What is filled. It was made and given back by a node."""

    shards: int

    async def begin(self) -> None:
        """Before the first rows."""

    async def write(self, batch: Batch) -> None:
        """Adds rows."""

    async def end(self, positions: Sequence[int]) -> None:
        """After the last ones. `positions`: of the last event of each shard."""


class Told(Protocol):
    """Where it is told how far this is."""

    def __call__(self, text: str, /, *, is_passing: bool = False) -> None:
        """`is_passing`: the next text may take its place."""


async def fill(database: Database, templates: Mapping[What, "Template"], *, finished: int, sleeping: int, tell: Told) -> None:
    """Makes the sagas in the order in which they were created, those that sleep evenly among the others."""
    chance, total, began = random.Random(1), finished + sleeping, time.monotonic()
    span_us = int(SPAN / timedelta(microseconds=1))
    oldest_us = time.time_ns() // 1000 - span_us
    positions = [0] * database.shards
    await database.begin()
    for first in range(0, total, SLOT_SAGAS):
        created_at = oldest_us + span_us * first // total
        slot = _Slot(templates, created_at, chance, positions)
        for number in range(first, min(first + SLOT_SAGAS, total)):
            slot.add(number, created_at + number - first, is_sleeping=(number + 1) * sleeping // total > number * sleeping // total)
        await database.write(slot.batch)
        if first // SLOT_SAGAS % 40 == 0:
            tell(f"{first:,} of {total:,} sagas written", is_passing=True)
    await database.end(positions)
    tell(f"{total:,} sagas with {sum(positions):,} events written in {time.monotonic() - began:.0f} s")


class _Slot:
    """Sagas that are created at one time."""

    def __init__(self, templates: Mapping[What, "Template"], created_at: int, chance: random.Random, positions: list[int]) -> None:
        self.batch: Batch = {table: [] for table in TABLES}
        self._templates = templates
        self._moved: dict[What, Template] = {}
        self._created_at = created_at
        self._chance = chance
        self._positions = positions

    def add(self, number: int, created_at: int, *, is_sleeping: bool) -> None:
        template, shard = self._choose(is_sleeping=is_sleeping), number % len(self._positions)
        saga_id = saga_id_of(created_at // 1000, self._chance.getrandbits(80))
        own = {"saga_id": saga_id, "shard": shard, "created_at": created_at}
        sagas, labels, keys, events, incidents = self.batch.values()
        sagas.append(tuple((template.saga | own).values()))
        values = template.labels | ({"customer": customer(self._chance.randrange(CUSTOMERS))} if template.labels else {})
        labels.extend((saga_id, name, value, created_at) for name, value in values.items())
        keys.append(tuple((template.key | {"saga_id": saga_id, "key": key(number)}).values()))
        for sequence, payload in enumerate(template.payloads_of(saga_id, number, values.get("customer")), 1):
            self._positions[shard] += 1
            events.append((shard, self._positions[shard], saga_id, sequence, payload))
        incidents.extend(tuple((incident | {"saga_id": saga_id}).values()) for incident in template.incidents)

    def _choose(self, *, is_sleeping: bool) -> "Template":
        kinds = SLEEPING if is_sleeping else FINISHED
        (name,) = self._chance.choices(list(DEFINITIONS), list(DEFINITIONS.values()))
        (kind,) = self._chance.choices(list(kinds), list(kinds.values()))
        what = ("refund" if is_sleeping and name == "report" else name, kind, self._chance.choice(REGIONS))
        if what not in self._moved:
            self._moved[what] = self._templates[what].at(self._created_at)
        return self._moved[what]


def customer(number: int) -> str:
    """Equally long for all: it is replaced within the bytes of events."""
    return f"customer-{number:06d}"


def key(number: int) -> str:
    """Equally long for all, too."""
    return f"business-{number:09d}"


# ── Sagas to multiply ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Template:
    """A saga that was run, as it is stored."""

    saga: Cells
    labels: dict[str, str]
    key: Cells
    payloads: Sequence[bytes]
    incidents: Sequence[Cells]

    def at(self, created_at: int) -> "Template":
        """The same at another time, in its events too."""
        by = created_at - self.saga["created_at"]
        payloads = [_moved_event(payload, by) for payload in self.payloads]
        return Template(_moved(self.saga, by), self.labels, _moved(self.key, by), payloads, [_moved(row, by) for row in self.incidents])

    def payloads_of(self, saga_id: str, number: int, its_customer: str | None) -> list[bytes]:
        """The events of another saga. What is replaced is as long as what replaces it: so the bytes stay a message."""
        own, other = self.saga["saga_id"].encode(), saga_id.encode()
        started, *others = [payload.replace(own, other) for payload in self.payloads]
        started = started.replace(self.key["key"].encode(), key(number).encode())
        if its_customer is not None:
            started = started.replace(self.labels["customer"].encode(), its_customer.encode())
        return [started, *others]


def _moved(row: Cells, by: int) -> Cells:
    return {name: value + by if name in _TIMES and value is not None else value for name, value in row.items()}


def _moved_event(payload: bytes, by: int) -> bytes:
    message = saga_pb2.Event.FromString(payload)
    _move(message, by)
    return message.SerializeToString()


def _move(message: Message, by: int) -> None:
    for about, value in message.ListFields():
        if about.message_type is None or about.message_type.GetOptions().map_entry:
            continue
        for part in value if about.is_repeated else (value,):
            if isinstance(part, Timestamp):
                fill_timestamp(part, Instant(instant_of(part) + by))
            else:
                _move(part, by)


class Filler(Participant, name="filler"):
    """Does what the kind of the saga asks for."""

    @action
    async def one(self, request: Mixin, step: StepContext) -> Mixin:
        return MESSAGE

    @one.compensation
    async def undo_one(self, request: Mixin, output: Mixin, step: StepContext) -> None:
        if request.root == Kind.FAILED:
            raise Rejected("STUCK", "it cannot be undone")

    @action
    async def two(self, request: Mixin, step: StepContext) -> Mixin | Accepted:
        if request.root in {Kind.COMPENSATED, Kind.FAILED}:
            raise Rejected("GONE", "nothing is left")
        return Accepted(AHEAD) if request.root == Kind.ACCEPTED else MESSAGE

    @two.compensation
    async def undo_two(self, request: Mixin, output: Mixin | None, step: StepContext) -> None: ...


def filler_saga(name: str) -> Saga[Mixin]:
    """Two steps. One that cannot be undone needs a person at once."""
    saga = Saga(name, input=Mixin, defaults=StepDefaults(compensate_retry=RetryPolicy(max_attempts=1), execute_time_limit=2 * AHEAD))
    saga.step(Filler.one, saga.input)
    saga.step(Filler.two, saga.input)
    return saga


async def make_templates(coordinator: str, database: Path) -> dict[What, Template]:
    """Runs a saga of each kind on a coordinator that keeps its journal in that SQLite file, and reads what became of them."""
    wanted = list(itertools.product(DEFINITIONS, Kind, sorted(set(REGIONS))))
    async with ParticipantServer(Filler(barrier=NoBarrier()), coordinator=coordinator) as server, SagaClient(coordinator) as client:
        await server.wait_registered(timedelta(seconds=30))
        for name in DEFINITIONS:
            await client.register(filler_saga(name))
        ids = [await _run(client, what, number) for number, what in enumerate(wanted)]
    with closing(sqlite3.connect(database)) as connection:
        connection.row_factory = sqlite3.Row
        return {what: _read(connection, saga_id) for what, saga_id in zip(wanted, ids, strict=True)}


async def _run(client: SagaClient, what: What, number: int) -> str:
    name, kind, region = what
    labels = {"channel": "web", "customer": customer(0), "region": region} if region else {}
    message = Mixin(name="x" * 140, root=kind)
    if kind in {Kind.PENDING, Kind.PAUSED}:
        start_at = datetime.now(UTC) + AHEAD
        handle = await client.start(name, message, key=key(number), key_ttl=KEPT, labels=labels, start_at=start_at)
    else:
        handle = await client.start(name, message, key=key(number), key_ttl=KEPT, labels=labels)
    if kind is Kind.PAUSED:
        await client.operator.pause(handle.id, reason="to see it listed")
    elif kind is Kind.ACCEPTED:
        async with aclosing(client.watch(handle.id)) as events:
            async for seen in events:
                if seen.event.HasField("step_accepted"):
                    break
    elif kind is not Kind.PENDING:
        await handle.wait()
    return handle.id


def _read(connection: sqlite3.Connection, saga_id: str) -> Template:
    def rows(table: Table, order: str) -> list[Cells]:
        columns = ", ".join(column.name for column in table.c)
        found = connection.execute(f"SELECT {columns} FROM {table.name} WHERE saga_id = ? ORDER BY {order}", [saga_id])
        return [{name: bool(row[name]) if name in _FLAGS else row[name] for name in row.keys()} for row in found]  # noqa: SIM118

    (saga,), (start_key,) = rows(SAGA, "saga_id"), rows(START_KEY, "key")
    payloads = [row["payload"] for row in rows(EVENT, "sequence")]
    for payload in payloads:
        message = saga_pb2.Event.FromString(payload)
        if message.HasField("step_accepted"):  # said in the row too, whether this version of the journal does that or not
            saga["wake_at"] = instant_of(message.step_accepted.accepted_until)
    labels = {row["key"]: row["value"] for row in rows(SAGA_LABEL, "key")}
    return Template(saga, labels, start_key, payloads, rows(INCIDENT, "id"))


# ── Databases to fill ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class SqliteFilling:
    """Implements `Database`. Nothing is safe while it is filled: whoever interrupts that begins anew."""

    shards = 1

    def __init__(self, path: Path) -> None:
        self._path = path

    async def begin(self) -> None:
        self._connection = sqlite3.connect(self._path, isolation_level=None)
        for setting in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{FILL_CACHE_KIB}"):
            self._connection.execute(f"PRAGMA {setting}")
        self._connection.execute("BEGIN")

    async def write(self, batch: Batch) -> None:
        for table, rows in batch.items():
            names, places = ", ".join(column.name for column in table.c), ", ".join("?" * len(table.c))
            self._connection.executemany(f"INSERT INTO {table.name} ({names}) VALUES ({places})", rows)

    async def end(self, positions: Sequence[int]) -> None:
        self._connection.execute("UPDATE shard SET position = ?", positions)
        self._connection.execute("COMMIT")
        self._connection.close()


class PostgresFilling:
    """Implements `Database`."""

    shards = SHARDS

    def __init__(self, url: URL) -> None:
        self._url = url.set(drivername="postgresql")

    async def begin(self) -> None:
        self._connection = await asyncpg.connect(self._url.render_as_string(hide_password=False))

    async def write(self, batch: Batch) -> None:
        for table, rows in batch.items():
            await self._connection.copy_records_to_table(table.name, records=rows, columns=[column.name for column in table.c])

    async def end(self, positions: Sequence[int]) -> None:
        """Gathers statistics, as autovacuum would by itself after a while."""
        await self._connection.executemany("UPDATE shard SET position = $2 WHERE id = $1", list(enumerate(positions)))
        for statement in ("VACUUM ANALYZE", "CHECKPOINT"):
            await self._connection.execute(statement)
        await self._connection.close()
