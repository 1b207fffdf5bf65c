"""Given, when, then: a world in three words."""

import pytest

from participant_sdk.testing import KitError, MemoryBarrier, Mishap, given, stub, stubs_of
from shop.v1.shop_pb2 import CourierBooked, PaymentCharged, PlaceOrder
from tests.unit.testing_kit.orders import ORDER, Inventory, place_order

declined = stub("payments.charge", request=PlaceOrder, response=PaymentCharged).rejects("CARD_DECLINED", "not enough on it")


def inventory() -> Inventory:
    return Inventory(barrier=MemoryBarrier())


def test_saga_completes() -> None:
    given(place_order, inventory, *stubs_of(place_order)).when(ORDER).then_completed(CourierBooked()).then_called(
        "reserve", "charge", "book"
    )


def test_saga_is_undone() -> None:
    given(place_order, inventory, declined, *stubs_of(place_order)).when(ORDER).then_compensated(because="CARD_DECLINED")


def test_faults_and_refusals_can_be_given() -> None:
    world = given(place_order, inventory, *stubs_of(place_order)).mishap("reserve", Mishap.PARTICIPANT_DIES).refusal("book")
    world.when(ORDER).then_compensated(because="REFUSED", at="book").then_attempts("reserve", 2)


def test_real_participant_and_said_stub_come_before_what_stands_in_for_all() -> None:
    order = PlaceOrder(order_id="1", sku="yacht")
    given(place_order, *stubs_of(place_order), inventory).when(order).then_compensated(because="OUT_OF_STOCK")


async def test_given_in_an_async_test_is_told() -> None:
    with pytest.raises(KitError, match="an `async def` test uses the fixture saga_kit"):
        given(place_order, *stubs_of(place_order)).when(ORDER)
