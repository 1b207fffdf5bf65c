"""A database of the first release is brought up to date, and nothing in it is lost."""

import sqlite3
from pathlib import Path
from typing import Final

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

from coordinator.codec.events import encode_event
from coordinator.core.events import IncidentClosed, SagaCompleted
from coordinator.core.values import Failure, IncidentKind, SagaId, SagaStatus
from coordinator.engine.ports import Committed, IncidentFilter, SagaFilter
from coordinator.journal import JournalOpenError
from coordinator.journal.schema import HEAD_REVISION, SCRIPT_LOCATION
from coordinator.journal.sqlite import connect
from tests.builders import at
from tests.journals import SqlWorld, Told, definition, first, incident, new_ids, participant, then

TABLES: Final = ("definition", "event", "incident", "participant", "saga", "saga_label", "shard", "start_key")
IDS: Final = dict(zip([*SagaStatus, "quarantined"], new_ids(7), strict=True))
"""A saga of each status, and a running one that is set aside."""
QUARANTINED: Final = IDS["quarantined"]


@pytest.fixture
async def old(tmp_path: Path) -> SqlWorld:
    """A database that the first release has made and written."""
    world = SqlWorld(tmp_path)
    engine = create_engine(f"sqlite:///{world.path}")
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", SCRIPT_LOCATION)
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    engine.dispose()
    world.execute("INSERT INTO shard (id, owner, epoch, lease_until, position) VALUES (0, 'old', 3, NULL, 7)")
    world.execute("INSERT INTO definition VALUES ('place-order', 1, ?, 1000000)", b"plan")
    world.execute("INSERT INTO participant VALUES ('pay', 'a:1', ?, 1000000)", b"actions")
    for position, (name, saga) in enumerate(IDS.items(), 1):
        status = SagaStatus.RUNNING if name == "quarantined" else SagaStatus(name)
        write_old(world, saga, status, position, is_quarantined=name == "quarantined")
    return world


def write_old(world: SqlWorld, saga: SagaId, status: SagaStatus, position: int, *, is_quarantined: bool) -> None:
    """A saga with all that belonged to it then. FAILED and set aside: with an open incident."""
    started = first(saga).events[0]
    world.execute(
        "INSERT INTO saga (saga_id, shard, definition_name, definition_version, fingerprint, status, sequence, created_at, updated_at,"
        " ended_at, wake_at, quarantine_code, quarantine_message) VALUES (?, 0, 'place-order', 1, ?, ?, 1, ?, ?, ?, NULL, ?, ?)",
        *(saga, b"this".ljust(32, b"."), int(status), at(position), at(position)),
        at(50) if status in (SagaStatus.COMPLETED, SagaStatus.COMPENSATED) else None,
        *((13, "cannot be advanced") if is_quarantined else (None, None)),
    )
    world.execute("INSERT INTO saga_label VALUES (?, 'customer', ?, ?)", saga, str(position), at(position))
    world.execute("INSERT INTO start_key VALUES ('place-order', ?, ?, ?, ?)", f"order-{position}", saga, b"this".ljust(32, b"."), at(900))
    world.execute("INSERT INTO event VALUES (0, ?, ?, 1, ?)", position, saga, encode_event(saga, started))
    insert_incident = "INSERT INTO incident VALUES (?, ?, ?, ?, 14, ?, ?, ?)"
    if is_quarantined:
        world.execute(insert_incident, saga, 0, 3, None, "cannot be advanced", at(60), None)
    if status is SagaStatus.FAILED:
        world.execute(insert_incident, saga, 1, 1, "a", "gave up", at(61), None)
    if status is SagaStatus.COMPENSATED:
        world.execute(insert_incident, saga, 1, 1, "b", "settled long ago", at(40), at(41))


def contents(world: SqlWorld) -> dict[str, list[tuple[object, ...]]]:
    """Everything that the first release had a place for; without the epoch, which every start raises."""
    columns = {table: [str(row[1]) for row in world.execute(f"PRAGMA table_info({table})")] for table in TABLES}
    added = {"unfinished", "paused", "needs_person", "epoch", "owner"}
    return {
        table: world.execute(f"SELECT {', '.join(name for name in columns[table] if name not in added)} FROM {table} ORDER BY 1, 2")
        for table in TABLES
    }


