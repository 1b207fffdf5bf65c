"""Dataclasses where messages are: what is started with one, and what comes back."""

from dataclasses import dataclass
from typing import assert_type

import pytest

from participant_sdk.builder import Saga
from participant_sdk.client import SagaClient, Started, output_of
from participant_sdk.payloads import payload_type
from saga.v1 import coordinator_pb2, saga_pb2
from tests.unit.client.fake_coordinator import FakeCoordinator


@dataclass(frozen=True)
class Order:
    order_id: str
    quantity: int = 1


@dataclass(frozen=True)
class Placed:
    number: str


def _place_order() -> Saga[Order, Placed]:
    saga = Saga("place-order", input=Order, output=Placed)
    saga.step("shipping.book", request=Order, response=Placed)
    return saga.returns("Placed{number: book.number}")


async def test_saga_takes_and_returns_dataclasses(client: SagaClient, coordinator: FakeCoordinator) -> None:
    saga = _place_order()
    await client.register(saga)
    handle = await client.start(saga, Order("42", 3))
    (request,) = coordinator.received(coordinator_pb2.StartSagaRequest)
    assert payload_type(Order).unpack(request.input) == Order("42", 3)
    coordinator.sagas[handle.id].output.CopyFrom(payload_type(Placed).pack(Placed("p1")))
    await coordinator.move(handle.id, saga_pb2.SAGA_STATUS_COMPLETED, saga_completed=saga_pb2.SagaCompleted())
    assert_type(await handle.result(), Placed)
    assert await handle.result() == Placed("p1")
    assert output_of(await handle.get(), Placed) == Placed("p1")
    with pytest.raises(TypeError, match=r"expected .*Order, found .*Placed"):
        await handle.result(Order)


async def test_many_dataclasses_are_started(client: SagaClient, coordinator: FakeCoordinator) -> None:
    answers = [each async for each in client.start_many(_place_order(), [Order(str(number)) for number in range(5)])]
    assert [type(each) for each in answers] == [Started] * 5
    found = {payload_type(Order).unpack(saga.input).order_id for saga in coordinator.sagas.values()}
    assert found == {"0", "1", "2", "3", "4"}
