"""Several nodes: who is asked next, and calls that go on when a node is gone."""

import asyncio
import socket
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest

from participant_sdk.client import CoordinatorUnavailable, SagaClient
from participant_sdk.client.failover import Turn
from participant_sdk.ids import new_saga_id
from participant_sdk.registration import Registration
from saga.v1 import coordinator_pb2, participant_pb2, saga_pb2
from shop.v1.shop_pb2 import PaymentCharged, PlaceOrder
from tests.unit.client.fake_coordinator import FakeCoordinator, served, unavailable

ORDER = PlaceOrder(order_id="42", sku="widget", quantity=1)
NOBODY = "127.0.0.1:1"
PATIENCE = timedelta(seconds=20)


class Watch:
    """A clock that moves by one second each time it is looked at."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 1
        return self.now_s


def test_turn_stays_where_it_is_answered() -> None:
    turn = Turn(3, first=1, now=Watch())
    turn.note_answer(1)
    turn.note_failure(2)
    assert turn.current == 1


def test_turn_goes_to_the_one_that_has_not_failed() -> None:
    turn = Turn(3, first=0, now=Watch())
    turn.note_failure(1)
    turn.note_failure(0)
    assert turn.current == 2


def test_turn_goes_to_the_one_whose_failure_is_longest_ago() -> None:
    turn = Turn(3, first=0, now=Watch())
    turns = []
    for _ in range(5):
        turn.note_failure(turn.current)
        turns.append(turn.current)
    assert turns == [1, 2, 0, 1, 2]


def test_turn_comes_back_to_one_that_answers_again() -> None:
    turn = Turn(3, first=0, now=Watch())
    turn.note_failure(0)
    turn.note_failure(1)
    turn.note_answer(0)
    turn.note_failure(2)
    assert turn.current == 0


def test_many_failures_of_one_node_move_on_once() -> None:
    turn = Turn(3, first=0, now=Watch())
    for _ in range(100):
        turn.note_failure(0)
    assert turn.current == 1


def test_turn_of_one_stays() -> None:
    turn = Turn(1, first=0, now=Watch())
    turn.note_failure(0)
    assert turn.current == 0


async def test_calls_skip_nodes_that_are_dead(coordinator: FakeCoordinator, address: str) -> None:
    for addresses in ([NOBODY, address], [address, NOBODY], f"{NOBODY},127.0.0.1:2,{address}"):
        async with SagaClient(addresses, timeout=PATIENCE) as client:
            handle = await client.start("place-order", ORDER)
            assert (await client.get(handle.id)).id == handle.id
    assert len(coordinator.sagas) == 3


async def test_calls_go_on_with_another_node_and_come_back() -> None:  # R2
    """Two nodes that share what they keep; each goes away while the other is there."""
    shared = FakeCoordinator()
    async with AsyncExitStack() as first, AsyncExitStack() as second:
        a = await first.enter_async_context(served(shared))
        b = await second.enter_async_context(served(shared))
        async with SagaClient([a, b], timeout=PATIENCE) as client:
            handle = await client.start("place-order", ORDER)
            await first.aclose()
            assert (await client.get(handle.id)).id == handle.id
            await first.enter_async_context(served(shared, a))
            await second.aclose()
            assert (await client.get(handle.id)).id == handle.id
            await second.enter_async_context(served(shared, b))
            await first.aclose()
            assert (await client.get(handle.id)).id == handle.id


async def test_result_goes_on_with_another_node() -> None:  # H2
    shared = FakeCoordinator()
    async with AsyncExitStack() as first, AsyncExitStack() as second:
        nodes = {await first.enter_async_context(served(shared)): first, await second.enter_async_context(served(shared)): second}
        async with SagaClient(list(nodes), timeout=PATIENCE) as client:
            handle = await client.start("place-order", ORDER)
            result = asyncio.ensure_future(handle.result(PaymentCharged))
            await shared.wait_for(coordinator_pb2.WatchSagaRequest)
            await first.aclose()
            await first.enter_async_context(served(shared, next(iter(nodes))))
            await second.aclose()
            shared.sagas[handle.id].output.Pack(PaymentCharged(payment_id="p1"))
            await shared.move(handle.id, saga_pb2.SAGA_STATUS_COMPLETED, saga_completed=saga_pb2.SagaCompleted())
            assert (await result).payment_id == "p1"


async def test_node_that_cannot_do_its_work_is_left_for_another() -> None:
    sick, well = FakeCoordinator(), FakeCoordinator()
    sick.failures["StartSaga"].extend([unavailable()] * 100)
    async with served(sick) as a, served(well) as b, SagaClient([a, b], timeout=PATIENCE) as client:
        for _ in range(5):
            await client.start("place-order", ORDER)
    assert len(well.sagas) == 5
    assert len(sick.requests) <= 1


async def test_node_that_takes_connections_and_says_nothing_is_left_soon(coordinator: FakeCoordinator, address: str) -> None:
    """As a process that is stopped, or a machine behind a balancer that has lost it."""

    async def start(addresses: list[str]) -> None:
        async with SagaClient(addresses) as client:
            await client.start("place-order", ORDER)

    with socket.create_server(("127.0.0.1", 0)) as silent:
        addresses = [f"127.0.0.1:{silent.getsockname()[1]}", address]
        async with asyncio.timeout(8):
            # Each begins with any of the two.
            await asyncio.gather(*(start(addresses) for _ in range(8)))
    assert len(coordinator.sagas) == 8


async def test_refusal_leaves_no_node() -> None:
    one, other = FakeCoordinator(), FakeCoordinator()
    async with served(one) as a, served(other) as b, SagaClient([a, b], timeout=PATIENCE) as client:
        for _ in range(5):
            with pytest.raises(Exception, match="no saga"):
                await client.get(new_saga_id())
    assert sorted([len(one.requests), len(other.requests)]) == [0, 5]


async def test_while_no_node_is_there_raises_unavailable() -> None:
    async with SagaClient([NOBODY, "127.0.0.1:2"], timeout=timedelta(milliseconds=300)) as client:
        with pytest.raises(CoordinatorUnavailable):
            await client.start("place-order", ORDER)


async def test_closed_client_of_several_nodes_refuses_calls(address: str) -> None:
    client = SagaClient([address, NOBODY])
    await client.close()
    with pytest.raises(RuntimeError, match="closed"):
        await client.get(new_saga_id())


async def test_starts_in_frames_go_on_with_another_node() -> None:
    shared = FakeCoordinator()
    async with served(shared) as address, SagaClient([NOBODY, address], start_in_frames=True, timeout=PATIENCE) as client:
        handles = await asyncio.gather(*(client.start("place-order", ORDER) for _ in range(8)))
    assert {handle.id for handle in handles} == set(shared.sagas)


async def test_participant_registers_with_any_node(coordinator: FakeCoordinator, address: str) -> None:
    registration = Registration(
        coordinator=[NOBODY, address],
        target="127.0.0.1:9",
        descriptions=[participant_pb2.ParticipantDescription(name="inventory")],
        ttl=timedelta(seconds=30),
    )
    running = asyncio.ensure_future(registration.run())
    async with asyncio.timeout(20):
        await registration.accepted.wait()
    running.cancel()
    await asyncio.wait((running,))
    assert coordinator.received(coordinator_pb2.RegisterParticipantRequest)[0].target == "127.0.0.1:9"


async def test_participant_registers_with_another_node_when_one_goes_away() -> None:
    shared = FakeCoordinator()
    async with AsyncExitStack() as first, AsyncExitStack() as second:
        a = await first.enter_async_context(served(shared))
        b = await second.enter_async_context(served(shared))
        registration = Registration(
            coordinator=f"{a},{b}",
            target="127.0.0.1:9",
            descriptions=[participant_pb2.ParticipantDescription(name="inventory")],
            ttl=timedelta(hours=1),
        )
        running = asyncio.ensure_future(registration.run())
        try:
            async with asyncio.timeout(30):
                await shared.wait_for(coordinator_pb2.RegisterParticipantRequest, 1)
                await first.aclose()
                await first.enter_async_context(served(shared, a))
                await second.aclose()  # one of the two it was registered with
                await shared.wait_for(coordinator_pb2.RegisterParticipantRequest, 2)
        finally:
            running.cancel()
            await asyncio.wait((running,))
