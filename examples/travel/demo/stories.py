"""Six trips: what somebody wants, what happens meanwhile, and how it must end."""

from collections.abc import Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final

from google.protobuf import json_format
from sqlalchemy import update

from examples.demo.processes import DemoError
from examples.travel.approvals import Approvals
from examples.travel.approve import Verdict, answer, consider, open_questions
from examples.travel.book_trip import weekend
from examples.travel.database import open_database
from examples.travel.demo.books import TripBooks
from examples.travel.flights import Printer
from participant_sdk import SagaClient, SagaHandle, SqlBarrier
from saga.v1 import saga_pb2
from travel.v1.travel_pb2 import CABIN_BUSINESS, BookTrip, IssueTickets

COMPLETED: Final = saga_pb2.SAGA_STATUS_COMPLETED
COMPENSATED: Final = saga_pb2.SAGA_STATUS_COMPENSATED
NOTHING: Final = TripBooks()
TIME_LIMIT: Final = timedelta(seconds=30)
"""Of whatever is waited for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agency:
    """What people reach of it while sagas run."""

    folder: Path
    """Where the databases are."""
    client: SagaClient
    command: Callable[..., Coroutine[None, None, None]]
    """Runs `saga …` and shows what it prints."""
    say: Callable[[str], None]


Meanwhile = Callable[[Agency, SagaHandle, BookTrip], Coroutine[None, None, None]]


async def nothing(agency: Agency, saga: SagaHandle, trip: BookTrip) -> None:
    """Nobody has to do anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """One trip."""

    title: str
    trip: BookTrip
    status: saga_pb2.SagaStatus.ValueType
    """How its saga must end."""
    held: TripBooks
    """What the services must hold for it then."""
    meanwhile: Meanwhile = field(default=nothing)


def stories() -> Sequence[Story]:
    """In the order in which they are told."""
    return [
        Story(title="a weekend within the budget: nobody is asked", trip=weekend("1"), status=COMPLETED, held=_weekend_books("1")),
        Story(
            title="a conference far above the budget: the manager is asked, thinks, and says yes",
            trip=_conference("2"),
            status=COMPLETED,
            held=TripBooks(seats=2, rooms=1, insured_people=1, paid_cents=3567_00, tickets=_names(_conference("2")), itineraries=1),
            meanwhile=say_yes,
        ),
        Story(
            title="another one: the manager says no, and everything goes back",
            trip=_conference("3"),
            status=COMPENSATED,
            held=NOTHING,
            meanwhile=say_no,
        ),
        Story(title="a weekend on an empty card: everything goes back", trip=_with_card("4", "empty"), status=COMPENSATED, held=NOTHING),
        Story(
            title="a weekend while the ticket printer is broken: it is paid, so it only goes forward",
            trip=weekend("5"),
            status=COMPLETED,
            held=_weekend_books("5"),
            meanwhile=mend_printer,
        ),
        Story(
            title="a weekend with a name that no ticket can bear: a person is asked",
            trip=_with_name("6", "C. Babbage"),
            status=COMPLETED,
            held=_weekend_books("6"),
            meanwhile=correct_name,
        ),
    ]


# ── What happens meanwhile ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def say_yes(agency: Agency, saga: SagaHandle, trip: BookTrip) -> None:
    await _answer(agency, saga, trip, Verdict(manager="ann", is_yes=True))


async def say_no(agency: Agency, saga: SagaHandle, trip: BookTrip) -> None:
    await _answer(agency, saga, trip, Verdict(manager="ann", is_yes=False, why="a train goes there too"))


async def mend_printer(agency: Agency, saga: SagaHandle, trip: BookTrip) -> None:
    await _until(saga, "attempt_failed", count=2)
    await agency.command("explain", saga.id)
    await set_printer(agency.folder, works=True)
    agency.say("  ⚒ the printer is mended; the next attempt finds it so")


async def correct_name(agency: Agency, saga: SagaHandle, trip: BookTrip) -> None:
    await _until(saga, "incident_opened")
    await agency.command("explain", saga.id)
    (step,) = [step for step in (await saga.get()).steps if step.id == "tickets"]
    corrected = IssueTickets()
    step.input.Unpack(corrected)
    corrected.passengers[1] = "Charles Babbage"
    message = json_format.MessageToJson(corrected, preserving_proto_field_name=True, indent=None)
    await agency.command("retry", saga.id, "tickets", "--input", message, "--reason", "the name in the passport", "--actor", "cleo")


async def set_printer(folder: Path, *, works: bool) -> None:
    """Breaks or mends what makes the tickets."""
    engine = open_database(folder / "flights.db")
    try:
        async with engine.begin() as connection:
            await connection.execute(update(Printer).values(works=works))
    finally:
        await engine.dispose()


async def _answer(agency: Agency, saga: SagaHandle, trip: BookTrip, verdict: Verdict) -> None:
    """What approve.py does at a terminal."""
    await _until(saga, "step_accepted")
    engine = open_database(agency.folder / "approvals.db")
    try:
        (question,) = await open_questions(engine, trip.trip_id)
        agency.say(f"  ✎ {verdict.manager} reads: {question.text}; {question.total}")

        async def decide() -> Verdict:
            # The saga knows that somebody reads it: that is what thinking takes here.
            await _until(saga, "step_heartbeat")
            return verdict

        said = await consider(agency.client, question, verdict.manager, decide)
        if said is None:
            raise DemoError(f"trip {trip.trip_id}: expected that an answer is wanted, found that it is not")
        told = await answer(Approvals(barrier=SqlBarrier(engine)), agency.client, question, said)
        agency.say(f"  ✎ {verdict.manager} says {'yes' if said.is_yes else 'no'}, and is told: {told}")
    finally:
        await engine.dispose()


async def _until(saga: SagaHandle, fact: str, *, count: int = 1) -> None:
    """Waits until that has happened so often."""
    found = 0
    async with aclosing(saga.watch(timeout=TIME_LIMIT)) as events:
        async for response in events:
            found += response.event.WhichOneof("fact") == fact
            if found == count:
                return
    raise DemoError(f"saga {saga.id}: expected {fact} {count} times, found it {found} times")


# ── Trips ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _conference(trip_id: str) -> BookTrip:
    """Two people fly to New York in the front, one of them insured: 3567 euros."""
    trip = weekend(trip_id)
    trip.destination, trip.cabin, trip.insurance = "JFK", CABIN_BUSINESS, True
    return trip


def _with_card(trip_id: str, card: str) -> BookTrip:
    trip = weekend(trip_id)
    trip.card = card
    return trip


def _with_name(trip_id: str, name: str) -> BookTrip:
    trip = weekend(trip_id)
    trip.travellers[1].name = name
    return trip


def _weekend_books(trip_id: str) -> TripBooks:
    return TripBooks(seats=2, rooms=1, paid_cents=510_00, tickets=_names(weekend(trip_id)), itineraries=1)


def _names(trip: BookTrip) -> Sequence[str]:
    return tuple(traveller.name for traveller in trip.travellers)
