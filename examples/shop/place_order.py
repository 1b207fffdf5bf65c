"""The saga of the shop: reserve the goods, charge the card, book the courier; all of it, or none.

python -m examples.shop.place_order
"""

import asyncio
import os
from datetime import timedelta

from examples.shop.inventory import Inventory
from examples.shop.payments import Payments
from examples.shop.shipping import Shipping
from participant_sdk import Saga, SagaClient, SagaNotCompleted
from shop.v1.shop_pb2 import CourierBooked, PlaceOrder

place_order = Saga("place-order", input=PlaceOrder, output=CourierBooked, time_limit=timedelta(minutes=5))
place_order.step(Inventory.reserve)
place_order.step(Payments.charge)
booked = place_order.step(Shipping.book)
place_order.returns(booked)


async def main() -> None:
    order = PlaceOrder(order_id="42", sku="widget", quantity=1, amount_cents=19_99, card="4242", address="1 Main Street")
    async with SagaClient(os.environ.get("SAGA_ADDRESS", "127.0.0.1:7700")) as client:
        await client.register(place_order)
        # The key makes it one order however often this program is started.
        started = await client.start(place_order, order, key=order.order_id)
        try:
            courier = await started.result(timeout=timedelta(minutes=6))
        except SagaNotCompleted as undone:
            print(f"no order: {undone.reason} at step {undone.failed_step}; see `saga show {started.id}`")
        else:
            print(f"ordered; follow the parcel with {courier.tracking_number}")


if __name__ == "__main__":
    asyncio.run(main())
