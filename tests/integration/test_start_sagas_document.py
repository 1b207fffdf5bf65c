"""The snippets of docs/how-to/start-sagas.md do what the page says, with a coordinator and participants that are there."""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, Final

import grpc
import pytest

from participant_sdk import NoBarrier, Participant, ParticipantServer, Rejected, SagaClient, StepContext, action
from saga.v1 import coordinator_pb2, saga_pb2
from shop.v1.shop_pb2 import CourierBooked, PaymentCharged, PlaceOrder
from tests.certificates import self_signed
from tests.documents import ROOT
from tests.integration.conftest import Running
from tests.unit.client.fake_coordinator import FakeCoordinator, served

PAGE = ROOT / "docs" / "how-to" / "start-sagas.md"


class Payments(Participant, name="payments"):
    @action
    async def charge(self, request: PlaceOrder, step: StepContext) -> PaymentCharged:
        if request.card == "empty":
            raise Rejected("CARD_DECLINED", "nothing on it")
        return PaymentCharged()

    @charge.compensation
    async def refund(self, request: PlaceOrder, charged: PaymentCharged, step: StepContext) -> None: ...


class Shipping(Participant, name="shipping"):
    @action
    async def book(self, request: PlaceOrder, step: StepContext) -> CourierBooked:
        return CourierBooked(tracking_number=f"parcel {request.order_id}")

    @book.compensation
    async def call_off(self, request: PlaceOrder, booked: CourierBooked, step: StepContext) -> None: ...


SHOWN: Final = re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.fixture
def page() -> dict[str, Any]:
    """What the snippets define, one after the other."""
    names: dict[str, Any] = {"__name__": "start_sagas"}
    for snippet in SHOWN.findall(PAGE.read_text()):
        exec(compile(snippet, str(PAGE), "exec"), names)
    return names


@pytest.fixture
async def client(running: Running, page: dict[str, Any]) -> AsyncIterator[SagaClient]:
    """Of a coordinator that knows the saga, and whose participants are there."""
    async with ParticipantServer(Payments(barrier=NoBarrier()), Shipping(barrier=NoBarrier()), coordinator=running.address) as server:
        await server.wait_registered(timedelta(seconds=30))
        await running.client.register(page["place_order"])
        yield running.client


def test_every_snippet_is_called_by_a_test(page: dict[str, Any]) -> None:
    functions = {name for name, each in page.items() if getattr(each, "__module__", "") == "start_sagas"}
    assert functions == set(re.findall(r'page\["(\w+)"\]\(', (ROOT / "tests/integration/test_start_sagas_document.py").read_text()))


async def test_started_saga_gives_its_result(page: dict[str, Any], client: SagaClient) -> None:
    assert await page["order"](client.address, PlaceOrder(order_id="1")) == "parcel 1"
    assert await page["order"](client.address, PlaceOrder(order_id="1")) == "parcel 1"
    (saga,) = [saga async for saga in client.list()]
    assert (await page["follow"](client, saga.id))[-1] == "saga_completed"


async def test_output_may_be_said_in_either_way(page: dict[str, Any]) -> None:
    assert page["placed"] is page["draft"]
    assert page["placed"].output_type is page["place_order"].output_type is CourierBooked


async def test_errors_are_told_apart(page: dict[str, Any], client: SagaClient) -> None:
    assert await page["place"](client, PlaceOrder(order_id="2")) == "placed: parcel 2"
    assert await page["place"](client, PlaceOrder(order_id="2", sku="another")) == "this order was placed before, with other content"
    assert await page["place"](client, PlaceOrder(order_id="3", card="empty")) == "not placed: CARD_DECLINED at charge"


async def test_many_are_started(page: dict[str, Any], client: SagaClient, capsys: pytest.CaptureFixture[str]) -> None:
    orders = [PlaceOrder(order_id=str(number)) for number in range(30)]
    assert await page["import_orders"](client, orders) == []
    assert await page["import_orders"](client, [*orders, PlaceOrder(order_id="7", sku="another")]) == []
    assert len([saga async for saga in client.list()]) == 30
    assert "order 30 is wrong: " in capsys.readouterr().out


async def test_code_that_blocks_gives_the_same(page: dict[str, Any], client: SagaClient) -> None:
    assert await asyncio.to_thread(lambda: page["order_and_block"](client.address, PlaceOrder(order_id="4"))) == "1 parcel 4"


async def test_any_node_does(page: dict[str, Any], client: SagaClient) -> None:
    assert await page["order_at_any_node"]([client.address, "127.0.0.1:1"], PlaceOrder(order_id="5")) == "parcel 5"


async def test_order_over_tls(page: dict[str, Any]) -> None:
    ours, coordinator = self_signed(), FakeCoordinator()
    async with served(coordinator, credentials=grpc.ssl_server_credentials([(ours.key, ours.chain)])) as address:
        ordering = asyncio.ensure_future(page["order_over_tls"](address, ours.chain, PlaceOrder()))
        (request,) = await coordinator.wait_for(coordinator_pb2.StartSagaRequest)
        coordinator.sagas[request.saga_id].output.Pack(CourierBooked(tracking_number="parcel 6"))
        await coordinator.move(request.saga_id, saga_pb2.SAGA_STATUS_COMPLETED, saga_completed=saga_pb2.SagaCompleted())
        assert await ordering == "parcel 6"
