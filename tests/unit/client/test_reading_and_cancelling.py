"""The client over a real socket: what it reads, page by page and again, and how it asks a saga to turn back."""

import pytest

from participant_sdk.client import InvalidRequest, SagaAlreadyEnded, SagaClient, SagaNotFound
from participant_sdk.ids import new_saga_id
from saga.v1 import saga_pb2
from shop.v1.shop_pb2 import PlaceOrder
from tests.unit.client.fake_coordinator import FakeCoordinator, unavailable

ORDER = PlaceOrder(order_id="42", sku="widget", quantity=1)


async def test_reads_are_repeated_while_the_coordinator_is_away(client: SagaClient, coordinator: FakeCoordinator) -> None:
    handle = await client.start("place-order", ORDER)
    coordinator.failures["GetSaga"].extend([unavailable()] * 3)
    assert (await handle.get()).id == handle.id


async def test_unknown_saga_raises_not_found(client: SagaClient) -> None:
    with pytest.raises(SagaNotFound):
        await client.get(new_saga_id())
    with pytest.raises(InvalidRequest, match="UUID"):
        await client.get("order-42")


async def test_list_and_history_read_every_page(client: SagaClient, coordinator: FakeCoordinator) -> None:
    coordinator.page_size = 2
    handles = [await client.start("place-order", ORDER) for _ in range(5)]
    assert [saga.id async for saga in client.list()] == [handle.id for handle in handles]
    for _ in range(4):
        await coordinator.move(handles[0].id, saga_pb2.SAGA_STATUS_RUNNING, step_succeeded=saga_pb2.StepSucceeded())
    assert [event.sequence async for event in client.history(handles[0].id)] == [1, 2, 3, 4, 5]
    assert [event.sequence async for event in client.history(handles[0].id, after=3)] == [4, 5]


async def test_cancel_returns_the_saga_and_refuses_an_ended_one(client: SagaClient, coordinator: FakeCoordinator) -> None:
    handle = await client.start("place-order", ORDER)
    assert (await handle.cancel(reason="changed my mind", actor="me")).status == saga_pb2.SAGA_STATUS_COMPENSATING
    await coordinator.move(handle.id, saga_pb2.SAGA_STATUS_COMPENSATED, saga_compensated=saga_pb2.SagaCompensated())
    with pytest.raises(SagaAlreadyEnded):
        await handle.cancel()


async def test_closed_client_refuses_calls_and_closes_twice(address: str) -> None:
    client = SagaClient(address)
    await client.close()
    await client.close()
    with pytest.raises(RuntimeError, match="closed"):
        await client.get(new_saga_id())
