"""Deletes what nobody needs any more: sagas that ended long ago, start keys and registrations that have expired."""

from sqlalchemy import Connection, and_, delete, select, text, tuple_

from coordinator.core.values import Instant
from coordinator.engine.ports import Forgotten
from coordinator.journal.tables import EVENT, IS_FORGETTABLE, PARTICIPANT, SAGA, START_KEY


def forget(connection: Connection, *, shards: frozenset[int], ended_before: Instant, now: Instant, limit: int) -> Forgotten:
    """At most `limit` of each kind, the oldest sagas first. Harmless to repeat.

    Labels and incidents go with their saga. What can still move, is set aside, or waits for a person is no older than it is.
    """
    found = (
        select(SAGA.c.saga_id)
        .where(text(IS_FORGETTABLE), SAGA.c.ended_at < ended_before, SAGA.c.shard.in_(sorted(shards)))
        .order_by(SAGA.c.ended_at)
        .limit(limit)
    )
    sagas = list(connection.execute(found).scalars())
    if sagas:
        connection.execute(delete(EVENT).where(EVENT.c.saga_id.in_(sagas)))
        connection.execute(delete(SAGA).where(SAGA.c.saga_id.in_(sagas)))
    place = tuple_(START_KEY.c.definition_name, START_KEY.c.key)
    expired = select(START_KEY.c.definition_name, START_KEY.c.key).where(START_KEY.c.expires_at < now).limit(limit)
    keys = connection.execute(expired).all()
    if keys:
        gone = and_(place.in_([tuple(row) for row in keys]), START_KEY.c.expires_at < now)
        connection.execute(delete(START_KEY).where(gone))
    registrations = connection.execute(delete(PARTICIPANT).where(PARTICIPANT.c.expires_at < ended_before)).rowcount
    return Forgotten(sagas=len(sagas), keys=len(keys), registrations=registrations)
