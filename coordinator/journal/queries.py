"""Every question that is asked of the journal, but for the lists of sagas and incidents. Each runs within one database transaction, and
so sees one state throughout."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, Select, Tuple, and_, literal, select, text, tuple_

from coordinator.core.errors import CorruptJournalError
from coordinator.core.values import DefinitionKey, Instant, SagaId
from coordinator.engine.ports import StoredDefinition, StoredParticipant, StoredSaga
from coordinator.journal.rows import events_of, stored_definition, stored_participant, stored_saga
from coordinator.journal.statements import Cell
from coordinator.journal.tables import DEFINITION, EVENT, IS_ASLEEP, IS_AWAKE, PARTICIPANT, SAGA, SAGA_LABEL, START_KEY

IDS_PER_QUERY_MAX: Final = 500
"""Sagas whose labels or events are read with one statement."""


Wrote = Callable[[int, int], bool]
"""Whether the event of a shard at a position is one of our own."""


class Page(NamedTuple):
    """Sagas with their events."""

    sagas: list[StoredSaga]
    corrupt: list[tuple[SagaId, CorruptJournalError]]
    """Those that cannot be read, and why."""
    last: SagaId | None
    """Where the next page begins; None: there is none."""


def load_awake(connection: Connection, shard: int, after: SagaId | None, limit: int, wrote: Wrote) -> Page:
    """The next sagas by id that can move by themselves and do not sleep."""
    query = select_sagas().where(SAGA.c.shard == shard, text(IS_AWAKE)).order_by(SAGA.c.saga_id).limit(limit)
    if after is not None:
        query = query.where(SAGA.c.saga_id > after)
    page = _with_events(connection, connection.execute(query).all(), wrote)
    return page if len(page.sagas) + len(page.corrupt) == limit else page._replace(last=None)


def load(connection: Connection, ids: Sequence[SagaId], wrote: Wrote) -> Page:
    """These sagas, by id, as far as they are there and not set aside."""
    query = select_sagas().where(SAGA.c.saga_id.in_(ids), SAGA.c.quarantine_code.is_(None)).order_by(SAGA.c.saga_id)
    return _with_events(connection, connection.execute(query).all(), wrote)


def find_asleep(
    connection: Connection, shard: int, since: Instant, until: Instant, after: tuple[Instant, SagaId] | None, limit: int
) -> list[tuple[Instant, SagaId]]:
    """Sagas that sleep until an instant in [since, until), by that and their id."""
    mine = and_(SAGA.c.shard == shard, text(IS_ASLEEP), SAGA.c.wake_at >= since, SAGA.c.wake_at < until)
    query = select(SAGA.c.wake_at, SAGA.c.saga_id).where(mine).order_by(SAGA.c.wake_at, SAGA.c.saga_id).limit(limit)
    if after is not None:
        place = (SAGA.c.wake_at, SAGA.c.saga_id)
        query = query.where(tuple_(*place) > cursor(place, after))
    return [(Instant(row.wake_at), SagaId(row.saga_id)) for row in connection.execute(query)]


def _with_events(connection: Connection, rows: Sequence[Row[*tuple[Cell, ...]]], wrote: Wrote) -> Page:
    ids = [SagaId(row.saga_id) for row in rows]
    labels = _labels_of(connection, ids)
    written = _events_of(connection, ids)
    page = Page([], [], ids[-1] if ids else None)
    for saga_id, row in zip(ids, rows, strict=True):
        events, error = events_of(written[saga_id].payloads)
        if error is None and not events:
            error = CorruptJournalError("it has no events")
        if error is None:
            page.sagas.append(stored_saga(row, labels[saga_id], events, in_doubt=not wrote(row.shard, written[saga_id].position)))
        else:
            page.corrupt.append((saga_id, error))
    return page


def find_saga(connection: Connection, saga_id: SagaId, wrote: Wrote) -> StoredSaga | None:
    """One saga with its events; of a quarantined one those before the first that cannot be read. Raises CorruptJournalError otherwise."""
    row = connection.execute(select_sagas().where(SAGA.c.saga_id == saga_id)).one_or_none()
    if row is None:
        return None
    written = _events_of(connection, [saga_id])[saga_id]
    events, error = events_of(written.payloads)
    saga = stored_saga(row, _labels_of(connection, [saga_id])[saga_id], events, in_doubt=not wrote(row.shard, written.position))
    if error is not None and saga.quarantined is None:
        raise error
    return saga


def find_by_key(connection: Connection, definition_name: str, key: str, now: Instant) -> StoredSaga | None:
    """The saga that holds a start key, without events; None if nobody does, or not any more."""
    holder = select(START_KEY.c.saga_id).where(
        START_KEY.c.definition_name == definition_name, START_KEY.c.key == key, START_KEY.c.expires_at > now
    )
    row = connection.execute(select_sagas().where(SAGA.c.saga_id == holder.scalar_subquery())).one_or_none()
    return None if row is None else with_labels(connection, [row])[0]


def read_events(connection: Connection, saga_id: SagaId, after: int, limit: int) -> list[bytes]:
    """Encoded events after a sequence, in order."""
    mine = and_(EVENT.c.saga_id == saga_id, EVENT.c.sequence > after)
    return [row.payload for row in connection.execute(select(EVENT.c.payload).where(mine).order_by(EVENT.c.sequence).limit(limit))]


def find_definition(connection: Connection, name: str, version: int) -> StoredDefinition | None:
    """One definition; version 0 is the highest."""
    query = select(*DEFINITION.c).where(DEFINITION.c.name == name).order_by(DEFINITION.c.version.desc()).limit(1)
    if version:
        query = query.where(DEFINITION.c.version == version)
    row = connection.execute(query).one_or_none()
    return None if row is None else stored_definition(row)


def list_definitions(connection: Connection, name: str, after: DefinitionKey | None, limit: int) -> list[StoredDefinition]:
    """Definitions by name and version, after the cursor."""
    query = select(*DEFINITION.c).order_by(DEFINITION.c.name, DEFINITION.c.version).limit(limit)
    if name:
        query = query.where(DEFINITION.c.name == name)
    if after is not None:
        place = (DEFINITION.c.name, DEFINITION.c.version)
        query = query.where(tuple_(*place) > cursor(place, after))
    return [stored_definition(row) for row in connection.execute(query)]


def list_participants(connection: Connection) -> list[StoredParticipant]:
    """Every registration, by name and target."""
    query = select(*PARTICIPANT.c).order_by(PARTICIPANT.c.name, PARTICIPANT.c.target)
    return [stored_participant(row) for row in connection.execute(query)]


def cursor(place: Sequence[ColumnElement[Any]], values: Sequence[Cell]) -> Tuple:
    """The values of a place in an order, each of the type of its column: PostgreSQL compares no text with a UUID."""
    return tuple_(*(literal(value, item.type) for item, value in zip(place, values, strict=True)))


def select_sagas() -> Select[*tuple[Cell, ...]]:
    """In the order of cells that `stored_saga` expects."""
    return select(
        SAGA.c.saga_id,
        SAGA.c.definition_name,
        SAGA.c.definition_version,
        SAGA.c.fingerprint,
        SAGA.c.status,
        SAGA.c.created_at,
        SAGA.c.ended_at,
        SAGA.c.quarantine_code,
        SAGA.c.quarantine_message,
        SAGA.c.paused,
        SAGA.c.needs_person,
        SAGA.c.shard,
        SAGA.c.unfinished,
        SAGA.c.wake_at,
    )


def with_labels(connection: Connection, rows: Sequence[Row[*tuple[Cell, ...]]]) -> list[StoredSaga]:
    """The sagas of these rows, without events."""
    labels = _labels_of(connection, [row.saga_id for row in rows])
    return [stored_saga(row, labels[row.saga_id]) for row in rows]


def _labels_of(connection: Connection, ids: Sequence[SagaId]) -> defaultdict[SagaId, list[tuple[str, str]]]:
    found: defaultdict[SagaId, list[tuple[str, str]]] = defaultdict(list)
    for some in _pieces(ids):
        query = select(SAGA_LABEL.c.saga_id, SAGA_LABEL.c.key, SAGA_LABEL.c.value).where(SAGA_LABEL.c.saga_id.in_(some))
        for row in connection.execute(query):
            found[row.saga_id].append((row.key, row.value))
    return found


class _Written:
    """The events of one saga."""

    __slots__ = ("payloads", "position")

    def __init__(self) -> None:
        self.payloads: list[bytes] = []
        self.position = 0
        """Of the last one."""


def _events_of(connection: Connection, ids: Sequence[SagaId]) -> defaultdict[SagaId, _Written]:
    found: defaultdict[SagaId, _Written] = defaultdict(_Written)
    columns = (EVENT.c.saga_id, EVENT.c.position, EVENT.c.payload)
    for some in _pieces(ids):
        for row in connection.execute(select(*columns).where(EVENT.c.saga_id.in_(some)).order_by(EVENT.c.saga_id, EVENT.c.sequence)):
            written = found[row.saga_id]
            written.payloads.append(row.payload)
            written.position = row.position
    return found


def _pieces(ids: Sequence[SagaId]) -> Iterator[Sequence[SagaId]]:
    return (ids[start : start + IDS_PER_QUERY_MAX] for start in range(0, len(ids), IDS_PER_QUERY_MAX))
