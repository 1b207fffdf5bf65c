"""What a checker must reject of the builder and the client."""

from participant_sdk import Participant, Saga, SagaClient, SagaHandle, StepContext, action
from participant_sdk.client import Start, SyncSagaClient
from shop.v1.shop_pb2 import CourierBooked, PaymentCharged, PlaceOrder, StockReserved


class Inventory(Participant, name="inventory"):
    @action
    async def reserve(self, request: PlaceOrder, step: StepContext) -> StockReserved:
        return StockReserved()

    @action
    def count(self, request: StockReserved, step: StepContext) -> PaymentCharged:
        return PaymentCharged()


saga = Saga("place-order", input=PlaceOrder)
reserved = saga.step(Inventory.reserve)
saga.step(Inventory.count)  # E: "step"
saga.step(Inventory.reserve, reserved)  # E: "step"
saga.step(Inventory.count, saga.input)  # E: "step"
saga.step("shipping.book")  # E: "step"
saga.step("shipping.book", request=StockReserved, response=CourierBooked)  # E: "step"
saga.step("shipping.book", reserved, request=PlaceOrder, response=CourierBooked)  # E: "step"
saga.step(Inventory.reserve, attempts=3)  # E: "step"
saga.step(Inventory.count, 3)  # E: "step"
saga.step(Inventory.count, StockReserved())  # E: "step"
saga.step(Inventory.reserve, without_compensation=True)  # E: "step"
saga.step(Inventory.reserve, when=True)  # E: "step"
saga.step(Inventory.reserve, after=["reserve"])  # E: "step"
saga.step("shipping.book", "input", response=CourierBooked)  # E: "step"
saga.returns(reserved, StockReserved)  # E: "returns"
saga.on_success(Inventory.count)  # E: "__call__"
saga.on_success(Inventory.count, saga.input)  # E: "__call__"
saga.on_failure(Inventory.reserve, kind=3)  # E: "__call__"
saga.on_failure("mail.sorry", request=StockReserved, response=CourierBooked)  # E: "__call__"
saga.on_failure("mail.sorry", reserved, request=PlaceOrder, response=CourierBooked)  # E: "__call__"


typed = Saga("place-order", input=PlaceOrder, output=CourierBooked)
typed.returns(reserved)  # E: "returns"
typed.returns("StockReserved{}", StockReserved)  # E: "returns"


async def start_typed(client: SagaClient) -> PaymentCharged:
    handle = await client.start(typed, PlaceOrder())
    client.start_many(typed, [StockReserved()])  # E: "start_many"
    client.start_many(typed, [Start(StockReserved())])  # E: "start_many"
    client.start_many(typed, [PlaceOrder()], key="42")  # E: "start_many"
    return await handle.result()  # E: "CourierBooked"


def start_and_block(client: SyncSagaClient) -> PaymentCharged:
    client.start(typed, StockReserved())  # E: "start"
    client.get(3)  # E: "get"
    client.list(statuses="COMPLETED")  # E: "list"
    client.operator.pause("id", because="why")  # E: "pause"
    return client.run(typed, PlaceOrder())  # E: "CourierBooked"


async def start(client: SagaClient) -> None:
    await client.start(saga, StockReserved())  # E: "start"
    await client.run(saga, StockReserved())  # E: "run"


async def result(handle: SagaHandle) -> PlaceOrder:
    return await handle.result(CourierBooked)  # E: "PlaceOrder"
