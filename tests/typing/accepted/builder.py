"""What a checker must accept of the builder and the client."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import assert_type

from participant_sdk import Participant, Saga, SagaClient, SagaHandle, StepContext, StepKind, action
from participant_sdk.builder import Hook, Source, StepHandle
from participant_sdk.client import NotStarted, Start, Started, SyncSagaClient, SyncSagaHandle
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
assert_type(saga, Saga[PlaceOrder, None])
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


typed = Saga("place-order", input=PlaceOrder, output=CourierBooked)
assert_type(typed, Saga[PlaceOrder, CourierBooked])
typed.returns(typed.step("shipping.book", request=PlaceOrder, response=CourierBooked))
typed.returns("CourierBooked{}")
typed.returns("CourierBooked{}", CourierBooked)
written = Saga("place-order", input=PlaceOrder)
read_off = written.returns(written.step("shipping.book", request=PlaceOrder, response=CourierBooked))
assert_type(read_off, Saga[PlaceOrder, CourierBooked])
assert_type(written.returns("CourierBooked{}", CourierBooked), Saga[PlaceOrder, CourierBooked])


def anything_that_starts_with_an_order(known: Saga[PlaceOrder]) -> None: ...


anything_that_starts_with_an_order(saga)
anything_that_starts_with_an_order(typed)


async def start(client: SagaClient) -> None:
    handle = await client.start(saga, PlaceOrder(), key="42")
    assert_type(handle, SagaHandle[None])
    assert_type(await handle.result(CourierBooked), CourierBooked)
    assert_type(await handle.wait(), saga_pb2.Saga)
    assert_type(await client.start("any", PaymentCharged(), version=2), SagaHandle[None])
    assert_type(await client.run("any", PlaceOrder()), saga_pb2.Saga)
    await client.run(saga, PlaceOrder())


async def start_typed(client: SagaClient) -> None:
    handle = await client.start(typed, PlaceOrder(), key="42")
    assert_type(handle, SagaHandle[CourierBooked])
    assert_type(await handle.result(timeout=timedelta(seconds=1)), CourierBooked)
    assert_type(await client.run(typed, PlaceOrder()), CourierBooked)
    assert_type(client.attach(handle.id, typed), SagaHandle[CourierBooked])
    assert_type(client.attach(handle.id), SagaHandle[None])
    untyped: SagaHandle = handle
    assert_type(await untyped.result(PlaceOrder), PlaceOrder)


async def start_many(client: SagaClient, orders: AsyncIterator[PlaceOrder]) -> None:
    async for each in client.start_many(typed, [Start(PlaceOrder(), {"key": "42"})], window=8, labels={"batch": "7"}):
        assert_type(each, Started[SagaHandle[CourierBooked]] | NotStarted)
        if isinstance(each, NotStarted):
            assert_type(each.error.reason, str)
        else:
            assert_type(await each.handle.result(), CourierBooked)
    async for one in client.start_many(typed, orders):
        assert_type(one, Started[SagaHandle[CourierBooked]] | NotStarted)
    async for named in client.start_many("any", orders, version=2):
        assert_type(named, Started[SagaHandle[None]] | NotStarted)


def start_and_block(client: SyncSagaClient) -> None:
    handle = client.start(typed, PlaceOrder(), key="42")
    assert_type(handle, SyncSagaHandle[CourierBooked])
    assert_type(handle.result(timeout=timedelta(seconds=1)), CourierBooked)
    assert_type(handle.result(PlaceOrder), PlaceOrder)
    assert_type(handle.wait(timeout=timedelta(seconds=1)), saga_pb2.Saga)
    assert_type(handle.cancel(reason="changed my mind"), saga_pb2.Saga)
    for response in handle.watch(after=3):
        assert_type(response.event, saga_pb2.Event)
    assert_type(client.run(typed, PlaceOrder()), CourierBooked)
    assert_type(client.run("any", PlaceOrder()), saga_pb2.Saga)
    assert_type(client.attach(handle.id, typed), SyncSagaHandle[CourierBooked])
    assert_type(client.get(handle.id), saga_pb2.Saga)
    assert_type(client.register(typed), bool)
    assert_type([each.id for each in client.list(definition="place-order", paused=None)], list[str])
    assert_type(client.operator.pause(handle.id, reason="why", actor="who"), saga_pb2.Saga)
    for each in client.start_many(typed, [PlaceOrder()]):
        assert_type(each, Started[SyncSagaHandle[CourierBooked]] | NotStarted)
