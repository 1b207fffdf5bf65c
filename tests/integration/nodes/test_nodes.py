"""Nodes that share a PostgreSQL: each drives its share, any of them answers, and what a node leaves is taken over."""

import asyncio
import signal
import subprocess
import sys
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from sqlalchemy import URL

from participant_sdk.client import NodeNotFound, SagaClient, SagaSelection
from saga.v1 import operator_pb2, saga_pb2
from tests.integration.definitions import three_steps
from tests.integration.nodes.conftest import LEASE_S, Cluster, cluster_of
from tests.processes import ROOT, python_environment

A_MINUTE = timedelta(minutes=1)
DONE = [("first", "do"), ("second", "do"), ("third", "do")]
UNDONE = [("first", "do"), ("second", "do"), ("second", "undo"), ("first", "undo")]


def _in_an_hour() -> datetime:
    return datetime.now(UTC) + timedelta(hours=1)


async def test_each_node_drives_what_is_started_at_it_and_any_of_them_tells_of_it(pair: Cluster) -> None:
    """The participant has registered with one of them, the definition with the other."""
    await pair.clients[1].register(three_steps())
    handles = [await pair.clients[number % 2].start("three-steps", StringValue(value="go")) for number in range(20)]
    sagas = [await pair.clients[(number + 1) % 2].wait(handle.id, timeout=A_MINUTE) for number, handle in enumerate(handles)]
    assert {saga.status for saga in sagas} == {saga_pb2.SAGA_STATUS_COMPLETED}
    assert list((await pair.keeper.lines()).values()) == [DONE] * 20
    assert [pair.owner_of(handle.id) for handle in handles] == [0, 1] * 10
    for client in pair.clients:
        assert {saga.id async for saga in client.list()} == {handle.id for handle in handles}


@pytest.mark.full
async def test_same_start_at_two_nodes_makes_one_saga(pair: Cluster) -> None:  # R2, R4
    await pair.clients[0].register(three_steps())
    for number in range(10):
        starts = [client.start("three-steps", StringValue(value="go"), key=f"order {number}") for client in pair.clients for _ in range(3)]
        handles = await asyncio.gather(*starts)
        assert len({handle.id for handle in handles}) == 1
        assert sum(bool(handle.is_new) for handle in handles) == 1
        await pair.clients[1].wait(handles[0].id, timeout=A_MINUTE)
    assert len(await pair.keeper.lines()) == 10


async def test_commands_reach_the_node_that_drives_the_saga_and_it_is_watched_from_any(pair: Cluster) -> None:  # R33
    await pair.clients[0].register(three_steps())
    handle = await pair.clients[0].start("three-steps", StringValue(value="go"), start_at=_in_an_hour())
    assert pair.owner_of(handle.id) == 0
    explained = await pair.clients[1].operator.explain(handle.id)
    assert "begins at" in explained.summary
    await pair.clients[1].operator.pause(handle.id, reason="not now", actor="ann")
    seen: list[int] = []
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_cancel_when(pair, handle.id, seen))
        async with aclosing(pair.clients[1].watch(handle.id, timeout=A_MINUTE)) as events:
            async for response in events:
                seen.append(response.event.sequence)
    assert seen == list(range(1, len(seen) + 1))
    assert (await pair.clients[1].get(handle.id)).status == saga_pb2.SAGA_STATUS_COMPENSATED


async def _cancel_when(pair: Cluster, saga_id: str, seen: list[int]) -> None:
    async with asyncio.timeout(30):
        while len(seen) < 2:
            await asyncio.sleep(0.01)
    await pair.clients[1].cancel(saga_id)
    await pair.clients[1].operator.resume(saga_id, reason="go on", actor="ann")


