"""Migrations build what the tables say, and a schema of the future is left alone."""

import asyncio
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, create_engine, inspect, text
from sqlalchemy.ext.asyncio import create_async_engine

from coordinator.core.events import IncidentOpened, SagaFailed
from coordinator.core.values import IncidentKind, Instant, SagaStatus
from coordinator.journal import JournalOpenError
from coordinator.journal.schema import HEAD_REVISION, SCRIPT_LOCATION, bring_up_to_date, current_revision
from coordinator.journal.sqlite import connect
from coordinator.journal.tables import METADATA
from tests.builders import failure
from tests.journals import SqlWorld, Told, first, new_id, then


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    engine = create_engine(f"sqlite:///{tmp_path / 'schema.db'}")
    with engine.connect() as opened:
        yield opened
    engine.dispose()


def test_migrations_build_the_tables(connection: Connection) -> None:
    bring_up_to_date(connection, "here")
    context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
    assert compare_metadata(context, METADATA) == []
    assert current_revision(connection, "here") == HEAD_REVISION


def test_migrations_build_the_tables_in_postgres(postgres: tuple[URL, str]) -> None:
    server, template = postgres

    async def compare() -> None:
        engine = create_async_engine(server.set(database=template, drivername="postgresql+asyncpg"))
        async with engine.connect() as connection:
            await connection.run_sync(differ)
        await engine.dispose()

    def differ(connection: Connection) -> None:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, METADATA) == []
        assert current_revision(connection, "there") == HEAD_REVISION

    asyncio.run(compare())


def test_migrations_build_the_same_indexes_and_keys(connection: Connection, tmp_path: Path) -> None:
    bring_up_to_date(connection, "here")
    engine = create_engine(f"sqlite:///{tmp_path / 'tables.db'}")
    with engine.begin() as direct:
        METADATA.create_all(direct)
        assert _statements(connection, "index") == _statements(direct, "index")
        for table in METADATA.tables:
            assert inspect(connection).get_foreign_keys(table) == inspect(direct).get_foreign_keys(table)
            assert inspect(connection).get_pk_constraint(table) == inspect(direct).get_pk_constraint(table)
            assert inspect(connection).get_unique_constraints(table) == inspect(direct).get_unique_constraints(table)
    engine.dispose()


def _statements(connection: Connection, kind: str) -> set[str]:
    found = connection.execute(text("SELECT sql FROM sqlite_master WHERE type = :kind AND sql IS NOT NULL"), {"kind": kind})
    return {" ".join(str(row[0]).split()) for row in found if "alembic" not in str(row[0])}


def test_head_is_that_of_the_scripts() -> None:
    config = Config()
    config.set_main_option("script_location", SCRIPT_LOCATION)
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD_REVISION]


def test_migrating_twice_changes_nothing(connection: Connection) -> None:
    bring_up_to_date(connection, "here")
    before = _statements(connection, "table")
    bring_up_to_date(connection, "here")
    assert _statements(connection, "table") == before


def test_database_before_the_first_migration_is_migrated(connection: Connection) -> None:
    connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
    bring_up_to_date(connection, "here")
    assert current_revision(connection, "here") == HEAD_REVISION


async def test_schema_of_a_newer_version_is_left_alone(world: SqlWorld) -> None:
    async with await world.open(Told()):
        pass
    world.execute("UPDATE alembic_version SET version_num = '9999'")
    world.execute("UPDATE schema_floor SET revision = '9998'")
    with pytest.raises(JournalOpenError, match=r"9999.*newer.*9998"):
        await world.open(Told())
    world.execute("DROP TABLE schema_floor")
    with pytest.raises(JournalOpenError, match=r"9999.*newer"):
        await world.open(Told())
    assert world.execute("SELECT epoch FROM shard") == [(1,)]


async def test_schema_of_a_newer_version_that_takes_nothing_away_is_used_as_it_is(world: SqlWorld) -> None:  # D5
    saga, told = new_id(), Told()
    async with await world.open(told) as journal:
        journal.append((first(saga),))
        await told.until(1)
    world.execute("ALTER TABLE saga ADD COLUMN tenant TEXT")
    world.execute("UPDATE alembic_version SET version_num = '9998'")
    async with await world.open(Told()) as journal:
        assert [stored.saga_id for stored in await journal.load_awake(None, 10)] == [saga]
    assert world.execute("SELECT version_num FROM alembic_version") == [("9998",)]


async def test_schema_of_two_revisions_is_refused(world: SqlWorld) -> None:
    async with await world.open(Told()):
        pass
    world.execute("INSERT INTO alembic_version VALUES ('0001')")
    with pytest.raises(JournalOpenError, match=f"0001, {HEAD_REVISION}"):
        await world.open(Told())


async def test_crash_during_the_migration_leaves_an_empty_database(world: SqlWorld) -> None:
    def without_incidents(uri: str) -> sqlite3.Connection:
        connection = connect(uri)
        connection.set_authorizer(lambda action, name, *_: sqlite3.SQLITE_DENY if name == "incident" else sqlite3.SQLITE_OK)
        return connection

    with pytest.raises(JournalOpenError):
        await SqlWorld(world.path.parent, without_incidents).open(Told())
    assert world.execute("SELECT count(*) FROM sqlite_master") == [(0,)]
    async with await world.open(Told()):
        pass


async def test_view_shows_sagas_to_people(world: SqlWorld) -> None:
    told, saga = Told(), new_id()
    opened = IncidentOpened(id=1, kind=IncidentKind.KEY_EXPIRED, step_id=None, failure=failure())
    created_at, failed_at = Instant(1_764_000_000_000_007), Instant(1_764_000_001_500_000)
    async with await world.open(told) as journal:
        journal.append((first(saga, created_at=created_at), then(saga, 2, opened, SagaFailed(), status=SagaStatus.FAILED, when=failed_at)))
        await told.until(2)
    assert world.execute("SELECT * FROM saga_view") == [
        (saga, "place-order", 1, "FAILED", "2025-11-24T16:00:00.000007Z", "2025-11-24T16:00:01.500000Z", None, "no", None, 1)
    ]


@pytest.mark.parametrize("status", SagaStatus)
async def test_view_names_every_status(world: SqlWorld, status: SagaStatus) -> None:
    told = Told()
    async with await world.open(told) as journal:
        journal.append((first(new_id(), status=status),))
        await told.until(1)
    assert world.execute("SELECT status FROM saga_view") == [(status.name,)]
