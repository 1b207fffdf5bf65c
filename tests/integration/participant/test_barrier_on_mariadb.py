"""What only MariaDB and MySQL have: storage engines without database transactions, modes that cut values, and limits of a whole session."""

from collections.abc import Iterator

import pytest
from sqlalchemy import URL, Engine, create_engine, text
from sqlalchemy.orm import Session

from participant_sdk import ParticipantSetupError, SqlBarrier
from participant_sdk.step_context import SessionSource
from tests.barrier_databases import made_database
from tests.contract.barrier.calls import Handler, ManualClock, execute_call, rejected


@pytest.fixture
def engine(mariadb: URL) -> Iterator[Engine]:
    engine = create_engine(made_database(mariadb.set(drivername="mariadb+pymysql")), pool_size=1, max_overflow=0)
    yield engine
    engine.dispose()


@pytest.mark.parametrize("kept_by", ["MyISAM", "Aria"])
async def test_table_without_database_transactions_is_refused(engine: Engine, kept_by: str) -> None:
    barrier = SqlBarrier(engine)
    await barrier.create_table()
    with engine.begin() as connection:
        connection.execute(text(f"ALTER TABLE saga_barrier MODIFY `key` VARBINARY(255) NOT NULL, ENGINE = {kept_by}"))
    with pytest.raises(ParticipantSetupError, match="MyISAM"):
        await barrier.check()
    with engine.begin() as connection:
        assert connection.scalar(text("SELECT count(*) FROM saga_barrier")) == 0, "the probe is gone"


async def test_connection_that_cuts_values_is_refused(engine: Engine) -> None:
    lax = create_engine(engine.url, connect_args={"init_command": "SET SESSION sql_mode = ''"})
    barrier = SqlBarrier(lax)
    await barrier.create_table()
    with pytest.raises(ParticipantSetupError, match="STRICT_TRANS_TABLES"):
        await barrier.check()
    lax.dispose()


async def test_limit_of_waiting_is_that_of_the_call_and_gone_afterwards(engine: Engine) -> None:  # R22
    clock = ManualClock()
    barrier = SqlBarrier(engine, clock=clock)
    await barrier.create_table()
    with engine.begin() as connection:  # The pool has one connection.
        connection.execute(text("SET SESSION innodb_lock_wait_timeout = 77"))
    seen: list[object] = []

    async def look(sessions: SessionSource, line: str) -> None:
        assert isinstance(sessions.session, Session)
        seen.append(sessions.session.scalar(text("SELECT @@innodb_lock_wait_timeout")))

    await barrier.execute(execute_call(clock, time_left_s=10), Handler(look, outcomes=[rejected()]))
    assert seen == [5]
    with engine.begin() as connection:
        assert connection.scalar(text("SELECT @@innodb_lock_wait_timeout")) == 77