async def test_sagas_of_a_killed_node_are_taken_over_within_its_lease(pair: Cluster) -> None:  # P1, P6, R29, R31
    await pair.clients[0].register(three_steps())
    handles = [await pair.clients[0].start("three-steps", StringValue(value="go" if n % 2 else "refuse")) for n in range(10)]
    pair.nodes[0].kill()
    began = asyncio.get_running_loop().time()
    sagas = [await pair.clients[1].wait(handle.id, timeout=A_MINUTE) for handle in handles]
    assert asyncio.get_running_loop().time() - began < LEASE_S + 10  # the calls of the dead one are waited for, too (R12)
    assert [saga.status for saga in sagas] == [saga_pb2.SAGA_STATUS_COMPENSATED, saga_pb2.SAGA_STATUS_COMPLETED] * 5
    lines = await pair.keeper.lines()
    assert [lines[handle.id] for handle in handles] == [UNDONE, DONE] * 5
    await pair.until(lambda: pair.held() == [16])


async def test_node_that_stops_in_good_order_hands_over_at_once(pair: Cluster) -> None:
    await pair.clients[0].register(three_steps())
    handles = [await pair.clients[0].start("three-steps", StringValue(value="go"), start_at=_in_an_hour()) for _ in range(5)]
    assert await asyncio.to_thread(pair.nodes[0].terminate) == 0
    began = asyncio.get_running_loop().time()
    await pair.until(lambda: pair.held() == [16])
    assert asyncio.get_running_loop().time() - began < LEASE_S
    for handle in handles:
        await pair.clients[1].cancel(handle.id)
        assert (await pair.clients[1].get(handle.id)).status == saga_pb2.SAGA_STATUS_COMPENSATED


@pytest.mark.full
async def test_node_that_was_stopped_beyond_its_lease_writes_nothing_and_goes_on_with_others(pair: Cluster) -> None:  # P6, R26, R31
    await pair.clients[0].register(three_steps())
    handle = await pair.clients[0].start("three-steps", StringValue(value="go"), start_at=_in_an_hour())
    pair.nodes[0].send_signal(signal.SIGSTOP)
    await pair.until(lambda: pair.owner_of(handle.id) == 1)
    pair.nodes[0].send_signal(signal.SIGCONT)
    await pair.clients[0].cancel(handle.id)  # it passes that on
    assert (await pair.clients[1].get(handle.id)).status == saga_pb2.SAGA_STATUS_COMPENSATED
    await pair.until(lambda: pair.held() == [8, 8])
    assert "shards are no longer held" in pair.nodes[0].log
    again = await pair.clients[0].start("three-steps", StringValue(value="go"))
    assert (await again.wait(timeout=A_MINUTE)).status == saga_pb2.SAGA_STATUS_COMPLETED


@pytest.mark.full
async def test_zombie_under_load_writes_nothing_and_says_so(pair: Cluster) -> None:  # P6, R26, R31
    """A node is stopped in the midst of its work. When it goes on, others hold its shards; the database itself counts what it writes."""
    await pair.clients[0].register(three_steps())
    pair.world.execute("CREATE TABLE written (application text, shard int)")
    pair.world.execute(
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO written VALUES (current_setting('application_name'), NEW.shard); RETURN NEW; END $$"
    )
    pair.world.execute("CREATE TRIGGER note BEFORE INSERT ON event FOR EACH ROW EXECUTE FUNCTION note()")
    zombie = (await pair.clients[0].operator.nodes())[0].id
    handles = await asyncio.gather(*(pair.clients[0].start("three-steps", StringValue(value="go")) for _ in range(200)))
    pair.nodes[0].send_signal(signal.SIGSTOP)
    await pair.until(lambda: pair.held() == [16])
    await pair.clients[1].operator.cordon(zombie)  # so that it gets none of them back
    assert {str(application).rpartition(" ")[2] for (application,) in pair.world.execute("SELECT application FROM written")} >= {zombie}
    pair.world.execute("DELETE FROM written")
    pair.nodes[0].send_signal(signal.SIGCONT)
    await pair.until(lambda: "shards are no longer held" in pair.nodes[0].log)
    for handle in handles:
        assert (await pair.clients[1].wait(handle.id, timeout=A_MINUTE)).status == saga_pb2.SAGA_STATUS_COMPLETED
    assert list((await pair.keeper.lines()).values()) == [DONE] * 200
    written = pair.world.execute("SELECT count(*) FROM written WHERE application LIKE $1", f"%{zombie}")
    assert [tuple(row) for row in written] == [(0,)]
    assert pair.world.execute("SELECT 1 FROM written LIMIT 1") != []


