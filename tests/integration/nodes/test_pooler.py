"""Nodes behind a pooler in transaction mode: no database transaction finds what an earlier one left in its session, and none needs it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from sqlalchemy import URL, make_url

from coordinator.bootstrap import EXIT_CANNOT_START
from coordinator.core.values import MICROS_PER_SECOND
from coordinator.engine.ports import Committed, Moved
from coordinator.journal.postgres import APPLICATION
from participant_sdk import SagaHandle
from saga.v1 import saga_pb2
from tests.integration.definitions import three_steps
from tests.integration.nodes.conftest import Cluster, cluster_of
from tests.integration.nodes.test_nodes import A_MINUTE, DONE, UNDONE
from tests.journals import PostgresWorld, Told, definition, eventually, first, new_id, new_ids, then
from tests.pooler import SESSIONS, WITH_STATEMENTS, WITHOUT_STATEMENTS, Pooler, Pooling, pooler
from tests.processes import CoordinatorProcess

pytestmark = pytest.mark.full

A_SECOND = MICROS_PER_SECOND
GATE = 11
"""An advisory lock that no journal uses."""
OTHERS = "pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
"""All sessions of the database but the one that asks."""
LEFT = (
    "SELECT (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()) +"
    " (SELECT count(*) FROM pg_listening_channels()), ARRAY(SELECT name FROM pg_settings WHERE source = 'session'),"
    " ARRAY(SELECT name FROM pg_prepared_statements)"
)
"""In the session that is asked: how many locks and channels, which settings that somebody made, and which prepared statements."""
OF_THE_POOLER = {"application_name", "client_encoding"}
"""Settings that it makes itself whenever it lends a session."""


@pytest.fixture(params=[WITH_STATEMENTS, WITHOUT_STATEMENTS], ids=["with-statements", "without-statements"])
def pooling(request: pytest.FixtureRequest) -> Pooling:
    kind: Pooling = request.param
    return kind


@pytest.fixture
def between(pooling: Pooling, postgres: tuple[URL, str], tmp_path: Path) -> Iterator[Pooler]:
    with pooler(tmp_path / "pooler", postgres[0], pooling) as made:
        yield made


@pytest.fixture
async def world(between: Pooler, postgres: tuple[URL, str]) -> AsyncIterator[PostgresWorld]:
    """A database that journals reach through the pooler only, which has all its sessions from the start."""
    server, template = postgres
    made = PostgresWorld(server, way=between.url_of).make(template)
    await _ask_sessions(made)
    yield made
    made.drop()


async def _ask_sessions(world: PostgresWorld) -> list[tuple[int, set[str], set[str]]]:
    """What is left in each; the pooler makes those that there are not yet, since all are asked at the same time."""
    async with AsyncExitStack() as stack:
        answers = []
        for _ in range(SESSIONS):
            connection = await _connect(make_url(world.node_url))
            stack.push_async_callback(connection.close)
            await stack.enter_async_context(connection.transaction())
            things, settings, statements = await connection.fetchrow(LEFT)
            answers.append((int(things), set(settings), set(statements)))
    return answers


async def _connect(url: URL) -> Any:
    return await asyncpg.connect(
        host=url.host, port=url.port, user=url.username, password=url.password, database=url.database, statement_cache_size=0
    )


# ── Journals ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_nodes_that_start_together_behind_a_pooler_make_the_tables_once(between: Pooler, postgres: tuple[URL, str]) -> None:
    empty = PostgresWorld(postgres[0], way=between.url_of).make("template1")
    journals = await asyncio.gather(*(empty.open(Told()) for _ in range(3)))
    assert empty.execute("SELECT count(*) FROM shard") == [(16,)]
    for journal in journals:
        await journal.aclose()
    assert empty.execute("SELECT count(*) FROM shard WHERE owner IS NOT NULL") == [(0,)]
    empty.drop()


async def test_journals_share_sessions_and_leave_nothing_in_them(
    world: PostgresWorld, pooling: Pooling, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    told, ids = [Told() for _ in range(3)], new_ids(3)
    journals = [await world.open(each) for each in told]
    held = [journal._opened.writer.ownership for journal in journals]
    await eventually(lambda: sorted(len(each.shards) for each in held) == [5, 5, 6])
    for sequence in range(1, 21):
        for journal, each, saga, ours in zip(journals, told, ids, held, strict=True):
            shard = min(ours.shards)
            journal.append([first(saga, shard=shard) if sequence == 1 else then(saga, sequence, shard=shard)])
            await each.until(sequence)
            assert await journal.find_saga(saga) is not None
    for number, journal in enumerate(journals):
        await journal.put_definition(definition("a", number + 1))
    assert {type(result) for each in told for result in each.results} == {Committed}
    assert [world.sequences(saga) for saga in ids] == [list(range(1, 21))] * 3
    await eventually(lambda: sum("hints of other nodes do not come through" in message for message in caplog.messages) == 3)
    for things, settings, statements in await _ask_sessions(world):
        assert (things, settings - OF_THE_POOLER) == (0, set())
        assert not statements if not pooling.statements_max else all(name.startswith("PGBOUNCER") for name in statements)
    for journal in journals:
        await journal.aclose()


async def test_shard_that_another_node_took_is_not_written_through_a_pooler(world: PostgresWorld) -> None:  # P6, R26, R27
    told, (ours, theirs) = Told(), new_ids(2)
    async with await world.open(told) as journal:
        journal.append([first(ours, shard=1), first(theirs, shard=2)])
        await told.until(2)
        world.execute("UPDATE shard SET epoch = epoch + 1, owner = $1 WHERE id = 2", str(uuid4()))
        journal.append([then(ours, 2, shard=1), then(theirs, 2, shard=2)])
        results = await told.until(4)
        assert {(result.append.saga_id, type(result)) for result in results[2:]} == {(ours, Committed), (theirs, Moved)}
        assert (world.sequences(ours), world.sequences(theirs)) == ([1, 2], [1])


@pytest.mark.parametrize("happens", [True, False], ids=["happens", "is-undone"])
async def test_commit_during_which_the_pooler_is_killed_takes_place_once(
    world: PostgresWorld, between: Pooler, happens: bool
) -> None:  # P1, R26
    told, saga = Told(), new_id()
    async with await world.open(told) as journal:
        journal.append([first(saga)])
        await told.until(1)
        async with _no_commit_ends(world):
            journal.append([then(saga, 2)])
            await eventually(lambda: _sessions_waiting(world, "COMMIT%") == 1)
            between.kill()
            await asyncio.to_thread(between.start)
            if happens:
                await eventually(lambda: _sessions_waiting(world, "UPDATE shard SET epoch%") == 1)
            else:
                world.execute(f"SELECT pg_terminate_backend(pid) FROM {OTHERS} AND query LIKE 'COMMIT%'")
        assert [type(result) for result in await told.until(2)] == [Committed] * 2
        assert world.sequences(saga) == [1, 2]
        assert not told.shards_lost_of


@asynccontextmanager
async def _no_commit_ends(world: PostgresWorld) -> AsyncIterator[None]:
    """Of those that write events: each waits for the end of this."""
    wait = f"BEGIN PERFORM pg_advisory_xact_lock_shared({GATE}); RETURN NULL; END"
    world.execute(f"CREATE FUNCTION wait_at_gate() RETURNS trigger LANGUAGE plpgsql AS '{wait}'")
    world.execute(
        "CREATE CONSTRAINT TRIGGER waits AFTER INSERT ON event DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait_at_gate()"
    )
    keeper = await _connect(world.url)
    await keeper.execute(f"SELECT pg_advisory_lock({GATE})")
    try:
        yield
    finally:
        await keeper.close()


def _sessions_waiting(world: PostgresWorld, statement: str) -> int:
    """In which a statement like this one waits for somebody else's."""
    ((count,),) = world.execute(f"SELECT count(*) FROM {OTHERS} AND wait_event_type = 'Lock' AND query LIKE '{statement}'")
    return int(str(count))


