"""What the journal in memory stores, and which of it a list shows."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from coordinator.core.events import Event, IncidentClosed, IncidentOpened
from coordinator.core.values import DefinitionKey, Failure, IncidentKind, Instant, SagaId, StepId
from coordinator.engine.ports import (
    IncidentFilter,
    SagaFilter,
    SagaStart,
    StoredDefinition,
    StoredIncident,
    StoredParticipant,
    StoredSaga,
)
from coordinator.journal.membership import Node
from coordinator.journal.ownership import Held
from coordinator.journal.records import Standing
from coordinator.journal.settling import KeyHolder, KeyName


@dataclass(slots=True, kw_only=True)
class IncidentRow:
    """What is stored of one incident."""

    kind: IncidentKind
    step_id: StepId | None
    failure: Failure
    opened_at: Instant
    closed_at: Instant | None = None


@dataclass(slots=True, kw_only=True)
class SagaRow:
    """What is stored of one saga."""

    start: SagaStart
    standing: Standing
    ended_at: Instant | None
    shard: int
    position: int = 0
    """In its shard, of its last event."""
    payloads: list[bytes] = field(default_factory=list)
    incidents: dict[int, IncidentRow] = field(default_factory=dict)
    quarantined: Failure | None = None

    def open_kinds(self) -> set[IncidentKind]:
        """What a person is needed for."""
        return {incident.kind for incident in self.incidents.values() if incident.closed_at is None}


@dataclass(slots=True, kw_only=True)
class ShardRow:
    """Who owns a shard."""

    owner: str = ""
    """The id of a node; empty: nobody."""
    epoch: int = 0
    lease_until: int = 0
    position: int = 0
    """Of its last event."""


@dataclass(slots=True, kw_only=True)
class NodeRow:
    """A process that shares the database with others."""

    node: Node
    started_at: int
    lease_until: int = 0
    is_cordoned: bool = False


@dataclass(slots=True, kw_only=True)
class MemoryDatabase:
    """What stays when a coordinator dies. Several journals may be made for it: only who owns a shard may write it."""

    shards: dict[int, ShardRow] = field(default_factory=lambda: {0: ShardRow()})
    nodes: dict[str, NodeRow] = field(default_factory=dict)
    sagas: dict[SagaId, SagaRow] = field(default_factory=dict)
    keys: dict[KeyName, KeyHolder] = field(default_factory=dict)
    definitions: dict[DefinitionKey, StoredDefinition] = field(default_factory=dict)
    participants: dict[tuple[str, str], StoredParticipant] = field(default_factory=dict)
    secrets: dict[str, bytes] = field(default_factory=dict)

    def take(self, shard: int, owner: str, *, until: int = 0) -> Held:
        """Changes the owner: nothing that was owned before can be written any more (P6)."""
        row = self.shards[shard]
        row.owner, row.lease_until, row.epoch = owner, until, row.epoch + 1
        return Held(row.epoch, row.position, since=row.position)


def wrong_incidents(events: Sequence[Event], there: set[int]) -> str:
    """What is wrong with the incidents that are opened and closed, if those are `there` already; empty: nothing."""
    for _, _, fact, _ in events:
        if isinstance(fact, IncidentOpened):
            if fact.id in there:
                return f"incident {fact.id} is there already"
            there.add(fact.id)
        elif isinstance(fact, IncidentClosed) and fact.id not in there:
            return f"incident {fact.id} that is to be closed is not there"
    return ""


def stored_saga(saga_id: SagaId, row: SagaRow, events: Sequence[Event] = (), *, in_doubt: bool = True) -> StoredSaga:
    """A saga as the port shows it."""
    return StoredSaga(
        saga_id=saga_id,
        definition=row.start.definition,
        fingerprint=row.start.fingerprint,
        status=row.standing.status,
        created_at=row.start.created_at,
        ended_at=row.ended_at,
        is_paused=row.standing.is_paused,
        needs_person=bool(row.open_kinds()),
        events=tuple(events),
        labels=tuple(sorted(row.start.labels)),
        quarantined=row.quarantined,
        asleep_until=row.standing.asleep_until,
        in_doubt=in_doubt,
        shard=row.shard,
    )


def stored_incident(saga_id: SagaId, row: SagaRow, number: int, incident: IncidentRow) -> StoredIncident:
    """An incident as the port shows it."""
    return StoredIncident(
        saga_id=saga_id,
        definition=row.start.definition,
        status=row.standing.status,
        id=number,
        kind=incident.kind,
        step_id=incident.step_id,
        failure=incident.failure,
        opened_at=incident.opened_at,
        closed_at=incident.closed_at,
    )


def place_of(incident: StoredIncident) -> tuple[Instant, SagaId, int]:
    """What incidents are ordered by."""
    return incident.opened_at, incident.saga_id, incident.id


def is_asked_for(incident: StoredIncident, where: IncidentFilter) -> bool:
    """Whether a list of incidents shows this one."""
    return (
        (where.include_closed or incident.closed_at is None)
        and (not where.kinds or incident.kind in where.kinds)
        and (where.saga_id is None or incident.saga_id == where.saga_id)
        and (not where.definition_name or incident.definition.name == where.definition_name)
    )


def fits(row: SagaRow, where: SagaFilter) -> bool:
    """Whether a list of sagas shows this one."""
    open_kinds = row.open_kinds()
    return (
        (not where.statuses or row.standing.status in where.statuses)
        and (not where.definition_name or row.start.definition.name == where.definition_name)
        and set(where.labels) <= set(row.start.labels)
        and (where.created_from is None or row.start.created_at >= where.created_from)
        and (where.created_before is None or row.start.created_at < where.created_before)
        and (where.is_paused is None or row.standing.is_paused is where.is_paused)
        and (where.needs_person is None or bool(open_kinds) is where.needs_person)
        and (not where.incident_kinds or not where.incident_kinds.isdisjoint(open_kinds))
    )
