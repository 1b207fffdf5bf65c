"""Events and starts of sagas that are committed with the business, or not at all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, TypeAlias, TypeVar, Unpack, overload

from sqlalchemy import Insert
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from participant_sdk.builder import Saga
from participant_sdk.client.starting import StartOptions
from participant_sdk.clock import Clock, wall_clock_us
from participant_sdk.outbox.database import AnyEngine, OutboxDatabase
from participant_sdk.outbox.hints import Hints
from participant_sdk.outbox.rows import NewRow, event_row, mapped_row, start_row, table_of
from participant_sdk.outbox.statistics import FailedRow, OutboxStatistics
from participant_sdk.outbox.store import STEP_ROWS, OutboxStore
from participant_sdk.outbox.table import OUTBOX_TABLE_NAME, OutboxId
from participant_sdk.payloads import Payload

FAILED_SHOWN: Final = 100
"""FAILED rows that are read at once unless asked otherwise."""

InputT = TypeVar("InputT", bound=Payload)
AnySession: TypeAlias = "AsyncSession | Session | async_scoped_session[AsyncSession] | scoped_session[Session]"
_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxInsert:
    """A row that is not written yet, for code that has a connection and no session."""

    id: OutboxId
    """Of the row."""
    saga_id: str
    """Of the saga that will be started; empty for an event."""
    statement: Insert
    """Writes it: execute it in the database transaction of the business."""


class Outbox:
    """What a service publishes and starts within the database transactions of its own database (transactional outbox).

        orders = Outbox()
        async with sessions.begin() as session:
            session.add(order)
            orders.publish(session, OrderPlaced(id=order.id), topic="orders", key=order.id)

    Nothing is published before the commit, and what is committed is published at least once, by an `OutboxRelay` somewhere. Needs no engine
    and does no I/O: one outbox serves all sessions of all threads of a process. The table must be in the database that the session writes.
    """

    def __init__(self, table_name: str = OUTBOX_TABLE_NAME, *, clock: Clock = wall_clock_us) -> None:
        self.table_name: Final = table_name
        self._table: Final = table_of(table_name)
        self._mapped: Final = mapped_row(table_name)
        self._clock: Final = clock
        self.hints: Final = Hints()
        """Relays of this process, which are told of commits."""

    def publish(
        self,
        session: AnySession,
        event: object,
        *,
        topic: str,
        key: str = "",
        headers: Mapping[str, str] = _NO_HEADERS,
        content_type: str = "",
    ) -> OutboxId:
        """Adds an event to the session: it is written with the next flush and published after the commit. Returns its id.

        `event`: a message of a type that actions may have, or bytes, of which `content_type` says what they are. At most 1 MiB.
        `key`: events of one topic and key are published in the order in which they were written. Between two database transactions there
        is such an order if the second writes the event after the first has committed, as it does when both lock the same row first: lock,
        or flush, before you publish.
        `headers`: 16 KiB at most, for whoever receives it.

        Raises OutboxRowInvalidError, PayloadEncodeError and TypeError for what could never be published.
        """
        row = event_row(event, topic=topic, key=key, headers=headers, content_type=content_type, now_us=self._clock())
        self._add(session, row)
        return row.id

    @overload
    def start_saga(self, session: AnySession, saga: Saga[InputT, Any], message: InputT, /, **options: Unpack[StartOptions]) -> str: ...

    @overload
    def start_saga(self, session: AnySession, saga: str, message: object, /, **options: Unpack[StartOptions]) -> str: ...

    def start_saga(self, session: AnySession, saga: Saga[Any, Any] | str, message: object, /, **options: Unpack[StartOptions]) -> str:
        """Adds the start of a saga to the session: it is sent to the coordinator after the commit. Returns the saga's id.

        Takes what `SagaClient.start` takes, and checks as much before anything is sent. With `key`, if the coordinator has a saga of that
        key already, that one counts and none of this id is started. Only what the coordinator refuses makes the row FAILED.

        Raises OutboxRowInvalidError, TypeError, ValueError and InvalidRequest for what could never be started.
        """
        row = start_row(saga, message, options, self._clock())
        self._add(session, row)
        return row.key

    def publish_statement(
        self, event: object, *, topic: str, key: str = "", headers: Mapping[str, str] = _NO_HEADERS, content_type: str = ""
    ) -> OutboxInsert:
        """The same as `publish`, as a statement to be executed on a connection."""
        return self._insert(event_row(event, topic=topic, key=key, headers=headers, content_type=content_type, now_us=self._clock()))

    @overload
    def start_statement(self, saga: Saga[InputT, Any], message: InputT, /, **options: Unpack[StartOptions]) -> OutboxInsert: ...

    @overload
    def start_statement(self, saga: str, message: object, /, **options: Unpack[StartOptions]) -> OutboxInsert: ...

    def start_statement(self, saga: Saga[Any, Any] | str, message: object, /, **options: Unpack[StartOptions]) -> OutboxInsert:
        """The same as `start_saga`, as a statement to be executed on a connection."""
        row = start_row(saga, message, options, self._clock())
        return self._insert(row, saga_id=row.key)

    # ── Looking after it ─────────────────────────────────────────────────────────────────────────────────────────────────────────
    # Each takes the engine of the database, of either kind, and raises OutboxUnavailableError.

    async def create_table(self, engine: AnyEngine) -> None:
        """Creates the table and its indexes where they are missing."""
        await self.store(engine).create_table()

    async def statistics(self, engine: AnyEngine) -> OutboxStatistics:
        """How many rows there are, by status."""
        return await self.store(engine).statistics()

    async def failed(self, engine: AnyEngine, *, limit: int = FAILED_SHOWN) -> Sequence[FailedRow]:
        """The oldest rows that were given up, each with the reason."""
        return await self.store(engine).failed(limit)

    async def redrive(self, engine: AnyEngine, ids: Sequence[OutboxId]) -> int:
        """Has those that are FAILED tried again, as if they were new; returns how many they were."""
        store = self.store(engine)
        return sum([await store.redrive(ids[begin : begin + STEP_ROWS]) for begin in range(0, len(ids), STEP_ROWS)])

    async def redrive_all(self, engine: AnyEngine) -> int:
        """The same for all that are FAILED."""
        store, total, position = self.store(engine), 0, -1
        while True:
            redriven, position = await store.redrive_after(position)
            total += redriven
            if redriven < STEP_ROWS:
                return total

    async def discard(self, engine: AnyEngine, ids: Sequence[OutboxId]) -> int:
        """Deletes those that are FAILED, unpublished: what waits behind them goes on. Returns how many they were."""
        store = self.store(engine)
        return sum([await store.discard(ids[begin : begin + STEP_ROWS]) for begin in range(0, len(ids), STEP_ROWS)])

    def store(self, engine: AnyEngine, *, clock: Clock | None = None) -> OutboxStore:
        """Its rows in that database. `clock`: None for the database's own."""
        return OutboxStore(OutboxDatabase(engine), self._table, clock=clock)

    def _add(self, session: AnySession, row: NewRow) -> None:
        written: Any = self._mapped(**row.values())
        session.add(written)
        self.hints.follow(session)

    def _insert(self, row: NewRow, saga_id: str = "") -> OutboxInsert:
        return OutboxInsert(id=row.id, saga_id=saga_id, statement=self._table.insert().values(row.values()))