async def test_sessions_and_poolers_that_end_again_and_again_lose_and_double_nothing(
    world: PostgresWorld, between: Pooler
) -> None:  # P1, R26
    told, ids, sent = Told(), new_ids(8), 0
    async with await world.open(told) as journal:
        for sequence in range(1, 41):
            journal.append([first(saga_id) if sequence == 1 else then(saga_id, sequence) for saga_id in ids])
            sent += len(ids)
            if sequence % 10 == 0:
                between.kill()
                await asyncio.to_thread(between.start)
                await told.until(sent)
            elif sequence % 5 == 0:
                await asyncio.to_thread(world.execute, f"SELECT count(pg_terminate_backend(pid)) FROM {OTHERS}")
        assert all(isinstance(result, Committed) for result in await told.until(sent))
        assert [world.sequences(saga_id) for saga_id in ids] == [list(range(1, 41))] * 8


async def test_pooler_that_is_away_for_longer_than_a_lease_is_waited_for(world: PostgresWorld, between: Pooler) -> None:  # P6, R31
    told = Told()
    async with await world.with_lease(A_SECOND).open(told) as journal:
        between.kill()
        await eventually(lambda: bool(told.shards_lost_of))
        assert told.shards_lost_of[0][0] == frozenset(range(16))
        await asyncio.to_thread(between.start)
        await eventually(lambda: len(journal._opened.writer.ownership.shards) == 16)
        journal.append([first(saga := new_id())])
        assert isinstance((await told.until(1))[0], Committed)
        assert world.sequences(saga) == [1]


