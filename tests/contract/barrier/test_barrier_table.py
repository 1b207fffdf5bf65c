"""The barrier's table on every database: missing, of another version, made and mended by migrations, and exact about keys (R18, R22)."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace

import grpc
import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from google.rpc import status_pb2
from sqlalchemy import Engine, inspect, text

from participant_sdk import BarrierTableMissingError, SqlBarrier
from participant_sdk.barrier.migrations import barrier_sql, drop_barrier, upgrade_barrier
from participant_sdk.barrier.outcomes import ExecuteOutcome, HandlerSucceeded
from participant_sdk.errors import BarrierTableOutdatedError, ParticipantSetupError
from participant_sdk.payloads import PAYLOAD_BYTES_MAX
from participant_sdk.step_context import SessionSource
from tests.barrier_databases import Place
from tests.contract.barrier.calls import KEY, Handler, ManualClock, Undo, compensate_call, execute_call, reply
from tests.contract.barrier.conftest import PLACES, SqlWorld
from tests.contract.barrier.test_sql_barrier import COMPENSATED
from tests.processes import ROOT, python_environment

TABLE = "versioned_barrier"
"""One of its own: others keep theirs in the same database."""

QUOTED_KEY = {"sqlite": '"key"', "postgresql": '"key"', "mariadb": "`key`"}


@pytest.fixture(params=PLACES)
def engine(request: pytest.FixtureRequest, place_of: Callable[[str], Place]) -> Iterator[Engine]:
    """A database without that table, by an engine that blocks."""
    place = place_of(request.param)
    engine = place.blocking_engine()
    migrate(engine, drop)
    yield engine
    migrate(engine, drop)
    engine.dispose()


def migrate(engine: Engine, step: Callable[[Operations], None]) -> None:
    """As Alembic runs a migration."""
    with engine.begin() as connection:
        step(Operations(MigrationContext.configure(connection)))


def upgrade(op: Operations) -> None:
    upgrade_barrier(op, table_name=TABLE)


def drop(op: Operations) -> None:
    if inspect(op.get_bind()).has_table(TABLE):
        drop_barrier(op, table_name=TABLE)


def barrier_on(engine: Engine, clock: ManualClock | None = None) -> SqlBarrier:
    return SqlBarrier(engine, table_name=TABLE, clock=clock or ManualClock())


async def done(sessions: SessionSource) -> ExecuteOutcome:
    return HandlerSucceeded(response=reply("done"))


def run(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement.format(table=TABLE, key=QUOTED_KEY[engine.dialect.name])))


async def test_migration_makes_the_table_once_and_drops_it(engine: Engine) -> None:
    migrate(engine, upgrade)
    migrate(engine, upgrade)
    barrier = barrier_on(engine)
    await barrier.check()
    assert await barrier.execute(execute_call(ManualClock()), done) == reply("done")
    migrate(engine, upgrade)
    assert await barrier.execute(execute_call(ManualClock()), done) == reply("done")
    migrate(engine, drop)
    with pytest.raises(BarrierTableMissingError, match=r"upgrade_barrier\(op\)"):
        await barrier_on(engine).check()


async def test_plain_sql_makes_the_same_table_and_may_be_run_twice(engine: Engine) -> None:
    for _ in range(1 if engine.dialect.name == "mariadb" else 2):  # It warns of what is there.
        run(engine, *filter(str.strip, barrier_sql(engine.dialect.name, table_name=TABLE).split(";\n")))
    assert shape(engine) == (shape_of_created := await created(engine)), shape_of_created
    await barrier_on(engine).check()


async def created(engine: Engine) -> object:
    migrate(engine, drop)
    await barrier_on(engine).create_table()
    await barrier_on(engine).create_table()
    return shape(engine)


def shape(engine: Engine) -> object:
    found = inspect(engine)
    columns = [(each["name"], str(each["type"]), each["nullable"]) for each in found.get_columns(TABLE)]
    return columns, found.get_pk_constraint(TABLE)["constrained_columns"], [each["column_names"] for each in found.get_indexes(TABLE)]


async def test_migration_that_only_writes_sql_down_needs_no_database(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("postgresql", "mysql", "sqlite"):
        upgrade(Operations(MigrationContext.configure(dialect_name=name, opts={"as_sql": True})))
        assert f"CREATE TABLE IF NOT EXISTS {TABLE}" in capsys.readouterr().out


def test_plain_sql_is_told_by_a_command_that_needs_no_driver() -> None:
    command = [sys.executable, "-W", "error", "-m", "participant_sdk.barrier.migrations", "mysql", "--table", TABLE]
    told = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT, env=python_environment())
    assert told.stdout == barrier_sql("mysql", table_name=TABLE)
    with pytest.raises(ValueError, match="oracle"):
        barrier_sql("oracle")


@pytest.mark.parametrize("column", ["handler_ran", "reply", "compensation", "compensation_locked_until_us"])
async def test_table_of_an_older_version_is_told_and_mended(engine: Engine, column: str) -> None:
    migrate(engine, upgrade)
    run(engine, f"ALTER TABLE {{table}} DROP COLUMN {column}")
    barrier = barrier_on(engine)
    with pytest.raises(BarrierTableOutdatedError, match=rf"{column}.*upgrade_barrier"):
        await barrier.check()
    answer = await barrier.execute(execute_call(ManualClock()), done)
    assert isinstance(answer, status_pb2.Status)
    assert answer.code == grpc.StatusCode.INTERNAL.value[0]
    assert column in answer.message
    migrate(engine, upgrade)
    await barrier.check()
    assert await barrier.execute(execute_call(ManualClock()), done) == reply("done")


@pytest.mark.parametrize("engine", ["postgres", "mariadb"], indirect=True)  # SQLite adds no such column.
async def test_table_that_wants_more_than_the_barrier_gives_is_told(engine: Engine) -> None:
    migrate(engine, upgrade)
    run(engine, "ALTER TABLE {table} ADD COLUMN tenant INTEGER NOT NULL")
    with pytest.raises(BarrierTableOutdatedError, match="tenant is NOT NULL"):
        await barrier_on(engine).check()
    run(engine, "ALTER TABLE {table} DROP COLUMN tenant", "ALTER TABLE {table} ADD COLUMN tenant INTEGER")
    await barrier_on(engine).check()


NARROW = {
    "postgresql": {
        "key": 'ALTER COLUMN "key" TYPE VARCHAR(64)',
        "action": "ALTER COLUMN action TYPE VARCHAR(20)",
        "created_at_us": "ALTER COLUMN created_at_us TYPE INTEGER",
    },
    "mariadb": {
        "key": "MODIFY `key` VARBINARY(64) NOT NULL",
        "action": "MODIFY action VARCHAR(20) NOT NULL",
        "created_at_us": "MODIFY created_at_us INTEGER NOT NULL",
        "reply": "MODIFY reply BLOB",
        "fingerprint": "MODIFY fingerprint VARBINARY(16) NOT NULL",
    },
}


@pytest.mark.parametrize(
    ("engine", "column"),
    [(name, column) for name, place in (("postgres", "postgresql"), ("mariadb", "mariadb")) for column in NARROW[place]],
    indirect=["engine"],
)
async def test_column_that_is_too_small_is_told_and_widened(engine: Engine, column: str) -> None:
    narrow = NARROW[engine.dialect.name][column]
    migrate(engine, upgrade)
    run(engine, f"ALTER TABLE {{table}} {narrow}")
    with pytest.raises(BarrierTableOutdatedError, match=f"column {column} is"):
        await barrier_on(engine).check()
    migrate(engine, upgrade)
    await barrier_on(engine).check()


async def test_table_whose_key_is_not_unique_is_refused(engine: Engine) -> None:
    columns = barrier_sql(engine.dialect.name, table_name=TABLE).split("(", 1)[1].split(", \n\tPRIMARY KEY")[0]
    run(engine, f"CREATE TABLE {{table}} ({columns})")
    with pytest.raises(ParticipantSetupError, match="primary key"):
        await barrier_on(engine).check()


async def test_table_of_something_else_is_not_made_one_of_the_barrier(engine: Engine) -> None:
    run(engine, "CREATE TABLE {table} (id INTEGER PRIMARY KEY)")
    with pytest.raises(BarrierTableOutdatedError, match="no table of the barrier"):
        migrate(engine, upgrade)


IGNORES_CASE = {
    "sqlite": 'CREATE TABLE {table} ("key" VARCHAR(255) COLLATE NOCASE PRIMARY KEY, ',
    "mariadb": "CREATE TABLE {table} (`key` VARCHAR(255) COLLATE utf8mb4_general_ci PRIMARY KEY, ",
}


@pytest.mark.parametrize("engine", ["sqlite", "mariadb"], indirect=True)  # PostgreSQL compares bytes.
async def test_table_that_takes_two_keys_for_one_is_refused(engine: Engine) -> None:
    begin = IGNORES_CASE[engine.dialect.name]
    rest = barrier_sql(engine.dialect.name, table_name=TABLE).split("\n\tsaga_id", 1)[1].split(", \n\tPRIMARY KEY")[0]
    run(engine, f"{begin}saga_id{rest})")
    with pytest.raises(ParticipantSetupError, match="two keys for one"):
        await barrier_on(engine).check()


@pytest.mark.parametrize("other", [KEY.upper(), f"{KEY} ", f"{KEY[:-1]}\N{FULLWIDTH DIGIT ONE}"])
async def test_keys_that_look_alike_are_different(sql_world: SqlWorld, other: str) -> None:
    barrier, handler = sql_world.process(), Handler(sql_world.write)
    assert await barrier.execute(execute_call(sql_world.clock), handler) == reply("reply 1")
    assert await barrier.execute(replace(execute_call(sql_world.clock), key=other), handler) == reply("reply 2")


async def test_reply_of_the_largest_size_is_replayed_and_undone(sql_world: SqlWorld) -> None:
    large = reply("x" * (PAYLOAD_BYTES_MAX - 100))

    async def run_large(sessions: SessionSource) -> ExecuteOutcome:
        return HandlerSucceeded(response=large)

    assert await sql_world.process().execute(execute_call(sql_world.clock), run_large) == large
    assert await sql_world.process().execute(execute_call(sql_world.clock), run_large) == large
    undo = Undo(sql_world.write)
    assert await sql_world.process().compensate(compensate_call(sql_world.clock), None, undo) == COMPENSATED
    assert undo.seen == ["x" * (PAYLOAD_BYTES_MAX - 100)]
