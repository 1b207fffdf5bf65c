"""One batch of appends, one database transaction.

Everything here is synchronous and runs where a database call may block: for SQLite in one thread that belongs to the writer. One hop
between the threads for a whole batch costs a quarter of one hop for each call of the driver (0.25 against 1.4 ms for a commit).

NOTHING IS TOLD TO ANYBODY BEFORE `write` HAS RETURNED `Written`. A commit that may have happened is never repeated and never given up
before the database was asked (R26).
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar

from sqlalchemy import Connection, String, and_, bindparam, delete
from sqlalchemy.exc import IntegrityError

from coordinator.core.events import IncidentClosed, IncidentOpened
from coordinator.core.values import Instant, SagaId
from coordinator.engine.ports import Appended, SagaStart
from coordinator.journal.errors import DefectiveAppendError, OwnershipLostError, ShardsLostError
from coordinator.journal.ownership import Ownership, Positions
from coordinator.journal.records import Record, Standing
from coordinator.journal.rows import as_bytes, as_int, as_text
from coordinator.journal.settling import KeyHolder, KeyName, Settled, keys_of, name_of, settle
from coordinator.journal.statements import Row, Statements
from coordinator.journal.store import DATABASE_ERRORS, Store, Trouble, words_of
from coordinator.journal.tables import START_KEY

SAGAS_REMEMBERED_MAX: Final = 50_000
"""Sagas of which is remembered what was last written of them, about 300 bytes each. Of others the last event is looked up, for 3 µs, and
the row is written once more."""

COLLISIONS_MAX: Final = 5
"""Times in a row in which another node may make one of the starts of a batch, before the batch counts as failed and is repeated later."""

ResultT = TypeVar("ResultT")
Write = Callable[[Connection], ResultT]
"""Statements of one database transaction, without its begin and end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """The batch is settled, and what it says is committed."""

    results: Sequence[Appended]


@dataclass(frozen=True, slots=True, kw_only=True)
class Defective:
    """Nothing of the batch is committed, because something in it never can be (R28)."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unavailable:
    """It is not known whether the batch is committed. The same batch must be written again until something else is answered."""

    condition: str
    """In a word, the same for every try."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardsLost:
    """Nothing of the batch will be announced here that belongs to these shards. The rest of it is still to be written (R26, R27)."""

    shards: frozenset[int]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """Not ours to write any more (R26, R27, R32)."""

    reason: str


Outcome = Written | Defective | Unavailable | ShardsLost | Lost


@dataclass(frozen=True, slots=True, kw_only=True)
class _InDoubt:
    """A COMMIT was sent and its end not seen."""

    records: Sequence[Record]
    settled: Settled
    positions: Positions
    """Of its shards, if it happened."""


class _Remembered(NamedTuple):
    """What this process last wrote of a saga."""

    sequence: int
    standing: Standing


