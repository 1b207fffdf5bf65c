"""The saga of the agency: a trip is booked as a whole, or not at all.

python -m examples.travel.book_trip
"""

import asyncio
import os
from datetime import UTC, datetime, timedelta

from examples.travel.approvals import Approvals
from examples.travel.flights import Flights
from examples.travel.hotels import Hotels
from examples.travel.insurance import Insurance
from examples.travel.messages import Messages
from examples.travel.payments import Payments
from participant_sdk import RetryPolicy, Saga, SagaClient, SagaNotCompleted, StepDefaults, StepKind
from travel.v1.travel_pb2 import CABIN_ECONOMY, BookTrip, Money, Traveller, TripBooked

book_trip = Saga(
    "book-trip",
    input=BookTrip,
    time_limit=timedelta(days=2),
    labels={"team": "travel"},
    defaults=StepDefaults(attempt_timeout=timedelta(seconds=5)),
)

# Three steps at once: `after=[]` means that a step begins with the saga.
flight = book_trip.step(
    Flights.reserve,
    """
    ReserveSeats{
      trip_id: input.trip_id,
      origin: input.origin,
      destination: input.destination,
      departs: input.departs,
      passengers: input.travellers.map(person, person.name),
      in_business: input.cabin == Cabin.CABIN_BUSINESS
    }
    """,
    id="flight",
    after=[],
)
hotel = book_trip.step(
    Hotels.reserve,
    """
    ReserveRooms{
      trip_id: input.trip_id,
      town: input.destination,
      check_in: input.departs,
      check_out: input.departs + input.stay,
      rooms: has(input.rooms) ? input.rooms : uint((size(input.travellers) + 1) / 2)
    }
    """,
    id="hotel",
    after=[],
)
insure = book_trip.step(
    Insurance.insure,
    """
    InsureTrip{
      trip_id: input.trip_id,
      people: input.travellers.filter(person, person.age < 75u).map(person, person.name),
      begins: input.departs,
      lasts: input.stay
    }
    """,
    when="input.insurance && input.travellers.exists(person, person.age < 75u)",
    after=[],
)

# What it all costs, in the currency of the budget. Reading changes nothing, so there is nothing to undo.
quote = book_trip.step(
    Payments.add_up,
    """
    AddUpPrices{
      prices: [flight.fare, hotel.price] + (ran.insure ? [insure.premium] : []),
      currency: input.budget.currency
    }
    """,
    id="quote",
    kind=StepKind.READ_ONLY,
    after=[flight, hotel, insure],
)

# A person decides, within a day; nobody is asked if the budget is enough.
approve = book_trip.step(
    Approvals.ask,
    """
    AskManager{
      trip_id: input.trip_id,
      question: input.travellers[0].name
        + (size(input.travellers) > 1 ? " and " + string(size(input.travellers) - 1) + " more" : "")
        + " to " + input.destination + " for " + string(input.stay.getHours() / 24) + " days",
      total: quote.total,
      excess: Money{currency: quote.total.currency, cents: quote.total.cents - input.budget.cents}
    }
    """,
    id="approve",
    when="quote.total.cents > input.budget.cents",
)

# The point of no return. Until here everything can be undone; from here on nothing is.
charge = book_trip.step(
    Payments.charge,
    """
    ChargeCard{
      trip_id: input.trip_id,
      card: input.card,
      amount: quote.total,
      approved_by: ran.approve ? approve.manager : "within the budget"
    }
    """,
    kind=StepKind.PIVOT,
)

# Paid is paid: this must succeed in the end.
tickets = book_trip.step(
    Flights.issue,
    """
    IssueTickets{
      reservation_id: flight.reservation_id,
      payment_id: charge.payment_id,
      passengers: input.travellers.map(person, person.name)
    }
    """,
    id="tickets",
    kind=StepKind.RETRIABLE,
    execute_retry=RetryPolicy(initial_backoff=timedelta(milliseconds=500), max_backoff=timedelta(minutes=1)),
)

# Nice to have: the trip is booked without it.
itinerary = book_trip.step(
    Messages.send_itinerary,
    """
    SendItinerary{
      trip_id: input.trip_id,
      to: input.email,
      lines: ["leaves " + string(input.departs), "arrives " + string(flight.arrives), "hotel " + hotel.reservation_id]
        + tickets.numbers.map(number, "ticket " + number)
        + (ran.insure ? ["insured by " + insure.policy_id] : [])
    }
    """,
    id="itinerary",
    kind=StepKind.BEST_EFFORT,
    execute_retry=RetryPolicy(max_attempts=3),
)

book_trip.returns(
    """
    TripBooked{
      tickets: tickets.numbers,
      hotel_reservation: hotel.reservation_id,
      paid: charge.amount,
      is_insured: ran.insure,
      is_itinerary_sent: ran.itinerary,
      arrives: flight.arrives
    }
    """,
    TripBooked,
)

# Whatever becomes of it, the traveller is told, once, when all is over.
book_trip.on_success(
    Messages.send_text,
    """
    SendText{
      trip_id: input.trip_id,
      to: input.phone,
      text: "Your trip to " + input.destination + " is booked, tickets: " + string(size(output.tickets))
    }
    """,
)
book_trip.on_failure(
    Messages.send_text,
    """
    SendText{
      trip_id: input.trip_id,
      to: input.phone,
      text: "Your trip to " + input.destination + " could not be booked: " + error.message
    }
    """,
)


def weekend(trip_id: str) -> BookTrip:
    """Two people fly to Lisbon for three days: 510 euros, within the budget of 600."""
    trip = BookTrip(
        trip_id=trip_id,
        travellers=[Traveller(name="Ada Lovelace", age=36), Traveller(name="Charles Babbage", age=79)],
        origin="BER",
        destination="LIS",
        cabin=CABIN_ECONOMY,
        budget=Money(currency="EUR", cents=600_00),
        card="4242",
        email="ada@example.org",
        phone="+44 20 7946 0000",
    )
    trip.departs.FromDatetime(datetime(2030, 5, 3, 9, 30, tzinfo=UTC))
    trip.stay.FromTimedelta(timedelta(days=3))
    return trip


async def main() -> None:
    trip = weekend("42")
    async with SagaClient(os.environ.get("SAGA_ADDRESS", "127.0.0.1:7700")) as client:
        await client.register(book_trip)
        # The key makes it one trip however often this program is started.
        started = await client.start(book_trip, trip, key=trip.trip_id)
        try:
            booked = await started.result(TripBooked)
        except SagaNotCompleted as undone:
            print(f"no trip: {undone.reason} at step {undone.failed_step}; see `saga show {started.id}`")
        else:
            print(f"booked, for {booked.paid.cents / 100:.2f} {booked.paid.currency}, with {', '.join(booked.tickets)}")


if __name__ == "__main__":
    asyncio.run(main())
