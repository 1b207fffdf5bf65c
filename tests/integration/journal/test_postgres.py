"""What is particular to PostgreSQL: how it is opened, connections that break, and who may write which shard."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import URL

from coordinator.core.values import MICROS_PER_SECOND
from coordinator.engine.clock import SystemClock
from coordinator.engine.ports import Committed, Moved
from coordinator.journal import JournalOpenError, SqlJournal
from tests.journals import PostgresWorld, Told, definition, eventually, first, new_id, new_ids, then
from tests.postgres_server import PostgresServer

A_SECOND = MICROS_PER_SECOND


@pytest.fixture
async def world(postgres: tuple[URL, str]) -> AsyncIterator[PostgresWorld]:
    server, template = postgres
    made = PostgresWorld(server).make(template)
    yield made
    made.drop()


async def refusal_of(url: str) -> str:
    with pytest.raises(JournalOpenError) as refused:
        await SqlJournal.open(url, clock=SystemClock(asyncio.get_running_loop()))
    return str(refused.value)


async def test_what_cannot_be_opened_is_told_with_what_to_do(postgres: tuple[URL, str], world: PostgresWorld) -> None:
    server, _ = postgres
    missing = str(server.set(database="unheard_of"))
    assert "make it with CREATE DATABASE" in await refusal_of(missing)
    assert "a PostgreSQL server that answers" in await refusal_of(str(server.set(port=1)))
    for option in ("statement_cache_size=0", "prepared_statement_cache_size=many", "sslmode=require"):
        assert f"found {option}" in await refusal_of(f"postgresql://somebody@127.0.0.1/saga?{option}")
    assert "expected the driver asyncpg, found postgresql+psycopg2" in await refusal_of("postgresql+psycopg2://somebody@127.0.0.1/saga")
    world.execute(f'ALTER DATABASE "{world.url.database}" SET synchronous_commit = off')  # R31
    assert "found synchronous_commit = off; set it to on" in await refusal_of(str(world.url))


async def test_schema_of_somebody_else_is_refused_and_left_alone(postgres: tuple[URL, str]) -> None:
    server, _ = postgres
    theirs = PostgresWorld(server).make("template1")
    theirs.execute("CREATE TABLE customer (id integer)")
    assert "found a schema with other tables (customer)" in await refusal_of(str(theirs.url))
    assert theirs.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(1,)]
    theirs.drop()


async def test_password_is_in_no_error(postgres: tuple[URL, str]) -> None:
    server, _ = postgres
    assert "secret" not in await refusal_of(server.set(password="secret", database="unheard_of").render_as_string(hide_password=False))


async def test_nodes_that_start_together_on_an_empty_database_make_its_tables_once(postgres: tuple[URL, str]) -> None:
    server, _ = postgres
    empty = PostgresWorld(server).make("template1")
    journals = await asyncio.gather(*(empty.open(Told()) for _ in range(3)))
    assert empty.execute("SELECT count(*) FROM shard") == [(16,)]
    assert empty.execute("SELECT count(*) FROM node") == [(3,)]
    for journal in journals:
        await journal.aclose()
    assert empty.execute("SELECT count(*) FROM shard WHERE owner IS NOT NULL") == [(0,)]
    empty.drop()


async def test_url_for_a_pooler_that_does_not_know_statements_leaves_none_in_a_session(postgres: tuple[URL, str]) -> None:
    server, template = postgres
    world = PostgresWorld(server, way=lambda url: url.set(query={"prepared_statement_cache_size": "0"})).make(template)
    async with await world.open(Told()) as journal:
        read = journal._opened.reader.read
        assert await read(lambda connection: connection.exec_driver_sql("SELECT name FROM pg_prepared_statements").all()) == []
    world.drop()


async def test_connections_that_are_cut_again_and_again_lose_and_double_nothing(world: PostgresWorld) -> None:  # P1, R26
    told, ids = Told(), new_ids(8)
    cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    async with await world.open(told) as journal:
        sent = 0
        for sequence in range(1, 40):
            journal.append([first(saga_id) if sequence == 1 else then(saga_id, sequence) for saga_id in ids])
            sent += len(ids)
            if sequence % 4 == 0:
                await asyncio.to_thread(world.execute, cut)
        await told.until(sent)
        assert all(isinstance(result, Committed) for result in told.results)
        assert [world.sequences(saga_id) for saga_id in ids] == [list(range(1, 40))] * 8
        await journal.put_definition(definition("a", 1))


async def test_server_that_is_killed_and_started_again_is_waited_for(tmp_path: Path) -> None:  # P1, R26
    server = PostgresServer(tmp_path / "postgres")
    await asyncio.to_thread(server.start)
    world, told, saga = PostgresWorld(server.url).make("template1"), Told(), new_id()
    journal = await world.open(told)
    journal.append([first(saga)])
    await told.until(1)
    await asyncio.to_thread(server.stop, signal.SIGQUIT)
    journal.append([then(saga, 2)])
    await eventually(lambda: journal.stalled_for_us > 0)
    await asyncio.to_thread(server.start)
    await told.until(2)
    journal.append([then(saga, 3)])
    results = await told.until(3)
    assert [type(result) for result in results] == [Committed] * 3
    assert world.sequences(saga) == [1, 2, 3]
    await journal.aclose()
    await asyncio.to_thread(server.stop)


async def test_shard_that_another_node_took_is_not_written_and_the_others_are(world: PostgresWorld) -> None:  # P6, R26, R27
    told, (ours, theirs) = Told(), new_ids(2)
    async with await world.open(told) as journal:
        journal.append([first(ours, shard=1), first(theirs, shard=2)])
        await told.until(2)
        world.execute("UPDATE shard SET epoch = epoch + 1, owner = $1 WHERE id = 2", str(uuid4()))
        journal.append([then(ours, 2, shard=1), then(theirs, 2, shard=2)])
        results = await told.until(4)
        assert {(result.append.saga_id, type(result)) for result in results[2:]} == {(ours, Committed), (theirs, Moved)}
        assert [shards for shards, _ in told.shards_lost_of] == [frozenset({2})]
        assert (world.sequences(ours), world.sequences(theirs)) == ([1, 2], [1])
        journal.append([then(theirs, 2, shard=2)])
        assert isinstance((await told.until(5))[-1], Moved)
        assert told.lost_reason is None


async def test_shard_that_is_given_up_while_it_is_being_written_is_lost_alone(world: PostgresWorld) -> None:  # P6, R26
    told, (ours, theirs) = Told(), new_ids(2)
    async with await world.open(told) as journal:
        journal.append([first(ours, shard=1), first(theirs, shard=2)])
        await told.until(2)
        # Statements that advance a shard take their time before they lock anything.
        world.execute("CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.5); RETURN NULL; END'")
        world.execute("CREATE TRIGGER dawdles BEFORE UPDATE OF position ON shard FOR EACH STATEMENT EXECUTE FUNCTION dawdle()")
        journal.append([then(ours, 2, shard=1), then(theirs, 2, shard=2)])
        await eventually(lambda: world.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == [(1,)])
        world.execute("UPDATE shard SET epoch = epoch + 1, owner = NULL WHERE id = 2")
        journal._opened.writer.ownership.drop({2})  # as the keeper of leases does that hands it over
        results = await told.until(4)
        assert {(result.append.saga_id, type(result)) for result in results[2:]} == {(ours, Committed), (theirs, Moved)}
        assert told.lost_reason is None


async def test_lease_that_is_not_renewed_is_given_up_before_another_node_can_take_it(world: PostgresWorld) -> None:  # P6, R31
    told, after = Told(), Told()
    short = world.with_lease(A_SECOND)
    async with await short.open(told) as journal:
        world.execute("ALTER TABLE node RENAME TO away")  # no beat succeeds any more, and every append does
        journal.append([first(saga := new_id())])
        await told.until(1)
        await eventually(lambda: bool(told.shards_lost_of))
        ((ends_at,),) = world.execute("SELECT min(lease_until) FROM shard")  # as the last beat that succeeded has left it
        assert short.clock.now() < int(str(ends_at)) + A_SECOND / 2, "it did not wait for another beat"
        assert journal.shards.place_for(saga) is None
        assert told.shards_lost_of[0][0] == frozenset(range(16))
        world.execute("ALTER TABLE away RENAME TO node")
        await eventually(lambda: world.execute("SELECT count(*) FROM shard WHERE owner IS NOT NULL") == [(16,)])
    async with await world.open(after) as next_one:
        assert [stored.saga_id for stored in await next_one.load_awake(None, 10)] == [saga]
