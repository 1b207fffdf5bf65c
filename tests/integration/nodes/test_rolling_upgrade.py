"""Releases are replaced node by node while sagas run: what the newer one adds disturbs nobody, and it takes away what nobody needs."""

import asyncio
import signal
from datetime import timedelta

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from sqlalchemy import URL

from coordinator.journal import JournalOpenError, SqlJournal
from coordinator.journal.schema import HEAD_REVISION
from saga.v1 import saga_pb2
from tests.integration.definitions import three_steps
from tests.integration.nodes.conftest import Cluster
from tests.journals import PostgresWorld, Told

A_MINUTE = timedelta(minutes=1)
LISTED_BY = "ix_saga_definition_name_created_at_saga_id"
OLD_INDEXES = (
    f"SELECT indexname FROM pg_indexes WHERE indexname IN ('ix_saga_unfinished', 'ix_saga_wake_at', '{LISTED_BY}') ORDER BY indexname"
)


@pytest.mark.full
async def test_nodes_go_on_and_start_again_on_the_tables_of_the_next_release(pair: Cluster) -> None:  # D5
    """The code of this release is the old one here: its tables are changed under it, and it is started again on them."""
    await pair.clients[0].register(three_steps())
    starts = [asyncio.create_task(pair.clients[n % 2].start("three-steps", StringValue(value="go"))) for n in range(100)]
    await asyncio.to_thread(pair.world.migrate_ahead)
    starts += [asyncio.create_task(pair.clients[n % 2].start("three-steps", StringValue(value="go"))) for n in range(100)]
    handles = await asyncio.gather(*starts)
    pair.nodes[0].send_signal(signal.SIGKILL)
    await pair.until(lambda: pair.held() == [16])
    await pair.nodes[0].start()
    await pair.until(lambda: pair.held() == [8, 8])
    handles.append(await pair.clients[0].start("three-steps", StringValue(value="go")))
    for handle in handles:
        assert (await pair.clients[1].wait(handle.id, timeout=A_MINUTE)).status == saga_pb2.SAGA_STATUS_COMPLETED
    assert set(map(tuple, (await pair.keeper.lines()).values())) == {(("first", "do"), ("second", "do"), ("third", "do"))}
    assert pair.world.execute("SELECT version_num FROM alembic_version") == [("9998",)]


@pytest.fixture
async def older(postgres: tuple[URL, str]) -> PostgresWorld:
    """Tables as the release before had them, of which a node is alive."""
    world = PostgresWorld(postgres[0]).make(postgres[1])
    for statement in (
        "CREATE INDEX ix_saga_unfinished ON saga (shard, saga_id) WHERE unfinished AND quarantine_code IS NULL",
        "CREATE INDEX ix_saga_wake_at ON saga (shard, wake_at) WHERE wake_at IS NOT NULL",
        f"CREATE INDEX {LISTED_BY} ON saga (definition_name, created_at, saga_id)",
        "DROP INDEX ix_saga_definition_name_status_created_at_saga_id",
        "DROP INDEX ix_saga_awake",
        "DROP INDEX ix_saga_asleep",
        "ALTER TABLE node DROP COLUMN knows",
        "DROP TABLE schema_floor",
        "UPDATE alembic_version SET version_num = '0003'",
        "INSERT INTO node (id, host, pid, started_at, lease_until) VALUES ('old', 'elsewhere', 1, 0, 9000000000000000)",
    ):
        world.execute(statement)
    return world


async def test_what_an_older_node_needs_is_taken_away_when_the_last_of_them_is_gone(older: PostgresWorld) -> None:  # D5
    async with await older.open(Told()):
        assert older.execute(OLD_INDEXES) == [(LISTED_BY,), ("ix_saga_unfinished",), ("ix_saga_wake_at",)]
        assert older.execute("SELECT version_num, revision FROM alembic_version, schema_floor") == [("0004", "0003")]
        assert older.execute("SELECT knows FROM node WHERE id <> 'old'") == [(HEAD_REVISION,)]
        async with await older.open(Told()):  # another new one, and the old one is there still
            assert older.execute(OLD_INDEXES) != []
        older.execute("UPDATE node SET lease_until = 1 WHERE id = 'old'")
        async with await older.open(Told()):
            assert older.execute(OLD_INDEXES) == []
            assert older.execute("SELECT version_num, revision FROM alembic_version, schema_floor") == [(HEAD_REVISION, "0004")]
    older.drop()


async def test_release_that_an_older_node_cannot_live_with_is_not_started(
    older: PostgresWorld, monkeypatch: pytest.MonkeyPatch
) -> None:  # R34
    """It would write kinds of events that the other one cannot read, and takes for a damaged journal."""
    monkeypatch.setattr("coordinator.journal.schema.NEEDED_REVISION", "0004")
    with pytest.raises(JournalOpenError, match=r"revision 0004.*alive and knows revision 0003.*stop the nodes of that release first"):
        await older.open(Told())
    assert older.execute("SELECT version_num FROM alembic_version") == [("0003",)]
    older.execute("DELETE FROM node")
    async with await older.open(Told()):
        assert older.execute("SELECT revision FROM schema_floor") == [("0004",)]
    older.drop()


async def test_older_code_is_not_started_on_what_it_could_not_read(
    postgres: tuple[URL, str], monkeypatch: pytest.MonkeyPatch
) -> None:  # R34
    world = PostgresWorld(postgres[0]).make(postgres[1]).migrate_ahead()
    async with await world.open(Told()) as journal:
        assert isinstance(journal, SqlJournal)
    world.execute("UPDATE schema_floor SET revision = '9998'")
    with pytest.raises(JournalOpenError, match=r"revision 9998, which a newer coordinator must have written, and code that knows 9998"):
        await world.open(Told())
    world.drop()