@pytest.mark.full
async def test_cordoned_node_gives_up_its_sagas_and_answers_all_the_same(pair: Cluster) -> None:
    await pair.clients[0].register(three_steps())
    first, second = await pair.clients[0].operator.nodes()
    assert [node.address for node in (first, second)] == [node.address for node in pair.nodes]
    assert (first.answering, second.answering, first.alive, second.alive) == (True, False, True, True)
    assert sorted([*first.shards, *second.shards]) == list(range(16))
    shown = await saga("nodes", "--address", pair.nodes[1].address)
    assert [line.split()[:3] for line in shown.splitlines()[1:]] == [[node.id, node.address, "alive"] for node in (first, second)]
    await saga("cordon", first.id, "--address", pair.nodes[1].address)
    await pair.until(lambda: pair.held() == [0, 16])
    handle = await pair.clients[0].start("three-steps", StringValue(value="go"), start_at=_in_an_hour())
    async with SagaClient(pair.nodes[0].address, start_in_frames=True) as framed:
        started = await asyncio.gather(*(framed.start("three-steps", StringValue(value="go"), start_at=_in_an_hour()) for _ in range(3)))
    assert {pair.owner_of(each.id) for each in (handle, *started)} == {1}
    await saga("uncordon", first.id, "--address", pair.nodes[0].address)
    await pair.until(lambda: pair.held() == [8, 8])
    for each in (handle, *started):
        await pair.clients[0].cancel(each.id)
    with pytest.raises(NodeNotFound, match="ListNodes lists those that there are"):
        await pair.clients[0].operator.cordon("unheard-of")


async def test_many_sagas_are_acted_on_wherever_they_are_driven(pair: Cluster) -> None:
    await pair.clients[0].register(three_steps())
    handles = [await pair.clients[n % 2].start("three-steps", StringValue(value="go"), start_at=_in_an_hour()) for n in range(6)]
    operator, all_of_them = pair.clients[1].operator, SagaSelection(definition="three-steps")
    shown = [result.saga.id async for result in operator.dry_run(all_of_them, operator_pb2.BULK_ACTION_CANCEL)]
    assert set(shown) == {handle.id for handle in handles}
    acted = operator.act_on_sagas(all_of_them, operator_pb2.BULK_ACTION_CANCEL, saga_ids=shown, reason="drill", actor="ann")
    assert [(result.saga.id, result.refusal) async for result in acted] == [(saga_id, None) for saga_id in shown]
    ended = [await pair.clients[0].wait(handle.id, timeout=A_MINUTE) for handle in handles]
    assert {saga.status for saga in ended} == {saga_pb2.SAGA_STATUS_COMPENSATED}


async def saga(*arguments: str) -> str:
    command = [sys.executable, "-m", "coordinator", *arguments]
    environment = python_environment({"COLUMNS": "160"})
    done = await asyncio.to_thread(
        subprocess.run, command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


@pytest.mark.full
async def test_shards_are_spread_when_nodes_come_and_go(postgres: tuple[URL, str], tmp_path: Path) -> None:
    async with cluster_of(3, postgres, tmp_path) as cluster:
        assert cluster.held() == [5, 5, 6]
        assert await asyncio.to_thread(cluster.nodes[2].terminate) == 0
        await cluster.until(lambda: cluster.held() == [8, 8])
        await cluster.nodes[2].start()
        await cluster.until(lambda: cluster.held() == [5, 5, 6])
