"""Hotels: puts rooms aside, and gives them back if the trip comes to nothing."""

import math
from datetime import timedelta
from uuid import uuid4

from sqlalchemy import insert, update
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from participant_sdk import Participant, Rejected, StepContext, action
from travel.v1.travel_pb2 import Money, ReserveRooms, RoomsReserved


class Base(DeclarativeBase):
    pass


class Hotel(Base):
    __tablename__ = "hotel"

    town: Mapped[str] = mapped_column(primary_key=True)
    currency: Mapped[str]
    night_cents: Mapped[int]
    rooms_left: Mapped[int]


class RoomReservation(Base):
    __tablename__ = "room_reservation"

    id: Mapped[str] = mapped_column(primary_key=True)
    trip_id: Mapped[str]
    town: Mapped[str]
    rooms: Mapped[int]
    is_cancelled: Mapped[bool] = mapped_column(default=False)


class Hotels(Participant, name="hotels"):
    @action
    async def reserve(self, request: ReserveRooms, step: StepContext) -> RoomsReserved:
        taken = await step.session.execute(
            update(Hotel)
            .where(Hotel.town == request.town, Hotel.rooms_left >= request.rooms)
            .values(rooms_left=Hotel.rooms_left - request.rooms)
            .returning(Hotel.night_cents, Hotel.currency)
        )
        hotel = taken.first()
        if hotel is None:
            raise Rejected("NO_ROOMS", f"there are no {request.rooms} rooms in {request.town}")
        reservation = RoomReservation(id=f"rooms-{uuid4()}", trip_id=request.trip_id, town=request.town, rooms=request.rooms)
        step.session.add(reservation)
        nights = math.ceil((request.check_out.ToDatetime() - request.check_in.ToDatetime()) / timedelta(days=1))
        price = Money(currency=hotel.currency, cents=hotel.night_cents * nights * request.rooms)
        return RoomsReserved(reservation_id=reservation.id, price=price)

    @reserve.compensation
    async def cancel(self, request: ReserveRooms, reserved: RoomsReserved, step: StepContext) -> None:
        await step.session.execute(update(Hotel).where(Hotel.town == request.town).values(rooms_left=Hotel.rooms_left + request.rooms))
        await step.session.execute(update(RoomReservation).where(RoomReservation.id == reserved.reservation_id).values(is_cancelled=True))


# Where there are beds on the first day. New York wants dollars.
SEED = [
    insert(Hotel).prefix_with("OR IGNORE").values(town="LIS", currency="EUR", night_cents=90_00, rooms_left=10),
    insert(Hotel).prefix_with("OR IGNORE").values(town="JFK", currency="USD", night_cents=250_00, rooms_left=10),
]
