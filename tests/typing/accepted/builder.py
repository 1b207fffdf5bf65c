"""What a checker must accept of the builder and the client."""

from datetime import timedelta
from typing import assert_type

from participant_sdk import Participant, Saga, SagaClient, SagaHandle, StepContext, StepKind, action
from participant_sdk.builder import Hook, Source, StepHandle
from saga.v1 import saga_pb2
from shop.v1.shop_pb2 import CourierBooked, PaymentCharged, PlaceOrder, StockReserved


class Inventory(Participant, name="inventory"):
    @action
    async def reserve(self, request: PlaceOrder, step: StepContext) -> StockReserved:
        return StockReserved()

    @reserve.compensation
    async def release(self, request: PlaceOrder, reserved: StockReserved, step: StepContext) -> None: ...

    @action
    def count(self, request: StockReserved, step: StepContext) -> PaymentCharged:
        return PaymentCharged()


saga = Saga("place-order", input=PlaceOrder)
assert_type(saga.input, Source[PlaceOrder])
reserved = saga.step(Inventory.reserve)
assert_type(reserved, StepHandle[StockReserved])
again = saga.step(Inventory.reserve, saga.input, id="again")
counted = saga.step(Inventory.count, reserved, kind=StepKind.READ_ONLY, after=[reserved, again])
assert_type(counted, StepHandle[PaymentCharged])
named = saga.step(Inventory.count, input=reserved, id="named")
booked = saga.step("shipping.book", request=PlaceOrder, response=CourierBooked)
assert_type(booked, StepHandle[CourierBooked])
billed = saga.step("billing.bill", counted, request=PaymentCharged, response=CourierBooked)
saga.returns(booked)
told = saga.step(Inventory.count, "StockReserved{reservation_id: reserve.reservation_id}", kind=StepKind.PIVOT, id="told")
assert_type(told, StepHandle[PaymentCharged])
saga.step(Inventory.reserve, kind=StepKind.RETRIABLE, when="input.quantity > 1u", id="more")
bonus = saga.step("bonus.give", "input", request=PlaceOrder, response=CourierBooked, kind=StepKind.BEST_EFFORT, without_compensation=True)
assert_type(bonus, StepHandle[CourierBooked])
saga.returns("CourierBooked{}", CourierBooked)
saga.on_success(Inventory.reserve)
saga.on_success(Inventory.count, reserved, time_limit=timedelta(hours=1))
saga.on_success(Inventory.count, "StockReserved{}")
saga.on_failure("mail.sorry", request=PlaceOrder, response=CourierBooked, attempt_timeout=timedelta(seconds=1))
saga.on_failure("mail.sorry", told, request=PaymentCharged, response=CourierBooked)
assert_type(saga.on_failure, Hook[PlaceOrder])


async def start(client: SagaClient) -> None:
    handle = await client.start(saga, PlaceOrder(), key="42")
    assert_type(handle, SagaHandle)
    assert_type(await handle.result(CourierBooked), CourierBooked)
    assert_type(await handle.wait(), saga_pb2.Saga)
    await client.start("any", PaymentCharged(), version=2)
    assert_type(await client.run(saga, PlaceOrder()), saga_pb2.Saga)