class Writer:
    """Owns the one connection that writes. Used by one thread at a time; safe to close twice."""

    def __init__(self, store: Store, connection: Connection, ownership: Ownership) -> None:
        self._store = store
        self._connection: Connection | None = connection
        self.ownership = ownership
        self._in_doubt: _InDoubt | None = None
        self._remembered: dict[SagaId, _Remembered] = {}
        self._statements = Statements(store.engine.dialect)

    def write(self, records: Sequence[Record]) -> Outcome:
        """Commits a batch, or says why not. Raises for nothing that a database can do."""
        try:
            self._check_undamaged()
            connection = self._connection or self._reconnect()
            settled = self._settled_by_doubt(records) or self._commit(connection, records)
            self._check_in_place()
        except DefectiveAppendError as error:
            return self._give_back(str(error))
        except OwnershipLostError as error:
            self.close()
            return Lost(reason=str(error))
        except ShardsLostError as error:
            return self._without(error)
        except DATABASE_ERRORS as error:
            return self._after(error)
        self._in_doubt = None
        self._remember(settled.kept)
        return Written(results=settled.results)

    def run(self, write: Write[ResultT]) -> ResultT | Defective | Unavailable | Lost:
        """Commits statements that are no append. `Unavailable`: it is not known whether they are; repeating them must be harmless."""
        try:
            self._check_undamaged()
            connection = self._connection or self._reconnect()
            with connection.begin():
                if self._store.is_exclusive:
                    self.ownership.check(connection)
                result = write(connection)
            self._check_in_place()
        except (OwnershipLostError, ShardsLostError) as error:
            self.close()
            return Lost(reason=str(error))
        except DATABASE_ERRORS as error:
            return self._after(error)
        return result

    def close(self) -> None:
        """Closes the connection; what was not committed is rolled back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._store.forget_written()
            connection.invalidate()  # not returned but thrown away, whatever state it is in
            connection.close()

    # ── One batch ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _settled_by_doubt(self, records: Sequence[Record]) -> Settled | None:
        """What the batch came to, if its COMMIT happened although its end was not seen. None: it is still to be written."""
        doubt, self._in_doubt = self._in_doubt, None
        if doubt is None:
            return None
        assert doubt.records is records, "a batch in doubt is settled before another is written"
        happened = self.ownership.happened(doubt.positions)
        if happened is None:
            raise ShardsLostError(doubt.positions, f"shards {sorted(doubt.positions)} were lost while a commit was in doubt")
        return doubt.settled if happened else None

    def _commit(self, connection: Connection, records: Sequence[Record]) -> Settled:
        """Ids are expected to be new. Only when one is not, it is read which are there, and the batch begins again (R4)."""
        for ids_are_read in (False, *(True,) * COLLISIONS_MAX):
            settled = self._try_commit(connection, records, ids_are_read=ids_are_read)
            if settled is not None:
                return settled
        raise BlockingIOError(f"other nodes have made the same starts {COLLISIONS_MAX} times in a row")

    def _try_commit(self, connection: Connection, records: Sequence[Record], *, ids_are_read: bool) -> Settled | None:
        """Writes a batch in one database transaction. None: an id or a key is there already; nothing was written."""
        transaction = connection.begin()
        positions = self.ownership.advance(connection, self._statements, records)
        taken = self._find_taken(connection, records) if ids_are_read else {}
        holders = self._find_holders(connection, records)
        settled = settle(records, holders, taken)
        if not settled.kept:
            transaction.rollback()
            return settled
        starts = [(record, record.append.start) for record in settled.kept if record.append.start is not None]
        try:
            self._statements.insert_sagas.count(connection, [_saga_row(record, start) for record, start in starts])
            self._insert_start_rows(connection, starts, holders)
        except IntegrityError as error:
            if (ids_are_read and self._store.is_exclusive) or self._store.trouble_of(error) is not Trouble.DUPLICATE:
                raise
            transaction.rollback()
            return None
        self._insert_events(connection, settled.kept, positions)
        self._update_sagas(connection, settled.kept)
        self._write_incidents(connection, settled.kept)
        self._in_doubt = _InDoubt(records=records, settled=settled, positions=positions)
        transaction.commit()
        self.ownership.settle(positions)
        return settled

    def _find_taken(self, connection: Connection, records: Sequence[Record]) -> dict[SagaId, bytes]:
        ids = {record.append.saga_id: None for record in records if record.append.start is not None}
        found = self._statements.find_sagas.fetch(connection, [(saga_id,) for saga_id in ids])
        return {SagaId(as_text(saga_id)): as_bytes(fingerprint) for saga_id, fingerprint in found}

    def _find_holders(self, connection: Connection, records: Sequence[Record]) -> dict[KeyName, KeyHolder]:
        names = keys_of(records)
        holders: dict[KeyName, KeyHolder] = {}
        for definition_name, key, saga_id, fingerprint, expires_at in self._statements.find_keys.fetch(connection, names):
            holder = KeyHolder(SagaId(as_text(saga_id)), as_bytes(fingerprint), Instant(as_int(expires_at)))
            holders[KeyName(as_text(definition_name), as_text(key))] = holder
        return holders

    def _insert_start_rows(self, connection: Connection, starts: Sequence[tuple[Record, SagaStart]], holders: Collection[KeyName]) -> None:
        """Keys and labels. A key that somebody else holds has expired, or the start would have lost."""
        keys = {
            name_of(start.key): (*name_of(start.key), record.append.saga_id, start.fingerprint, start.key.expires_at)
            for record, start in starts
            if start.key is not None
        }
        expired = [{"old_name": name.definition_name, "old_key": name.key} for name in keys if name in holders]
        if expired:
            connection.execute(_DELETE_KEY, expired)
        # In one order everywhere, so that nodes which make the same starts wait for each other and not in a circle.
        self._statements.insert_keys.count(connection, [keys[name] for name in sorted(keys)])
        labels = [(record.append.saga_id, key, value, start.created_at) for record, start in starts for key, value in start.labels]
        self._statements.insert_labels.count(connection, labels)

    def _insert_events(self, connection: Connection, records: Sequence[Record], positions: Positions) -> None:
        next_of = dict(positions)  # the room that was taken, filled from its end
        rows: list[Row] = []
        for record in reversed(records):
            append = record.append
            for event, payload in zip(reversed(append.events), reversed(record.payloads), strict=True):
                rows.append((append.shard, next_of[append.shard], append.saga_id, event.sequence, payload))
                next_of[append.shard] -= 1
        rows.reverse()
        try:
            self._statements.insert_events.count(connection, rows)
        except IntegrityError as error:
            if self._store.trouble_of(error) is not Trouble.DUPLICATE:
                raise
            # R27: never a duplicate to ignore. Somebody else has written what was ours to write.
            which = str(error.orig).replace("\n", " ")  # PostgreSQL and SQLite name the key
            raise OwnershipLostError(f"the journal holds events already that this process was about to append: {which}") from error
        self._check_predecessors(connection, records)

    def _check_predecessors(self, connection: Connection, records: Sequence[Record]) -> None:
        """A gap can never be repaired, so none may arise. What this process has written itself needs no question."""
        written: dict[SagaId, int] = {}
        asked: list[tuple[SagaId, int]] = []
        for record in records:
            append = record.append
            saga_id, expected = append.saga_id, append.expected_sequence
            if append.start is None and expected != written.get(saga_id):
                remembered = self._remembered.get(saga_id)
                if remembered is None or remembered.sequence != expected:
                    asked.append((saga_id, expected))
            written[saga_id] = record.sequence
        if self._statements.count_events.total(connection, asked) != len(asked):
            raise DefectiveAppendError(f"events that others follow are not in the journal: {asked[:3]}")

    def _remember(self, records: Sequence[Record]) -> None:
        """Keeps what was written of sagas that may go on. Those that were written longest ago are forgotten first."""
        remembered = self._remembered
        for record in records:
            append = record.append
            remembered.pop(append.saga_id, None)
            if append.is_unfinished:
                remembered[append.saga_id] = _Remembered(record.sequence, record.standing)
        while len(remembered) > SAGAS_REMEMBERED_MAX:
            del remembered[next(iter(remembered))]

    def _update_sagas(self, connection: Connection, records: Sequence[Record]) -> None:
        """Writes the rows that tell something else now. Of several changes of one saga the last one counts, but for the first end."""
        told: dict[SagaId, Standing] = {}
        ends: dict[SagaId, Instant] = {}
        changes: dict[SagaId, Row] = {}
        for record in records:
            append = record.append
            saga_id = append.saga_id
            if append.start is None and record.changes_row(told.get(saga_id) or self._standing_of(saga_id)):
                if record.ended_at is not None:
                    ends.setdefault(saga_id, record.ended_at)
                changes[saga_id] = _change_row(record, ends.get(saga_id))
            told[saga_id] = record.standing
        if self._statements.update_sagas.count(connection, list(changes.values())) != len(changes):
            raise DefectiveAppendError(f"not all of {len(changes)} sagas that were to change have a row")

    def _standing_of(self, saga_id: SagaId) -> Standing | None:
        remembered = self._remembered.get(saga_id)
        return None if remembered is None else remembered.standing

    def _write_incidents(self, connection: Connection, records: Sequence[Record]) -> None:
        """Opens and closes; then the rows of the sagas concerned are told whether a person is needed, by what is open in the end."""
        opened: list[Row] = []
        closed: dict[tuple[SagaId, int], Instant] = {}
        for record in records:
            saga_id = record.append.saga_id
            for _, when, fact, _ in record.append.events:
                if isinstance(fact, IncidentOpened):
                    opened.append((saga_id, fact.id, fact.kind, fact.step_id, fact.failure.code, fact.failure.message, when))
                elif isinstance(fact, IncidentClosed):
                    closed[saga_id, fact.id] = when
        self._statements.insert_incidents.count(connection, opened)
        if self._statements.close_incidents.count(connection, [(*place, when) for place, when in closed.items()]) != len(closed):
            raise DefectiveAppendError(f"an incident that is to be closed is not in the journal: {list(closed)[:3]}")
        concerned = dict.fromkeys(row[:1] for row in (*opened, *closed))
        self._statements.update_needs.count(connection, list(concerned))

    # ── Ownership and trouble ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _reconnect(self) -> Connection:
        """A new connection, and with it an answer whether a COMMIT in doubt has happened (R26)."""
        connection = self._store.engine.connect()
        try:
            with connection.begin():
                self._store.guard(connection)
                held = self.ownership.reclaim(connection, {} if self._in_doubt is None else self._in_doubt.positions)
        except BaseException:
            connection.invalidate()
            connection.close()
            raise
        lost = self.ownership.shards - held.keys()
        self._connection = connection
        self.ownership.replace(held)
        if lost and self._store.is_exclusive:
            raise OwnershipLostError(f"shards {sorted(lost)} were written by somebody else while this process had no connection")
        return connection

    def _without(self, error: ShardsLostError) -> ShardsLost | Defective | Lost:
        if self._store.is_exclusive:
            self.close()
            return Lost(reason=str(error))
        self.ownership.drop(error.shards)
        rolled_back = self._give_back(str(error))
        return rolled_back if isinstance(rolled_back, Lost) else ShardsLost(shards=error.shards, reason=str(error))

    def _check_undamaged(self) -> None:
        damaged = self._store.why_damaged()
        if damaged is not None:
            raise OwnershipLostError(damaged)

    def _check_in_place(self) -> None:
        gone = self._store.note_written()
        if gone is not None:
            raise OwnershipLostError(gone)

    def _after(self, error: Exception) -> Defective | Unavailable | Lost:
        trouble = self._store.trouble_of(error)
        is_defect = trouble in (Trouble.DEFECT, Trouble.DUPLICATE)
        if is_defect and self._in_doubt is None:
            return self._give_back(f"the database refuses it: {words_of(error)}")
        try:
            gone = self._store.why_gone()  # before the connection is closed: that may change the files
        except OSError:
            gone = None  # that cannot be told now either
        self.close()
        if gone is not None or trouble is Trouble.GONE:
            return Lost(reason=gone or self._store.note_damage(error))
        return Unavailable(condition=self._store.condition_of(error), reason=words_of(error))

    def _give_back(self, reason: str) -> Defective | Lost:
        """Rolls back what was done of a batch, and says why it can never be done."""
        try:
            if self._connection is not None:
                self._connection.rollback()
                self._check_in_place()  # a large batch leaves traces in the write-ahead log, though nothing of it counts
        except OwnershipLostError as error:
            self.close()
            return Lost(reason=str(error))
        except DATABASE_ERRORS:
            self.close()  # which rolls back as well
        return Defective(reason=reason)


def _saga_row(record: Record, start: SagaStart) -> Row:
    append = record.append
    return (
        append.saga_id, append.shard, start.definition.name, start.definition.version, start.fingerprint, append.status, record.sequence,
        start.created_at, record.updated_at, record.ended_at, append.wake_at, append.is_unfinished, append.is_paused,
    )  # fmt: skip


def _change_row(record: Record, ended_at: Instant | None) -> Row:
    append = record.append
    return (
        append.saga_id, append.status, record.sequence, record.updated_at, ended_at, append.wake_at, append.is_unfinished,
        append.is_paused,
    )  # fmt: skip


_DELETE_KEY: Final = delete(START_KEY).where(
    and_(START_KEY.c.definition_name == bindparam("old_name", type_=String), START_KEY.c.key == bindparam("old_key", type_=String))
)
