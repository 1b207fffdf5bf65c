"""Rows as values of the ports, and back. What a database returns is checked here: beyond this file, values have their types."""

from collections.abc import Callable, Iterable, Sequence

from sqlalchemy import Row

from coordinator.codec.events import decode_event
from coordinator.core.errors import CorruptJournalError
from coordinator.core.events import Event
from coordinator.core.values import DefinitionKey, Failure, IncidentKind, Instant, SagaId, SagaStatus, StepId
from coordinator.engine.ports import StoredDefinition, StoredIncident, StoredParticipant, StoredSaga
from coordinator.journal.statements import Cell


def as_text(cell: Cell) -> str:
    """A cell that must be text."""
    if not isinstance(cell, str):
        raise CorruptJournalError(f"text was expected in the database, found {type(cell).__name__}")
    return cell


def as_int(cell: Cell) -> int:
    """A cell that must be a number."""
    if not isinstance(cell, int):
        raise CorruptJournalError(f"a number was expected in the database, found {type(cell).__name__}")
    return cell


def as_bytes(cell: Cell) -> bytes:
    """A cell that must be bytes."""
    if not isinstance(cell, bytes):
        raise CorruptJournalError(f"bytes were expected in the database, found {type(cell).__name__}")
    return cell


def stored_saga(
    row: Row[*tuple[Cell, ...]], labels: Iterable[tuple[str, str]], events: Sequence[Event] = (), *, in_doubt: bool = True
) -> StoredSaga:
    """A saga from its row, in the order of `queries.select_sagas`."""
    (saga_id, name, version, fingerprint, status, created_at, ended_at, code, message, paused, needs_person, shard, unfinished,
     wake_at) = row  # fmt: skip
    return StoredSaga(
        saga_id=SagaId(as_text(saga_id)),
        definition=DefinitionKey(as_text(name), as_int(version)),
        fingerprint=as_bytes(fingerprint),
        status=SagaStatus(as_int(status)),
        created_at=Instant(as_int(created_at)),
        ended_at=None if ended_at is None else Instant(as_int(ended_at)),
        is_paused=bool(as_int(paused)),
        needs_person=bool(as_int(needs_person)),
        events=tuple(events),
        labels=tuple(sorted(labels)),
        quarantined=None if code is None else Failure(as_int(code), as_text(message)),
        shard=as_int(shard),
        asleep_until=Instant(as_int(wake_at)) if unfinished and wake_at is not None else None,
        in_doubt=in_doubt,
    )


def events_of(payloads: Iterable[bytes], decode: Callable[[bytes], Event] = decode_event) -> tuple[list[Event], CorruptJournalError | None]:
    """The events of one saga up to the first that cannot be read or is out of order, and what is wrong with that; None: nothing."""
    events: list[Event] = []
    for payload in payloads:
        try:
            event = decode(payload)
        except CorruptJournalError as error:
            return events, error
        if event.sequence != len(events) + 1:
            return events, CorruptJournalError(f"event {len(events) + 1} was expected, found {event.sequence}")
        events.append(event)
    return events, None


def stored_incident(row: Row[*tuple[Cell, ...]]) -> StoredIncident:
    """An incident from its row and that of its saga, in the order of `listings.list_incidents`."""
    saga_id, number, kind, step_id, code, message, opened_at, closed_at, name, version, status = row
    return StoredIncident(
        saga_id=SagaId(as_text(saga_id)),
        definition=DefinitionKey(as_text(name), as_int(version)),
        status=SagaStatus(as_int(status)),
        id=as_int(number),
        kind=IncidentKind(as_int(kind)),
        step_id=None if step_id is None else StepId(as_text(step_id)),
        failure=Failure(as_int(code), as_text(message)),
        opened_at=Instant(as_int(opened_at)),
        closed_at=None if closed_at is None else Instant(as_int(closed_at)),
    )


def stored_definition(row: Row[*tuple[Cell, ...]]) -> StoredDefinition:
    """A definition from its row."""
    name, version, content, registered_at = row
    key = DefinitionKey(as_text(name), as_int(version))
    return StoredDefinition(key=key, content=as_bytes(content), registered_at=Instant(as_int(registered_at)))


def stored_participant(row: Row[*tuple[Cell, ...]]) -> StoredParticipant:
    """A registration from its row."""
    name, target, description, expires_at = row
    return StoredParticipant(
        name=as_text(name), target=as_text(target), description=as_bytes(description), expires_at=Instant(as_int(expires_at))
    )
