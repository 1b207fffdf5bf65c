"""A service team's participant, and the saga that it is part of."""

from google.protobuf.wrappers_pb2 import StringValue

from participant_sdk import Participant, Rejected, Saga, StepContext, StepKind, action
from participant_sdk.barrier.barrier import Barrier
from shop.v1.shop_pb2 import CourierBooked, PaymentCharged, PlaceOrder, StockReserved

ORDER = PlaceOrder(order_id="42", sku="widget", quantity=1, amount_cents=19_99, card="4242", address="1 Main Street")


class Inventory(Participant, name="inventory"):
    """Keeps its reservations by key, so that repeating them does nothing."""

    def __init__(self, *, barrier: Barrier) -> None:
        super().__init__(barrier=barrier)
        self.reserved: dict[str, str] = {}

    @action
    async def reserve(self, request: PlaceOrder, step: StepContext) -> StockReserved:
        if request.sku == "yacht":
            raise Rejected("OUT_OF_STOCK", "nobody keeps that on a shelf")
        self.reserved[step.key] = request.sku
        return StockReserved(reservation_id=f"for {request.order_id}")

    @reserve.compensation
    async def release(self, request: PlaceOrder, reserved: StockReserved, step: StepContext) -> None:
        self.reserved.pop(step.execute_key, None)


place_order = Saga("place-order", input=PlaceOrder)
place_order.step(Inventory.reserve)
place_order.step("payments.charge", request=PlaceOrder, response=PaymentCharged)
place_order.returns(place_order.step("shipping.book", request=PlaceOrder, response=CourierBooked))

delivered = Saga("deliver", input=PlaceOrder)
delivered.step(Inventory.reserve)
delivered.step("payments.charge", request=PlaceOrder, response=PaymentCharged, kind=StepKind.PIVOT)
delivered.step("shipping.book", request=PlaceOrder, response=CourierBooked, kind=StepKind.RETRIABLE)
delivered.on_success(
    "mail.thank", 'google.protobuf.StringValue{value: "thanks"}', request=StringValue, response=StringValue,
)  # fmt: skip
