"""The journal in memory: for tests and simulation, where it stands in for a database that outlives the coordinators that use it.

It settles appends by the same rules as the one in SQL (one contract suite proves it) and stores the same bytes. It is no product: what a
coordinator has promised would be gone with its process.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from coordinator.core.events import Event, IncidentOpened
from coordinator.core.values import UNFINISHED, Code, DefinitionKey, Failure, IncidentKind, Instant, SagaId, SagaStatus, StepId
from coordinator.engine.ports import (
    Append,
    Appended,
    Clock,
    Committed,
    JournalListener,
    JournalUnavailableError,
    Refused,
    SagaFilter,
    SagaStart,
    StoredDefinition,
    StoredParticipant,
    StoredSaga,
)
from coordinator.journal.records import Record, record_of
from coordinator.journal.rows import events_of
from coordinator.journal.settling import KeyHolder, KeyName, doom, keys_of, name_of, settle, verdicts_of
from coordinator.journal.side_writes import written_reason
from coordinator.journal.tables import QUARANTINE_INCIDENT_ID

CLOSED: Final = "the journal is closed"


@dataclass(slots=True, kw_only=True)
class SagaRow:
    """What is stored of one saga."""

    start: SagaStart
    status: SagaStatus
    ended_at: Instant | None
    wake_at: Instant | None
    payloads: list[bytes] = field(default_factory=list)
    quarantined: Failure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentRow:
    """What is stored of one incident."""

    kind: IncidentKind
    step_id: StepId | None
    failure: Failure
    opened_at: Instant


@dataclass(slots=True, kw_only=True)
class MemoryDatabase:
    """What stays when a coordinator dies. Several journals may be made for it, one after the other; only the last one may write."""

    epoch: int = 0
    sagas: dict[SagaId, SagaRow] = field(default_factory=dict)
    keys: dict[KeyName, KeyHolder] = field(default_factory=dict)
    incidents: dict[tuple[SagaId, int], IncidentRow] = field(default_factory=dict)
    definitions: dict[DefinitionKey, StoredDefinition] = field(default_factory=dict)
    participants: dict[tuple[str, str], StoredParticipant] = field(default_factory=dict)


class MemoryJournal:
    """Implements `Journal`. Commits by itself in the turn of the loop after an append, or only when `commit` is called."""

    def __init__(
        self,
        *,
        clock: Clock,
        database: MemoryDatabase | None = None,
        listener: JournalListener | None = None,
        commits_by_itself: bool = True,
    ) -> None:
        self._clock = clock
        self._database = MemoryDatabase() if database is None else database
        self._database.epoch += 1
        self._epoch = self._database.epoch
        self._listener = listener
        self._commits_by_itself = commits_by_itself
        self._commit_is_due = False
        self._queue: deque[Append] = deque()
        self._lost: Failure | None = None
        self._is_closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Commits what is queued and takes no more. Safe to call twice."""
        self.commit()
        self._is_closed = True

    # ── Appends ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def listen(self, listener: JournalListener) -> None:
        """Names who is told what became of appends. Once, before the first append."""
        assert self._listener is None, "a journal has one listener"
        self._listener = listener

    def append(self, batch: Sequence[Append], /) -> None:
        """Queues appends. After `lost` or `aclose` they are dropped, as a crash would drop them."""
        assert self._listener is not None, "nobody would be told: `listen` comes before the first append"
        if self._lost is not None or self._is_closed:
            return
        self._queue.extend(batch)
        if self._commits_by_itself and not self._commit_is_due:
            self._commit_is_due = True
            asyncio.get_running_loop().call_soon(self.commit)

    @property
    def stalled_for_us(self) -> int:
        """Memory is never away: 0."""
        return 0

    def commit(self) -> None:
        """Commits what is queued now, and tells the listener."""
        self._commit_is_due = False
        if not self._queue or self._lost is not None or self._is_closed:
            return
        assert self._listener is not None
        results: list[Appended] = []
        if self._epoch != self._database.epoch:
            self._lose(f"a newer journal than that of epoch {self._epoch} writes this database")
            return
        while self._queue:
            append = self._queue.popleft()
            result = self._settle(append)
            if result is None:
                self._lose("the journal holds events already that this process was about to append")  # R27
                return
            results.append(result)
            going_on, fallen = doom(self._queue, verdicts_of(results))
            self._queue = deque(going_on)
            results += fallen
        self._listener.appended(results)

    def _settle(self, append: Append) -> Appended | None:
        """What becomes of one append. None: its events are there already."""
        try:
            record = record_of(append)
        except (ValueError, TypeError, OverflowError) as error:
            return self._refuse(append, str(error))
        database = self._database
        holders = {name: database.keys[name] for name in keys_of([record]) if name in database.keys}
        row = database.sagas.get(append.saga_id)
        (result,) = settle([record], holders, {} if row is None else {append.saga_id: row.start.fingerprint}).results
        if not isinstance(result, Committed):
            return result
        last = 0 if row is None else len(row.payloads)
        if append.expected_sequence < last:
            return None
        if append.expected_sequence > last:
            return self._refuse(append, f"event {last + 1} was expected")
        if any((append.saga_id, number) in database.incidents for number in _incidents_of(record)):
            return self._refuse(append, "an incident with this id is there already")
        self._write(record)
        return result

    def _write(self, record: Record) -> None:
        append, database = record.append, self._database
        if append.start is not None:
            database.sagas[append.saga_id] = SagaRow(
                start=append.start, status=append.status, ended_at=record.ended_at, wake_at=append.wake_at
            )
            if append.start.key is not None:
                key = append.start.key
                database.keys[name_of(key)] = KeyHolder(append.saga_id, append.start.fingerprint, key.expires_at)
        row = database.sagas[append.saga_id]
        row.payloads += record.payloads
        if record.changes_row:
            row.status, row.ended_at, row.wake_at = append.status, record.ended_at, append.wake_at
        for event in append.events:
            if isinstance(fact := event.fact, IncidentOpened):
                database.incidents[append.saga_id, fact.id] = IncidentRow(
                    kind=fact.kind, step_id=fact.step_id, failure=fact.failure, opened_at=event.occurred_at
                )

    def _refuse(self, append: Append, reason: str) -> Refused:
        failure = Failure(Code.INTERNAL, f"cannot be written to the journal: {reason}")
        if append.start is None:
            self._set_aside(append.saga_id, failure, append.events[-1].occurred_at if append.events else self._clock.now())
        return Refused(append=append, failure=failure)

    def _lose(self, reason: str) -> None:
        self._lost = Failure(Code.INTERNAL, reason)
        self._queue.clear()
        assert self._listener is not None
        self._listener.lost(self._lost)

    # ── Sagas ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def quarantine(self, saga_id: SagaId, failure: Failure, /) -> None:
        """Sets a saga aside with an incident, after what was appended before."""
        self._check_usable()
        self.commit()
        self._set_aside(saga_id, failure, self._clock.now())

    def _set_aside(self, saga_id: SagaId, failure: Failure, now: Instant) -> None:
        row = self._database.sagas.get(saga_id)
        if row is None:
            return
        row.quarantined = written_reason(failure)
        place = (saga_id, QUARANTINE_INCIDENT_ID)
        opened_at = self._database.incidents[place].opened_at if place in self._database.incidents else now
        self._database.incidents[place] = IncidentRow(
            kind=IncidentKind.QUARANTINED, step_id=None, failure=row.quarantined, opened_at=opened_at
        )

    async def load_unfinished(self, after: SagaId | None, limit: int, /) -> Sequence[StoredSaga]:
        """A page of the sagas that can move by themselves; fewer than `limit` only at the end, also when some were set aside."""
        self._check_usable()
        found: list[StoredSaga] = []
        for saga_id, row in sorted(self._database.sagas.items()):
            if len(found) == limit:
                break
            if row.status not in UNFINISHED or row.quarantined is not None or (after is not None and saga_id <= after):
                continue
            events, error = events_of(row.payloads)
            if error is None:
                found.append(_stored(saga_id, row, events))
            else:
                self._set_aside(saga_id, Failure(Code.INTERNAL, f"its events cannot be read: {error}"), self._clock.now())
        return found

    async def find_saga(self, saga_id: SagaId, /) -> StoredSaga | None:
        """One saga with its events; of a quarantined one those before the first that cannot be read. Raises CorruptJournalError if the
        events cannot be read and nobody has noticed yet."""
        self._check_usable()
        row = self._database.sagas.get(saga_id)
        if row is None:
            return None
        events, error = events_of(row.payloads)
        if error is not None and row.quarantined is None:
            raise error
        return _stored(saga_id, row, events)

    async def find_by_key(self, definition_name: str, key: str, now: Instant, /) -> StoredSaga | None:
        """The saga (without events) that holds an unexpired start key; None if nobody does."""
        self._check_usable()
        holder = self._database.keys.get(KeyName(definition_name, key))
        if holder is None or holder.expires_at <= now:
            return None
        return _stored(holder.saga_id, self._database.sagas[holder.saga_id])

    async def list_sagas(self, where: SagaFilter, before: tuple[Instant, SagaId] | None, limit: int, /) -> Sequence[StoredSaga]:
        """Sagas without events, newest first by (created_at, id), strictly before the cursor."""
        self._check_usable()
        newest_first = sorted(((row.start.created_at, saga_id) for saga_id, row in self._database.sagas.items()), reverse=True)
        found = (
            _stored(saga_id, self._database.sagas[saga_id])
            for created_at, saga_id in newest_first
            if before is None or (created_at, saga_id) < before
        )
        return [saga for saga in found if _fits(saga, where)][:limit]

    async def read_events(self, saga_id: SagaId, after: int, limit: int, /) -> Sequence[bytes]:
        """Encoded events after a sequence, in order; empty also for an unknown saga."""
        self._check_usable()
        row = self._database.sagas.get(saga_id)
        return [] if row is None else row.payloads[after : after + limit]

    # ── Definitions and participants ────────────────────────────────────────────────────────────────────────────────────────────

    async def put_definition(self, definition: StoredDefinition, /) -> StoredDefinition:
        """Stores a definition unless its key is taken; returns what is stored under the key now."""
        self._check_usable()
        return self._database.definitions.setdefault(definition.key, definition)

    async def find_definition(self, name: str, version: int, /) -> StoredDefinition | None:
        """One definition; version 0 is the highest. None if there is none."""
        self._check_usable()
        versions = [key.version for key in self._database.definitions if key.name == name]
        return self._database.definitions.get(DefinitionKey(name, version or max(versions, default=0)))

    async def list_definitions(self, name: str, after: DefinitionKey | None, limit: int, /) -> Sequence[StoredDefinition]:
        """Definitions by name and version, after the cursor; `name` empty: all."""
        self._check_usable()
        found = (self._database.definitions[key] for key in sorted(self._database.definitions) if after is None or key > after)
        return [definition for definition in found if not name or definition.key.name == name][:limit]

    async def put_participant(self, participant: StoredParticipant, /) -> None:
        """Stores a registration, or renews the one of the same name and target."""
        self._check_usable()
        self._database.participants[participant.name, participant.target] = participant

    async def list_participants(self) -> Sequence[StoredParticipant]:
        """Every registration, expired ones included."""
        self._check_usable()
        return [participant for _, participant in sorted(self._database.participants.items(), key=lambda item: item[0])]

    def _check_usable(self) -> None:
        if self._lost is not None or self._is_closed:
            raise JournalUnavailableError(self._lost.message if self._lost is not None else CLOSED)


def _incidents_of(record: Record) -> Iterable[int]:
    return (event.fact.id for event in record.append.events if isinstance(event.fact, IncidentOpened))


def _stored(saga_id: SagaId, row: SagaRow, events: Sequence[Event] = ()) -> StoredSaga:
    return StoredSaga(
        saga_id=saga_id,
        definition=row.start.definition,
        fingerprint=row.start.fingerprint,
        status=row.status,
        created_at=row.start.created_at,
        ended_at=row.ended_at,
        events=tuple(events),
        labels=tuple(sorted(row.start.labels)),
        quarantined=row.quarantined,
    )


def _fits(saga: StoredSaga, where: SagaFilter) -> bool:
    return (
        (not where.statuses or saga.status in where.statuses)
        and (not where.definition_name or saga.definition.name == where.definition_name)
        and set(where.labels) <= set(saga.labels)
        and (where.created_from is None or saga.created_at >= where.created_from)
        and (where.created_before is None or saga.created_at < where.created_before)
    )
