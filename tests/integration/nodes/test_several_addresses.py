"""One client and one participant that know both nodes: either may be killed, and what they do goes on at the other."""

import asyncio
from datetime import timedelta

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from participant_sdk import ParticipantServer, SagaClient
from participant_sdk.client import Started, SyncSagaClient
from tests.integration.definitions import three_steps
from tests.integration.nodes.conftest import Cluster

pytestmark = pytest.mark.full

GO = StringValue(value="go")


async def test_client_of_both_nodes_goes_on_when_one_is_killed_and_comes_back(pair: Cluster) -> None:  # P1, R2
    echo = three_steps()
    typed = echo.returns(echo.input)
    addresses = [node.address for node in pair.nodes]
    async with SagaClient(addresses) as client:
        await client.register(typed)
        first = await client.start(typed, GO)
        for victim in pair.nodes:
            waiting = [asyncio.ensure_future(handle.result()) for handle in (first, await client.start(typed, GO))]
            victim.kill()
            started = await client.start(typed, GO)
            assert [(await result).value for result in waiting] == ["go", "go"]
            assert (await started.result()).value == "go"
            await victim.start()
    assert len(await pair.keeper.lines()) == 5


async def test_sync_client_of_both_nodes_goes_on_when_one_is_killed(pair: Cluster) -> None:  # P1, H4
    echo = three_steps()
    typed = echo.returns(echo.input)
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    def work() -> list[str]:
        with SyncSagaClient(",".join(node.address for node in pair.nodes)) as client:
            client.register(typed)
            handles = [client.start(typed, GO) for _ in range(4)]
            loop.call_soon_threadsafe(begun.set)
            return [handle.result().value for handle in handles]

    working = asyncio.ensure_future(asyncio.to_thread(work))
    await begun.wait()
    pair.nodes[0].kill()
    assert await working == ["go"] * 4


async def test_many_starts_lose_none_when_a_node_is_killed_among_them(pair: Cluster) -> None:  # P1, R2
    await pair.clients[1].register(three_steps())
    async with SagaClient([node.address for node in pair.nodes], start_in_frames=True) as client:
        handles = []
        async for each in client.start_many("three-steps", (StringValue(value=str(number)) for number in range(60)), window=16):
            assert isinstance(each, Started)
            handles.append(each.handle)
            if each.position == 10:
                pair.nodes[0].kill()
        sagas = await asyncio.gather(*(handle.wait() for handle in handles))
    assert len({saga.id for saga in sagas}) == 60
    assert len(await pair.keeper.lines()) == 60


async def test_participant_that_knows_both_nodes_registers_while_one_is_away(pair: Cluster) -> None:
    pair.nodes[0].kill()
    addresses = [node.address for node in pair.nodes]
    async with ParticipantServer(pair.keeper, coordinator=addresses) as server:
        await server.wait_registered(timedelta(seconds=30))
        (books,) = await pair.clients[1].operator.participants()
    assert server.address in books.targets
