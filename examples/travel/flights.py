"""Flights: puts seats aside and back, and makes tickets of them once they are paid."""

from datetime import timedelta
from uuid import uuid4

from sqlalchemy import insert, select, update
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from participant_sdk import Participant, Rejected, StepContext, action
from travel.v1.travel_pb2 import IssueTickets, Money, ReserveSeats, SeatsReserved, TicketsIssued

BUSINESS_FACTOR = 3
"""A seat in the front costs that many in the back."""


class Base(DeclarativeBase):
    pass


class Flight(Base):
    __tablename__ = "flight"

    origin: Mapped[str] = mapped_column(primary_key=True)
    destination: Mapped[str] = mapped_column(primary_key=True)
    hours: Mapped[int]
    fare_cents: Mapped[int]
    seats_left: Mapped[int]


class SeatReservation(Base):
    __tablename__ = "seat_reservation"

    id: Mapped[str] = mapped_column(primary_key=True)
    trip_id: Mapped[str]
    origin: Mapped[str]
    destination: Mapped[str]
    seats: Mapped[int]
    is_released: Mapped[bool] = mapped_column(default=False)


class Ticket(Base):
    __tablename__ = "ticket"

    number: Mapped[str] = mapped_column(primary_key=True)
    reservation_id: Mapped[str]
    passenger: Mapped[str]


class Printer(Base):
    __tablename__ = "printer"

    id: Mapped[int] = mapped_column(primary_key=True)
    works: Mapped[bool] = mapped_column(default=True)


class Flights(Participant, name="flights"):
    @action
    async def reserve(self, request: ReserveSeats, step: StepContext) -> SeatsReserved:
        seats = len(request.passengers)
        route = Flight.origin == request.origin, Flight.destination == request.destination
        # Whatever goes through step.session is committed together with the barrier's row: all of it once, or nothing.
        taken = await step.session.execute(
            update(Flight)
            .where(*route, Flight.seats_left >= seats)
            .values(seats_left=Flight.seats_left - seats)
            .returning(Flight.fare_cents, Flight.hours)
        )
        flight = taken.first()
        if flight is None:
            raise Rejected("NO_SEATS", f"there are no {seats} seats from {request.origin} to {request.destination}")
        reservation = SeatReservation(
            id=f"seats-{uuid4()}", trip_id=request.trip_id, origin=request.origin, destination=request.destination, seats=seats
        )
        step.session.add(reservation)
        fare = flight.fare_cents * seats * (BUSINESS_FACTOR if request.in_business else 1)
        reserved = SeatsReserved(reservation_id=reservation.id, fare=Money(currency="EUR", cents=fare))
        reserved.arrives.FromDatetime(request.departs.ToDatetime() + timedelta(hours=flight.hours))
        return reserved

    @reserve.compensation
    async def release(self, request: ReserveSeats, reserved: SeatsReserved, step: StepContext) -> None:
        # Only called for a reservation that was made, and only once: nothing to check here.
        route = Flight.origin == request.origin, Flight.destination == request.destination
        await step.session.execute(update(Flight).where(*route).values(seats_left=Flight.seats_left + len(request.passengers)))
        await step.session.execute(update(SeatReservation).where(SeatReservation.id == reserved.reservation_id).values(is_released=True))

    @action
    async def issue(self, request: IssueTickets, step: StepContext) -> TicketsIssued:
        """Nothing undoes it: by then the trip is paid, and must be had. So whatever is wrong is mended, and it is called again."""
        if not await step.session.scalar(select(Printer.works)):
            # Not a refusal: an error. Nobody knows what the printer did, and the coordinator calls again.
            raise ConnectionError("the ticket printer does not answer")
        for passenger in request.passengers:
            if "." in passenger:
                raise Rejected("NAME_ABBREVIATED", f"{passenger!r} is abbreviated; a ticket needs the name as it stands in the passport")
        tickets = [Ticket(number=f"ticket-{uuid4()}", reservation_id=request.reservation_id, passenger=each) for each in request.passengers]
        step.session.add_all(tickets)
        return TicketsIssued(numbers=[ticket.number for ticket in tickets])


# What flies on the first day.
SEED = [
    insert(Flight).prefix_with("OR IGNORE").values(origin="BER", destination="LIS", hours=4, fare_cents=120_00, seats_left=20),
    insert(Flight).prefix_with("OR IGNORE").values(origin="BER", destination="JFK", hours=9, fare_cents=480_00, seats_left=20),
    insert(Printer).prefix_with("OR IGNORE").values(id=1, works=True),
]
