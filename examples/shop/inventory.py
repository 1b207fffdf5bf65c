"""Inventory: puts goods aside for an order, and back if the order comes to nothing.

python -m examples.shop.inventory
"""

from uuid import uuid4

from sqlalchemy import delete, insert, update
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from examples.shop.service import run_service, work
from participant_sdk import Participant, Rejected, StepContext, action
from shop.v1.shop_pb2 import PlaceOrder, StockReserved


class Base(DeclarativeBase):
    pass


class Stock(Base):
    __tablename__ = "stock"

    sku: Mapped[str] = mapped_column(primary_key=True)
    available: Mapped[int]


class Reservation(Base):
    __tablename__ = "reservation"

    id: Mapped[str] = mapped_column(primary_key=True)
    order_id: Mapped[str]
    sku: Mapped[str]
    quantity: Mapped[int]


class Inventory(Participant, name="inventory"):
    @action
    async def reserve(self, request: PlaceOrder, step: StepContext) -> StockReserved:
        await work(step)
        # Whatever goes through step.session is committed together with the barrier's row: all of it once, or nothing.
        enough = Stock.sku == request.sku, Stock.available >= request.quantity
        taken = await step.session.execute(
            update(Stock).where(*enough).values(available=Stock.available - request.quantity).returning(Stock.sku)
        )
        if taken.first() is None:
            raise Rejected("OUT_OF_STOCK", f"fewer than {request.quantity} of {request.sku!r} are left")
        reservation = Reservation(id=f"reservation-{uuid4()}", order_id=request.order_id, sku=request.sku, quantity=request.quantity)
        step.session.add(reservation)
        return StockReserved(reservation_id=reservation.id)

    @reserve.compensation
    async def release(self, request: PlaceOrder, reserved: StockReserved, step: StepContext) -> None:
        # Only called for a reservation that was made, and only once: nothing to check here.
        await step.session.execute(update(Stock).where(Stock.sku == request.sku).values(available=Stock.available + request.quantity))
        await step.session.execute(delete(Reservation).where(Reservation.id == reserved.reservation_id))


# What is on the shelves on the first day.
SEED = [insert(Stock).prefix_with("OR IGNORE").values(sku="widget", available=10)]


if __name__ == "__main__":
    run_service(Inventory, tables=Base.metadata, seed=SEED, port=7711)
