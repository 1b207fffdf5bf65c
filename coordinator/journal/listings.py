"""Lists of sagas and of incidents, page by page. Each runs within one database transaction, and so sees one state throughout.

What a page costs must not grow with what it is not about. SQLite has no statistics to plan by, so every list is written such that one
index leads, and the rest is asked of the rows that it finds.
"""

import heapq
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Select, String, and_, exists, not_, select, text, tuple_

from coordinator.core.values import Instant, SagaId, SagaStatus
from coordinator.engine.ports import IncidentFilter, SagaFilter, StoredIncident, StoredSaga
from coordinator.journal.queries import cursor, select_sagas, with_labels
from coordinator.journal.rows import stored_incident
from coordinator.journal.statements import Cell
from coordinator.journal.tables import INCIDENT, IS_PAUSED, NEEDS_PERSON, SAGA, SAGA_LABEL


def list_sagas(connection: Connection, where: SagaFilter, before: tuple[Instant, SagaId] | None, limit: int) -> list[StoredSaga]:
    """Sagas without events, newest first.

    Several statuses are several queries whose results are merged: each walks an index from its newest end and stops at the limit, where
    one query for all would sort whatever it finds.
    """
    if where.is_paused or where.needs_person or where.incident_kinds:
        return with_labels(connection, connection.execute(_among_few(where, before).limit(limit)).all())
    statuses: Sequence[SagaStatus | None] = sorted(where.statuses) or [None]
    found = [connection.execute(_among_all(where, status, before).limit(limit)).all() for status in statuses]
    merged = heapq.merge(*found, key=lambda row: (row.created_at, row.saga_id), reverse=True)
    return with_labels(connection, list(islice(merged, limit)))


def list_incidents(
    connection: Connection, where: IncidentFilter, after: tuple[Instant, SagaId, int] | None, limit: int
) -> list[StoredIncident]:
    """Incidents, oldest first. The index of the open ones leads, or that of all by age; of one saga, its own few."""
    place = (INCIDENT.c.opened_at, INCIDENT.c.saga_id, INCIDENT.c.id)
    query = _incidents().order_by(*place).limit(limit)
    if not where.include_closed:
        query = query.where(INCIDENT.c.closed_at.is_(None))
    if where.kinds:
        query = query.where(INCIDENT.c.kind.in_(sorted(where.kinds)))
    if where.saga_id is not None:
        query = query.where(INCIDENT.c.saga_id == where.saga_id)
    if where.definition_name:
        query = query.where(_without_index(SAGA.c.definition_name) == where.definition_name)
    if after is not None:
        query = query.where(tuple_(*place) > cursor(place, after))
    return [stored_incident(row) for row in connection.execute(query)]


# ── Sagas ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _among_few(where: SagaFilter, before: tuple[Instant, SagaId] | None) -> Select[*tuple[Cell, ...]]:
    """Few sagas are paused or need a person: their own index leads, however many others have the status, definition or label asked for."""
    query = _between(select_sagas(), where, SAGA.c.created_at, SAGA.c.saga_id, before)
    if where.is_paused is not None:
        query = query.where(text(IS_PAUSED) if where.is_paused else not_(SAGA.c.paused))
    if where.needs_person or where.incident_kinds:
        query = query.where(text(NEEDS_PERSON))
    if where.needs_person is False:  # with kinds that are open, nobody fits
        query = query.where(not_(SAGA.c.needs_person))
    if where.incident_kinds:
        is_of_kind = INCIDENT.c.kind.in_(sorted(where.incident_kinds))
        query = query.where(exists().where(INCIDENT.c.saga_id == SAGA.c.saga_id, INCIDENT.c.closed_at.is_(None), is_of_kind))
    if where.statuses:
        query = query.where(_without_index(SAGA.c.status).in_(sorted(where.statuses)))
    if where.definition_name:
        query = query.where(_without_index(SAGA.c.definition_name) == where.definition_name)
    return query.where(*_labelled(where.labels))


def _among_all(where: SagaFilter, status: SagaStatus | None, before: tuple[Instant, SagaId] | None) -> Select[*tuple[Cell, ...]]:
    query = select_sagas()
    created_at, saga_id = SAGA.c.created_at, SAGA.c.saga_id
    if where.labels:
        (key, value), *others = where.labels
        leading = SAGA_LABEL.alias("leading")  # its index leads: newest first among the sagas that have this label
        query = query.join(leading, and_(leading.c.saga_id == SAGA.c.saga_id, leading.c.key == key, leading.c.value == value))
        query = query.where(*_labelled(others))
        created_at, saga_id = leading.c.created_at, leading.c.saga_id
    if status is not None:
        query = query.where(SAGA.c.status == status)
    if where.definition_name:
        query = query.where(SAGA.c.definition_name == where.definition_name)
    if where.is_paused is False:
        query = query.where(not_(SAGA.c.paused))
    if where.needs_person is False:
        query = query.where(not_(SAGA.c.needs_person))
    return _between(query, where, created_at, saga_id, before)


def _between(
    query: Select[*tuple[Cell, ...]],
    where: SagaFilter,
    created_at: Column[int],
    saga_id: Column[str],
    before: tuple[Instant, SagaId] | None,
) -> Select[*tuple[Cell, ...]]:
    """Within the time that is asked for, newest first, by the columns of the table that leads."""
    if where.created_from is not None:
        query = query.where(created_at >= where.created_from)
    if where.created_before is not None:
        query = query.where(created_at < where.created_before)
    if before is not None:
        query = query.where(tuple_(created_at, saga_id) < cursor((created_at, saga_id), before))
    return query.order_by(created_at.desc(), saga_id.desc())


def _labelled(labels: Iterable[tuple[str, str]]) -> list[ColumnElement[bool]]:
    """Conditions on the rows that another index finds."""
    conditions: list[ColumnElement[bool]] = []
    for place, (key, value) in enumerate(labels):
        label = SAGA_LABEL.alias(f"label_{place}")
        conditions.append(exists().where(label.c.saga_id == SAGA.c.saga_id, label.c.key == key, label.c.value == value))
    return conditions


def _without_index(column: Column[Any]) -> ColumnElement[Any]:
    """The same value in a form that no index is kept of, so that the planner cannot be drawn away from the index that must lead."""
    return column + ("" if isinstance(column.type, String) else 0)


# ── Incidents ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _incidents() -> Select[*tuple[Cell, ...]]:
    """In the order of cells that `stored_incident` expects."""
    return select(
        INCIDENT.c.saga_id,
        INCIDENT.c.id,
        INCIDENT.c.kind,
        INCIDENT.c.step_id,
        INCIDENT.c.code,
        INCIDENT.c.message,
        INCIDENT.c.opened_at,
        INCIDENT.c.closed_at,
        SAGA.c.definition_name,
        SAGA.c.definition_version,
        SAGA.c.status,
    ).join_from(INCIDENT, SAGA, SAGA.c.saga_id == INCIDENT.c.saga_id)