async def test_nothing_is_lost(old: SqlWorld) -> None:  # P1
    before = contents(old)
    assert all(before.values())
    async with await old.open(Told()) as journal:
        assert await journal.find_definition("place-order", 1) == definition("place-order", 1)
        assert await journal.list_participants() == [participant("pay", "a:1", expires_s=1)]
    assert contents(old) == before
    assert old.execute("SELECT version_num FROM alembic_version") == [(HEAD_REVISION,)]
    assert old.execute("PRAGMA integrity_check") == [("ok",)]
    assert old.execute("PRAGMA foreign_key_check") == []


async def test_sagas_that_could_move_are_taken_up(old: SqlWorld) -> None:  # P1
    told = Told()
    async with await old.open(told) as journal:
        moving = [IDS[status] for status in (SagaStatus.PENDING, SagaStatus.RUNNING, SagaStatus.COMPENSATING)]
        stored = await journal.load_awake(None, 10)
        assert [saga.saga_id for saga in stored] == sorted(moving)
        assert {saga.is_paused for saga in stored} == {False}
        assert stored[1].events == first(stored[1].saga_id).events
        journal.append((then(moving[1], 2, SagaCompleted(output=None), status=SagaStatus.COMPLETED, when=at(99)),))
        assert [type(result) for result in await told.until(1)] == [Committed]
        ended = await journal.find_saga(moving[1])
        assert ended is not None
        assert (ended.status, ended.ended_at) == (SagaStatus.COMPLETED, at(99))


async def test_every_saga_is_found_as_it_was(old: SqlWorld) -> None:
    async with await old.open(Told()) as journal:
        for place, (name, saga) in enumerate(IDS.items(), 1):
            stored = await journal.find_saga(saga)
            held = await journal.find_by_key("place-order", f"order-{place}", at(1))
            assert stored is not None
            assert held is not None
            assert held.saga_id == saga
            assert (stored.status, stored.is_paused, stored.labels) == (
                SagaStatus.RUNNING if name == "quarantined" else name,
                False,
                (("customer", str(place)),),
            )
            assert (stored.ended_at is not None) == (stored.status in (SagaStatus.COMPLETED, SagaStatus.COMPENSATED))
            assert stored.quarantined == (Failure(13, "cannot be advanced") if name == "quarantined" else None)


async def test_open_incidents_still_need_a_person(old: SqlWorld) -> None:
    told = Told()
    failed, settled = IDS[SagaStatus.FAILED], IDS[SagaStatus.COMPENSATED]
    async with await old.open(told) as journal:
        listed = await journal.list_incidents(IncidentFilter(), None, 10)
        assert [(one.saga_id, one.id, one.kind) for one in listed] == [
            (QUARANTINED, 0, IncidentKind.QUARANTINED),
            (failed, 1, IncidentKind.COMPENSATION_EXHAUSTED),
        ]
        every = await journal.list_incidents(IncidentFilter(include_closed=True), None, 10)
        assert [(one.saga_id, one.closed_at) for one in every] == [(settled, at(41)), (QUARANTINED, None), (failed, None)]
        needy = await journal.list_sagas(SagaFilter(needs_person=True), None, 10)
        assert [saga.saga_id for saga in needy] == [QUARANTINED, failed]
        journal.append((then(failed, 2, IncidentClosed(id=1), incident(2), status=SagaStatus.FAILED),))
        await told.until(1)
        assert [one.id for one in await journal.list_incidents(IncidentFilter(saga_id=failed), None, 10)] == [2]


async def test_crash_during_the_migration_leaves_the_old_database(old: SqlWorld) -> None:
    def without_secrets(uri: str) -> sqlite3.Connection:
        connection = connect(uri)
        connection.set_authorizer(lambda action, name, *_: sqlite3.SQLITE_DENY if name == "secret" else sqlite3.SQLITE_OK)
        return connection

    def schema() -> list[tuple[object, ...]]:
        return old.execute("SELECT type, name, sql FROM sqlite_master ORDER BY type, name")

    before = schema(), contents(old)
    with pytest.raises(JournalOpenError):
        await SqlWorld(old.path.parent, without_secrets).open(Told())
    assert (schema(), contents(old)) == before
    assert old.execute("SELECT version_num FROM alembic_version") == [("0001",)]
    async with await old.open(Told()) as journal:
        assert len(await journal.load_awake(None, 10)) == 3
