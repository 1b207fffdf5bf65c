"""Lists of sagas and of incidents, page by page. Each runs within one database transaction, and so sees one state throughout.

What a page costs must not grow with what it is not about. Of what a list of sagas asks for, each condition that has an index is counted in
it, up to a bound, and the rarest leads: its sagas are walked newest first, and the rest is asked of the rows that it finds. SQLite has no
statistics to plan by, and those of PostgreSQL do not know which conditions go together, so the rest is written such that no index serves
it. If even the rarest has more sagas than are counted, the walk soon has a page together, unless few fit all: two conditions that are
both common and hardly ever hold together cost what the first of them has.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Final

from sqlalchemy import (
    Boolean,
    Column,
    ColumnElement,
    Connection,
    FromClause,
    Select,
    String,
    and_,
    case,
    exists,
    func,
    literal_column,
    not_,
    select,
    true,
    tuple_,
)

from coordinator.core.values import Instant, SagaId, SagaStatus
from coordinator.engine.ports import IncidentFilter, SagaFilter, StoredIncident, StoredSaga
from coordinator.journal.queries import cursor, select_sagas, with_labels
from coordinator.journal.rows import stored_incident
from coordinator.journal.statements import Cell
from coordinator.journal.tables import INCIDENT, IS_PAUSED, NEEDS_PERSON, SAGA, SAGA_LABEL

COUNTED_MAX: Final = 10_000
"""Sagas of a condition that are counted to find the rarest: that takes a millisecond, and they can all be walked if hardly any fits."""


def list_sagas(connection: Connection, where: SagaFilter, before: tuple[Instant, SagaId] | None, limit: int) -> list[StoredSaga]:
    """Sagas without events, newest first.

    A condition with several ranges of its index is as many queries whose results are merged: each stops at the limit, where one query for
    all would sort whatever it finds.
    """
    conditions = list(_conditions(where)) or [_ANY]
    leading = conditions[0]
    if len(conditions) > 1:
        leading = min(conditions, key=partial(_frequency, connection, where, before))
    rest = [*_unindexed(where), *(other.of_found for other in conditions if other is not leading)]
    found = [connection.execute(_with_sagas(query, leading).where(*rest).limit(limit)).all() for query in _walks(leading, where, before)]
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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Condition:
    """A part of what is asked for, with an index that keeps the sagas of each of its ranges in the order of their creation."""

    table: FromClause
    """Whose index that is; it has the columns `created_at` and `saga_id`."""
    ranges: Sequence[ColumnElement[bool]]
    """No saga is in two of them."""
    of_found: ColumnElement[bool]
    """The same, asked of a saga that another index finds."""


_ANY: Final = _Condition(table=SAGA, ranges=[true()], of_found=true())


def _conditions(where: SagaFilter) -> Iterator[_Condition]:
    """Of those that are equally rare the first leads."""
    if where.is_paused:
        yield _Condition(table=SAGA, ranges=[literal_column(IS_PAUSED)], of_found=_without_index(SAGA.c.paused) == 1)
    if where.needs_person or where.incident_kinds:
        yield _Condition(table=SAGA, ranges=[literal_column(NEEDS_PERSON)], of_found=_without_index(SAGA.c.needs_person) == 1)
    for place, (key, value) in enumerate(where.labels):
        label, its = SAGA_LABEL.alias(f"label_{place}"), SAGA_LABEL.alias(f"its_{place}")
        # Its one value of this key, and not whether there is a row: that would be a join, which PostgreSQL could begin at its other end.
        its_value = select(its.c.value).where(its.c.saga_id == SAGA.c.saga_id, its.c.key == key).scalar_subquery()
        yield _Condition(table=label, ranges=[and_(label.c.key == key, label.c.value == value)], of_found=its_value == value)
    if where.statuses or where.definition_name:
        yield _standing(where)


def _standing(where: SagaFilter) -> _Condition:
    """Status and definition have an index together. It begins with the definition and goes on with the status."""
    statuses = sorted(where.statuses or SagaStatus)
    of_found = _without_index(SAGA.c.status).in_(statuses) if where.statuses else true()
    if not where.definition_name:
        return _Condition(table=SAGA, ranges=[SAGA.c.status == status for status in statuses], of_found=of_found)
    name = where.definition_name
    return _Condition(
        table=SAGA,
        ranges=[and_(SAGA.c.definition_name == name, SAGA.c.status == status) for status in statuses],
        of_found=and_(of_found, _without_index(SAGA.c.definition_name) == name),
    )


def _unindexed(where: SagaFilter) -> Iterator[ColumnElement[bool]]:
    """What no index helps with. Of flags: nearly all sagas do not have them."""
    if where.is_paused is False:
        yield not_(SAGA.c.paused)
    if where.needs_person is False:  # with kinds that are open, nobody fits
        yield not_(SAGA.c.needs_person)
    if where.incident_kinds:
        is_of_kind = INCIDENT.c.kind.in_(sorted(where.incident_kinds))
        yield exists().where(INCIDENT.c.saga_id == SAGA.c.saga_id, INCIDENT.c.closed_at.is_(None), is_of_kind)


def _frequency(
    connection: Connection, where: SagaFilter, before: tuple[Instant, SagaId] | None, condition: _Condition
) -> tuple[int, Instant]:
    """How many sagas a condition leaves, as far as they are counted, and how far back these go: of two that are both common, that whose
    sagas are further apart is rarer. Nothing but entries of its index is read."""
    count, reach = 0, Instant(0)
    for query in _walks(condition, where, before):
        some = query.with_only_columns(condition.table.c.created_at).limit(COUNTED_MAX - count).subquery()
        found, oldest = connection.execute(select(func.count(), func.min(some.c.created_at))).one()
        count, reach = count + found, max(reach, oldest or reach)  # of several ranges the densest tells
        if count == COUNTED_MAX:
            break
    return count, reach


def _walks(condition: _Condition, where: SagaFilter, before: tuple[Instant, SagaId] | None) -> Iterator[Select[*tuple[Cell, ...]]]:
    """Where the sagas of each range are, newest first."""
    created_at, saga_id = condition.table.c.created_at, condition.table.c.saga_id
    for each in condition.ranges:
        query = select(created_at, saga_id).where(each, *_between(condition.table, where, before))
        yield query.order_by(created_at.desc(), saga_id.desc())


def _with_sagas(walk: Select[*tuple[Cell, ...]], leading: _Condition) -> Select[*tuple[Cell, ...]]:
    """What is read of each saga on the way."""
    query = walk.with_only_columns(*select_sagas().selected_columns)
    return query if leading.table is SAGA else query.where(leading.table.c.saga_id == SAGA.c.saga_id)


def _between(table: FromClause, where: SagaFilter, before: tuple[Instant, SagaId] | None) -> Iterator[ColumnElement[bool]]:
    """Within the time that is asked for."""
    place = table.c.created_at, table.c.saga_id
    if where.created_from is not None:
        yield place[0] >= where.created_from
    if before is not None:
        yield tuple_(*place) < cursor(place, before)
    if where.created_before is not None and (before is None or before[0] >= where.created_before):
        yield place[0] < where.created_before  # not if the cursor says more: SQLite would begin here and walk to it


def _without_index(column: Column[Any]) -> ColumnElement[Any]:
    """The same value in a form that no index is kept of, so that the planner cannot be drawn away from the index that must lead. Of a
    flag: 1 or 0."""
    if isinstance(column.type, Boolean):
        return case((column, 1), else_=0)
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
