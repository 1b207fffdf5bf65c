"""Shipping: books a courier, and calls the booking off if the order comes to nothing.

python -m examples.shop.shipping
"""

from uuid import uuid4

from sqlalchemy import update
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from examples.shop.service import run_service, work
from participant_sdk import Participant, Rejected, StepContext, action
from shop.v1.shop_pb2 import CourierBooked, PlaceOrder


class Base(DeclarativeBase):
    pass


class Shipment(Base):
    __tablename__ = "shipment"

    tracking_number: Mapped[str] = mapped_column(primary_key=True)
    order_id: Mapped[str]
    address: Mapped[str]
    is_called_off: Mapped[bool] = mapped_column(default=False)


class Shipping(Participant, name="shipping"):
    @action
    async def book(self, request: PlaceOrder, step: StepContext) -> CourierBooked:
        await work(step)
        if not request.address:
            raise Rejected("NO_ADDRESS", "the order does not say where it goes")
        shipment = Shipment(tracking_number=f"track-{uuid4()}", order_id=request.order_id, address=request.address)
        step.session.add(shipment)
        return CourierBooked(tracking_number=shipment.tracking_number)

    @book.compensation
    async def call_off(self, request: PlaceOrder, booked: CourierBooked, step: StepContext) -> None:
        await step.session.execute(update(Shipment).where(Shipment.tracking_number == booked.tracking_number).values(is_called_off=True))


if __name__ == "__main__":
    run_service(Shipping, tables=Base.metadata, seed=[], port=7713)
