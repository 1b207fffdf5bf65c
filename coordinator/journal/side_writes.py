"""Writes that are no appends. Each is a database transaction of its own, in the one writer, and harmless to repeat."""

from dataclasses import asdict
from typing import Final

from sqlalchemy import Connection, delete, insert, select, text, update

from coordinator.core.values import Failure, IncidentKind, Instant, SagaId
from coordinator.engine.ports import StoredDefinition, StoredParticipant
from coordinator.journal.queries import find_definition
from coordinator.journal.rows import as_bytes
from coordinator.journal.tables import INCIDENT, QUARANTINE_INCIDENT_ID, SAGA, SECRET

REASON_CHARS_MAX: Final = 2_000
"""Of the words with which a saga is set aside."""


def put_definition(connection: Connection, definition: StoredDefinition) -> StoredDefinition:
    """Stores a definition unless its key is taken; returns what is stored under the key now (R27)."""
    name, version = definition.key
    offered = {"name": name, "version": version, "content": definition.content, "registered_at": definition.registered_at}
    connection.execute(_OFFER_DEFINITION, offered)
    stored = find_definition(connection, name, version)
    assert stored is not None, "it was there, or is now"
    return stored


def put_participant(connection: Connection, participant: StoredParticipant) -> None:
    """Stores a registration in the place of the one of the same name and target."""
    connection.execute(_PUT_PARTICIPANT, asdict(participant))


def keep_secret(connection: Connection, name: str, offered: bytes) -> bytes:
    """The secret of that name: the offered one if there is none yet. Of two nodes that offer one at the same time, the second waits for
    the first one's database transaction and is told its secret; asking first and inserting then would fail for one of them."""
    connection.execute(_OFFER_SECRET, {"name": name, "value": offered})
    return as_bytes(connection.execute(select(SECRET.c.value).where(SECRET.c.name == name)).scalar_one())


def quarantine(connection: Connection, saga_id: SagaId, failure: Failure, now: Instant) -> bool:
    """Sets a saga aside with an open incident; False if there is no such saga. Again, it changes nothing but the reason."""
    reason = written_reason(failure)
    changed = connection.execute(
        update(SAGA)
        .where(SAGA.c.saga_id == saga_id)
        .values(quarantine_code=reason.code, quarantine_message=reason.message, needs_person=True)
    )
    if changed.rowcount == 0:
        return False
    mine = (INCIDENT.c.saga_id == saga_id, INCIDENT.c.id == QUARANTINE_INCIDENT_ID)
    opened_at = connection.execute(select(INCIDENT.c.opened_at).where(*mine, INCIDENT.c.closed_at.is_(None))).scalar_one_or_none()
    connection.execute(delete(INCIDENT).where(*mine))
    connection.execute(
        insert(INCIDENT).values(
            saga_id=saga_id,
            id=QUARANTINE_INCIDENT_ID,
            kind=IncidentKind.QUARANTINED,
            code=reason.code,
            message=reason.message,
            opened_at=now if opened_at is None else opened_at,
        )
    )
    return True


def written_reason(failure: Failure) -> Failure:
    """The reason as it is stored: short, and text that every database takes. What made a saga unwritable must not make this so too."""
    words = failure.message[:REASON_CHARS_MAX].encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
    return Failure(failure.code, words)


_OFFER_DEFINITION: Final = text(
    "INSERT INTO definition (name, version, content, registered_at) VALUES (:name, :version, :content, :registered_at) "
    "ON CONFLICT DO NOTHING"
)
_PUT_PARTICIPANT: Final = text(
    "INSERT INTO participant (name, target, description, expires_at) VALUES (:name, :target, :description, :expires_at) "
    "ON CONFLICT (name, target) DO UPDATE SET description = excluded.description, expires_at = excluded.expires_at"
)
# Plain SQL: SQLAlchemy knows ON CONFLICT only per dialect, and these words are the same in all of them.
_OFFER_SECRET: Final = text("INSERT INTO secret (name, value) VALUES (:name, :value) ON CONFLICT DO NOTHING")