# ── Processes ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_nodes_behind_a_pooler_take_over_from_one_that_is_killed_and_from_one_that_stops(
    between: Pooler, postgres: tuple[URL, str], tmp_path: Path
) -> None:  # P1, P6, R29, R31
    async with cluster_of(3, postgres, tmp_path, between.url_of) as cluster:
        await cluster.clients[0].register(three_steps())
        handles = await _start(cluster, 30)
        ((sessions,),) = cluster.world.execute(f"SELECT count(*) FROM {OTHERS} AND application_name LIKE '{APPLICATION}%'")
        assert 1 <= int(str(sessions)) <= SESSIONS, "a node has come past the pooler"
        cluster.nodes[1].kill()
        assert await asyncio.to_thread(cluster.nodes[2].terminate) == 0
        await _end_as_they_should(cluster, handles)
        await cluster.until(lambda: cluster.held() == [16])


async def test_nodes_go_on_by_themselves_when_their_pooler_was_killed(
    between: Pooler, postgres: tuple[URL, str], tmp_path: Path
) -> None:  # P1, R26
    async with cluster_of(2, postgres, tmp_path, between.url_of) as cluster:
        await cluster.clients[0].register(three_steps())
        starting = asyncio.create_task(_start(cluster, 60))
        await cluster.until(lambda: cluster.world.execute("SELECT count(*) >= 10 FROM saga") == [(True,)])
        between.kill()
        await cluster.until(lambda: all("cannot be renewed; trying again" in node.log for node in cluster.nodes))
        await asyncio.to_thread(between.start)
        await _end_as_they_should(cluster, await starting)
        await _end_as_they_should(cluster, await _start(cluster, 8))
        await cluster.until(lambda: cluster.held() == [8, 8])


async def _start(cluster: Cluster, count: int) -> list[SagaHandle]:
    """At each node its share. Every other one at the first is to be undone, and at no other: where a node is killed, that would wait for
    the end of the calls that nobody has heard of since (R12)."""
    clients = cluster.clients
    starts = [
        clients[n % len(clients)].start(
            "three-steps", StringValue(value="refuse" if _is_refused(cluster, n) else "go"), key=f"{n} of {count}"
        )
        for n in range(count)
    ]
    return await asyncio.gather(*starts)


def _is_refused(cluster: Cluster, number: int) -> bool:
    return number % (2 * len(cluster.clients)) == 0


async def _end_as_they_should(cluster: Cluster, handles: list[SagaHandle]) -> None:
    ends = [
        (saga_pb2.SAGA_STATUS_COMPENSATED, UNDONE) if _is_refused(cluster, n) else (saga_pb2.SAGA_STATUS_COMPLETED, DONE)
        for n in range(len(handles))
    ]
    sagas = await asyncio.gather(*(cluster.clients[0].wait(handle.id, timeout=A_MINUTE) for handle in handles))
    lines = await cluster.keeper.lines()
    assert [(saga.status, lines[saga.id]) for saga in sagas] == ends


async def test_node_is_told_what_to_do_where_sessions_are_shared_and_statements_are_not_known(
    postgres: tuple[URL, str], tmp_path: Path
) -> None:
    """All nodes have one session, and give their statements the same names."""
    server, template = postgres
    unaware = Pooling(statements_max=0, query={})
    with pooler(tmp_path / "pooler", server, unaware, sessions=1) as between:
        world = PostgresWorld(server, way=between.url_of).make(template)
        nodes = [CoordinatorProcess(tmp_path, name=f"node-{number}", url=world.node_url) for number in range(2)]
        with nodes[0], nodes[1]:
            await nodes[0].start()
            await nodes[1].start(wait=False)
            assert await nodes[1].wait() == EXIT_CANNOT_START
            assert "append ?prepared_statement_cache_size=0 to the URL" in nodes[1].log
        world.drop()
