"""The books: read from the services' own database files, past every API, and added up."""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

SEATS_AT_FIRST: Final = 40
ROOMS_AT_FIRST: Final = 20
CENTS_AT_FIRST: Final = 200_000_00


@dataclass(frozen=True, slots=True, kw_only=True)
class TripBooks:
    """What the services hold for one trip. By default: nothing, as for a trip that was undone."""

    seats: int = 0
    rooms: int = 0
    insured_people: int = 0
    paid_cents: int = 0
    tickets: Sequence[str] = ()
    """Names of the passengers."""
    itineraries: int = 0
    texts: Sequence[str] = field(default=(), compare=False)
    """What the traveller was told; no effect of the trip itself, so it is compared by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """What the databases say."""

    trips: Mapping[str, TripBooks]
    """By trip. A trip of which nobody holds anything is missing."""
    seats_left: int
    rooms_left: int
    card_cents_left: int
    """At the card network, on all cards."""
    card_cents_taken: int
    """The same, from its payments."""

    def of(self, trip_id: str) -> TripBooks:
        """What is held for a trip."""
        return self.trips.get(trip_id, TripBooks())

    def differences(self) -> list[str]:
        """What does not add up: something that was taken and belongs to no trip, or the reverse. Nothing if all is well."""
        held = self.trips.values()
        sums = {
            "seats": (SEATS_AT_FIRST, self.seats_left + sum(trip.seats for trip in held)),
            "rooms": (ROOMS_AT_FIRST, self.rooms_left + sum(trip.rooms for trip in held)),
            "money on cards": (CENTS_AT_FIRST, self.card_cents_left + self.card_cents_taken),
            "money in the accounts": (self.card_cents_taken, sum(trip.paid_cents for trip in held)),
        }
        unpaid = [name for name, trip in self.trips.items() if (trip.paid_cents == 0) != (trip.seats == 0)]
        return [
            *(f"{name}: expected {wanted}, found {found}" for name, (wanted, found) in sums.items() if wanted != found),
            *(f"trip {name}: seats and money go together, found {self.trips[name]}" for name in unpaid),
        ]


def read_books(folder: Path) -> Books:
    """Reads the database files of all services. Sums, so that doing something twice would show."""
    flights, hotels, insurance, messages, cards, payments = (
        folder / f"{name}.db" for name in ("flights", "hotels", "insurance", "messages", "cards", "payments")
    )
    seats = _by_trip(flights, "SELECT trip_id, seats FROM seat_reservation WHERE NOT is_released")
    rooms = _by_trip(hotels, "SELECT trip_id, rooms FROM room_reservation WHERE NOT is_cancelled")
    people = _by_trip(insurance, "SELECT trip_id, people FROM policy WHERE NOT is_cancelled")
    paid = _by_trip(payments, "SELECT trip_id, cents FROM account_entry")
    tickets = _by_trip(flights, "SELECT trip_id, passenger FROM ticket JOIN seat_reservation AS held ON held.id = reservation_id")
    itineraries = _by_trip(messages, "SELECT trip_id, 1 FROM message WHERE kind = 'itinerary'")
    texts = _by_trip(messages, "SELECT trip_id, text FROM message WHERE kind = 'text'")
    trips = {
        trip: TripBooks(
            seats=_sum(seats.get(trip, ())),
            rooms=_sum(rooms.get(trip, ())),
            insured_people=_sum(people.get(trip, ())),
            paid_cents=_sum(paid.get(trip, ())),
            tickets=tuple(str(name) for name in tickets.get(trip, ())),
            itineraries=_sum(itineraries.get(trip, ())),
            texts=tuple(str(text) for text in texts.get(trip, ())),
        )
        for trip in {*seats, *rooms, *people, *paid, *tickets, *itineraries, *texts}
    }
    return Books(
        trips=trips,
        seats_left=_number(flights, "SELECT sum(seats_left) FROM flight"),
        rooms_left=_number(hotels, "SELECT sum(rooms_left) FROM hotel"),
        card_cents_left=_number(cards, "SELECT sum(cents) FROM card"),
        card_cents_taken=_number(cards, "SELECT coalesce(sum(cents), 0) FROM card_payment"),
    )


def _sum(numbers: Iterable[str | int]) -> int:
    return sum(int(number) for number in numbers)


def _number(database: Path, query: str) -> int:
    ((number,),) = _rows(database, query)
    return int(number)


def _by_trip(database: Path, query: str) -> dict[str, list[str | int]]:
    found: dict[str, list[str | int]] = {}
    for trip, value in _rows(database, query):
        found.setdefault(str(trip), []).append(value)
    return found


def _rows(database: Path, query: str) -> list[tuple[str | int, ...]]:
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=5)
    try:
        return list(connection.execute(query))
    finally:
        connection.close()
