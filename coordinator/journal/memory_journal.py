"""The journal in memory: for tests and simulation, where it stands in for a database that outlives the coordinators that use it.

It settles appends by the same rules as the one in SQL (one contract suite proves it) and stores the same bytes. It is no product: what a
coordinator has promised would be gone with its process.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from functools import lru_cache
from itertools import islice
from types import TracebackType
from typing import Final, Self

from coordinator.codec.events import decode_event
from coordinator.core.events import IncidentClosed, IncidentOpened
from coordinator.core.values import Code, DefinitionKey, Failure, IncidentKind, Instant, SagaId
from coordinator.engine.hints import Signals, Silence
from coordinator.engine.ports import (
    Append,
    Appended,
    Clock,
    Committed,
    Forgotten,
    IncidentFilter,
    JournalFigures,
    JournalListener,
    JournalUnavailableError,
    Moved,
    Refused,
    SagaFilter,
    StoredDefinition,
    StoredIncident,
    StoredParticipant,
    StoredSaga,
)
from coordinator.engine.shards import ONE_SHARD, Shards
from coordinator.journal.memory_database import (
    IncidentRow,
    MemoryDatabase,
    SagaRow,
    fits,
    is_asked_for,
    place_of,
    stored_incident,
    stored_saga,
    wrong_incidents,
)
from coordinator.journal.ownership import Ownership
from coordinator.journal.records import Record, record_of
from coordinator.journal.rows import events_of
from coordinator.journal.settling import KeyHolder, KeyName, doom, keys_of, name_of, settle, verdicts_of
from coordinator.journal.side_writes import written_reason
from coordinator.journal.tables import QUARANTINE_INCIDENT_ID

__all__ = ["MemoryDatabase", "MemoryJournal"]

CLOSED: Final = "the journal is closed"
_decode_again: Final = lru_cache(maxsize=10_000)(decode_event)
"""Simulations read the same sagas again and again."""


class MemoryJournal:
    """Implements `Journal`. Commits by itself in the turn of the loop after an append, or only when `commit` is called."""

    shards: Shards = ONE_SHARD
    signals: Signals = Silence()

    def __init__(
        self,
        *,
        clock: Clock,
        database: MemoryDatabase | None = None,
        listener: JournalListener | None = None,
        commits_by_itself: bool = True,
        ownership: Ownership | None = None,
    ) -> None:
        """`ownership`: what a node owns of a database that it shares; None: all of a database of its own."""
        self._clock = clock
        self._database = MemoryDatabase() if database is None else database
        self._is_exclusive = ownership is None
        self._ownership = Ownership("", {0: self._database.take(0, "")}) if ownership is None else ownership
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

    @property
    def figures(self) -> JournalFigures:
        """Nothing is counted here: no figures of it would tell anything."""
        return JournalFigures(commits=0, appends=0, refused=0)

    def commit(self) -> None:
        """Commits what is queued now, and tells the listener."""
        self._commit_is_due = False
        if not self._queue or self._lost is not None or self._is_closed:
            return
        assert self._listener is not None
        results: list[Appended] = []
        lost = frozenset(append.shard for append in self._queue if not self._owns(append.shard))
        if lost and self._is_exclusive:
            self._lose("a newer journal writes this database")
            return
        if lost:
            self.give_up(lost, f"shards {sorted(lost)} were taken by another node")
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

    def give_up(self, shards: frozenset[int], reason: str) -> None:
        """Nothing further of the sagas of these shards is committed or announced by this process (R26)."""
        assert self._listener is not None
        self._ownership.drop(shards)
        self._listener.shards_lost(shards, Failure(Code.UNAVAILABLE, reason))
        moved = tuple(Moved(append=append) for append in self._queue if append.shard in shards)
        self._queue = deque(append for append in self._queue if append.shard not in shards)
        if moved:
            self._listener.appended(moved)

    def _owns(self, shard: int) -> bool:
        held = self._ownership.find(shard)
        return held is not None and held.epoch == self._database.shards[shard].epoch

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
        wrong = wrong_incidents(append.events, set() if row is None else set(row.incidents))
        if wrong:
            return self._refuse(append, wrong)
        self._write(record)
        return result

    def _write(self, record: Record) -> None:
        append, database = record.append, self._database
        if append.start is not None:
            database.sagas[append.saga_id] = SagaRow(
                start=append.start, standing=record.standing, ended_at=record.ended_at, shard=append.shard
            )
            if append.start.key is not None:
                key = append.start.key
                database.keys[name_of(key)] = KeyHolder(append.saga_id, append.start.fingerprint, key.expires_at)
        row = database.sagas[append.saga_id]
        row.payloads += record.payloads
        database.shards[append.shard].position += len(record.payloads)
        row.position = database.shards[append.shard].position
        if record.changes_row(row.standing):
            row.standing = record.standing
            row.ended_at = record.ended_at if row.ended_at is None else row.ended_at
        for _, when, fact, _ in append.events:
            if isinstance(fact, IncidentOpened):
                failure = Failure(fact.failure.code, fact.failure.message)
                row.incidents[fact.id] = IncidentRow(kind=fact.kind, step_id=fact.step_id, failure=failure, opened_at=when)
            elif isinstance(fact, IncidentClosed):
                row.incidents[fact.id].closed_at = when

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
        earlier = row.incidents.get(QUARANTINE_INCIDENT_ID)
        row.incidents[QUARANTINE_INCIDENT_ID] = IncidentRow(
            kind=IncidentKind.QUARANTINED, step_id=None, failure=row.quarantined, opened_at=now if earlier is None else earlier.opened_at
        )

    async def load_awake(self, after: SagaId | None, limit: int, /, *, shard: int = 0) -> Sequence[StoredSaga]:
        """A page of the sagas that can move by themselves and do not sleep; fewer than `limit` only at the end, also when some were set
        aside."""
        self._check_usable()
        found: list[StoredSaga] = []
        for saga_id, row in sorted(self._database.sagas.items()):
            if len(found) == limit:
                break
            is_awake = row.standing.is_unfinished and row.standing.asleep_until is None
            if row.shard == shard and is_awake and (after is None or saga_id > after):
                found += await self.load([saga_id])
        return found

    async def find_asleep(
        self, since: Instant, until: Instant, after: tuple[Instant, SagaId] | None, limit: int, /, *, shard: int = 0
    ) -> Sequence[tuple[Instant, SagaId]]:
        """Sagas of a shard that sleep until an instant in [since, until), by that and their id, strictly after the cursor."""
        self._check_usable()
        asleep = [
            (row.standing.asleep_until, saga_id)
            for saga_id, row in self._database.sagas.items()
            if row.standing.asleep_until is not None
            and since <= row.standing.asleep_until < until
            and row.quarantined is None
            and row.shard == shard
        ]
        return [place for place in sorted(asleep) if after is None or place > after][:limit]

    async def load(self, ids: Sequence[SagaId], /) -> Sequence[StoredSaga]:
        """These sagas with their events, by id, as far as they are there and not set aside."""
        self._check_usable()
        found: list[StoredSaga] = []
        for saga_id in sorted(ids):
            row = self._database.sagas.get(saga_id)
            if row is None or row.quarantined is not None:
                continue
            events, error = events_of(row.payloads, _decode_again)
            if error is None:
                found.append(stored_saga(saga_id, row, events, in_doubt=not self._ownership.wrote(row.shard, row.position)))
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
        events, error = events_of(row.payloads, _decode_again)
        if error is not None and row.quarantined is None:
            raise error
        return stored_saga(saga_id, row, events, in_doubt=not self._ownership.wrote(row.shard, row.position))

    async def find_by_key(self, definition_name: str, key: str, now: Instant, /) -> StoredSaga | None:
        """The saga (without events) that holds an unexpired start key; None if nobody does."""
        self._check_usable()
        holder = self._database.keys.get(KeyName(definition_name, key))
        if holder is None or holder.expires_at <= now:
            return None
        return stored_saga(holder.saga_id, self._database.sagas[holder.saga_id])

    async def list_sagas(self, where: SagaFilter, before: tuple[Instant, SagaId] | None, limit: int, /) -> Sequence[StoredSaga]:
        """Sagas without events, newest first by (created_at, id), strictly before the cursor."""
        self._check_usable()
        newest_first = sorted(((row.start.created_at, saga_id) for saga_id, row in self._database.sagas.items()), reverse=True)
        found = (
            stored_saga(saga_id, self._database.sagas[saga_id])
            for created_at, saga_id in newest_first
            if (before is None or (created_at, saga_id) < before) and fits(self._database.sagas[saga_id], where)
        )
        return list(islice(found, limit))

    async def list_incidents(
        self, where: IncidentFilter, after: tuple[Instant, SagaId, int] | None, limit: int, /
    ) -> Sequence[StoredIncident]:
        """Incidents, oldest first by (opened_at, saga_id, id), strictly after the cursor. Those of sagas set aside have the id 0."""
        self._check_usable()
        every = (
            stored_incident(saga_id, row, number, incident)
            for saga_id, row in self._database.sagas.items()
            for number, incident in row.incidents.items()
        )
        oldest_first = sorted((incident for incident in every if is_asked_for(incident, where)), key=place_of)
        return [incident for incident in oldest_first if after is None or place_of(incident) > after][:limit]

    async def read_events(self, saga_id: SagaId, after: int, limit: int, /) -> Sequence[bytes]:
        """Encoded events after a sequence, in order; empty also for an unknown saga."""
        self._check_usable()
        row = self._database.sagas.get(saga_id)
        return [] if row is None else row.payloads[after : after + limit]

    # ── Definitions, participants and secrets ───────────────────────────────────────────────────────────────────────────────────

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

    async def forget(self, ended_before: Instant, now: Instant, limit: int, /) -> Forgotten:
        """Deletes at most `limit` sagas that ended before that, and as many start keys that have expired."""
        self._check_usable()
        content = self._database
        old = [
            (row.ended_at, saga_id)
            for saga_id, row in content.sagas.items()
            if row.ended_at is not None
            and row.ended_at < ended_before
            and not row.standing.is_unfinished
            and not row.open_kinds()
            and row.shard in self._ownership.shards
        ]
        sagas = sorted(old)[:limit]
        for _, saga_id in sagas:
            del content.sagas[saga_id]
        keys = [name for name, holder in content.keys.items() if holder.expires_at < now][:limit]
        for name in keys:
            del content.keys[name]
        expired = [place for place, registered in content.participants.items() if registered.expires_at < ended_before]
        for place in expired:
            del content.participants[place]
        return Forgotten(sagas=len(sagas), keys=len(keys), registrations=len(expired))

    async def put_participant(self, participant: StoredParticipant, /) -> None:
        """Stores a registration, or renews the one of the same name and target."""
        self._check_usable()
        self._database.participants[participant.name, participant.target] = participant

    async def list_participants(self) -> Sequence[StoredParticipant]:
        """Every registration, expired ones included."""
        self._check_usable()
        return [participant for _, participant in sorted(self._database.participants.items(), key=lambda item: item[0])]

    async def keep_secret(self, name: str, offered: bytes, /) -> bytes:
        """The secret of that name: stores the offered one if there is none yet."""
        self._check_usable()
        return self._database.secrets.setdefault(name, offered)

    def _check_usable(self) -> None:
        if self._lost is not None or self._is_closed:
            raise JournalUnavailableError(self._lost.message if self._lost is not None else CLOSED)
