"""The travel agency of the examples, over real sockets: every way that a trip can go, and the books at its end."""

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from examples.travel.approvals import ANSWER_TIME_LIMIT
from examples.travel.approve import Verdict, answer, consider
from examples.travel.book_trip import book_trip, weekend
from examples.travel.card_network import UNRELIABLE_CARD
from examples.travel.demo.books import TripBooks
from participant_sdk import InvalidRequest, SagaClient, new_saga_id, output_of
from participant_sdk.client import PointOfNoReturnPassed
from participant_sdk.rpc_errors import error_reason
from saga.v1 import operator_pb2, saga_pb2
from tests.integration.following import statuses, until
from tests.integration.travel_agency import TIME_LIMIT, Agency, open_agency
from tests.processes import ROOT
from tests.travel_mistakes import Mistake, problems_of, read_mistakes, seeded
from travel.v1.travel_pb2 import CABIN_BUSINESS, BookTrip, IssueTickets, QuestionRead, TripBooked

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOTHING = TripBooks()
WEEKEND = TripBooks(seats=2, rooms=1, paid_cents=510_00, tickets=("Ada Lovelace", "Charles Babbage"), itineraries=1)
CONFERENCE = TripBooks(seats=2, rooms=1, insured_people=1, paid_cents=3567_00, tickets=WEEKEND.tickets, itineraries=1)
A_MINUTE = timedelta(minutes=1)
OFTEN = timedelta(milliseconds=100)
"""Between two heartbeats."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def agency(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Agency]:
    """One for all trips that need nothing special; every trip has its own number."""
    async with open_agency(tmp_path_factory.mktemp("travel")) as agency:
        yield agency


def cheap() -> BookTrip:
    """Within the budget."""
    return weekend(new_saga_id())


def expensive() -> BookTrip:
    """2 x 1440.00 EUR for seats, 750.00 USD for a room, and 12.00 EUR to insure one of the two, for the other one is too old."""
    trip = cheap()
    trip.destination, trip.cabin, trip.insurance = "JFK", CABIN_BUSINESS, True
    return trip


# ── Registration ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


FIRST_OF_EACH = list({mistake.place: mistake for mistake in reversed(read_mistakes())}.values())


@pytest.mark.parametrize(
    "mistakes", [pytest.param(FIRST_OF_EACH, id="first"), pytest.param(read_mistakes(), id="all", marks=pytest.mark.full)]
)
async def test_mistake_in_an_expression_is_told_at_registration(agency: Agency, mistakes: list[Mistake]) -> None:
    """The coordinator says of each what the builder says without it."""
    for mistake in mistakes:
        definition = seeded(mistake)
        with pytest.raises(InvalidRequest) as refused:
            await agency.client.register_definition(definition, book_trip.descriptors())
        assert [(each.field, each.description) for each in refused.value.violations] == problems_of(definition)


# ── Forward ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_trip_within_the_budget_is_booked_and_nobody_is_asked(agency: Agency) -> None:  # R14, R16
    trip = cheap()
    handle = await agency.start(trip)
    saga = await agency.end(handle)
    assert saga.status == saga_pb2.SAGA_STATUS_COMPLETED
    assert {step for step, status in statuses(saga).items() if status == "SKIPPED"} == {"insure", "approve"}
    booked = output_of(saga, TripBooked)
    assert (len(booked.tickets), booked.paid.cents, booked.is_insured, booked.is_itinerary_sent) == (2, 510_00, False, True)
    assert booked.arrives.ToDatetime() - trip.departs.ToDatetime() == timedelta(hours=4)
    assert agency.books_of(trip) == WEEKEND
    assert agency.books_of(trip).texts == ("Your trip to LIS is booked, tickets: 2",)


async def test_steps_that_need_nothing_of_each_other_begin_at_once(agency: Agency) -> None:
    trip = expensive()
    handle = await agency.start(trip)
    started = await until(handle, "saga_started")
    assert [reached.step_id for reached in started.reached] == ["flight", "hotel", "insure"]
    await handle.cancel()
    await agency.end(handle)
    assert agency.books_of(trip) == NOTHING


async def test_approved_trip_is_booked_with_everything_that_was_wished_for(agency: Agency) -> None:  # R24
    trip = expensive()
    handle = await agency.start(trip)
    question = await agency.asked(handle, trip)
    assert question.text == "Ada Lovelace and 1 more to JFK for 3 days"
    assert question.total == "3567.00 EUR, 2967.00 over budget"
    wait = await explained(agency, handle.id, operator_pb2.WAIT_REASON_COMPLETION)
    assert wait.step_id == "approve"
    assert ANSWER_TIME_LIMIT - A_MINUTE < wait.until.ToDatetime(UTC) - datetime.now(UTC) <= ANSWER_TIME_LIMIT
    assert await agency.answer(question) == "thank you"
    saga = await agency.end(handle)
    booked = output_of(saga, TripBooked)
    assert (booked.paid.cents, booked.is_insured, booked.is_itinerary_sent) == (3567_00, True, True)
    assert agency.books_of(trip) == CONFERENCE


async def test_answer_lost_on_the_way_to_the_card_network_takes_the_money_once(agency: Agency) -> None:  # P2, P4, R19
    trip = cheap()
    trip.card = UNRELIABLE_CARD
    saga = await agency.end(await agency.start(trip))
    (charge,) = [step for step in saga.steps if step.id == "charge"]
    assert (saga.status, charge.execute_attempts) == (saga_pb2.SAGA_STATUS_COMPLETED, 2)
    assert agency.books_of(trip) == WEEKEND


async def test_itinerary_that_cannot_be_sent_stops_no_trip(agency: Agency) -> None:  # R9, R14
    trip = cheap()
    trip.email = "full@example.org"
    saga = await agency.end(await agency.start(trip))
    assert (saga.status, statuses(saga)["itinerary"]) == (saga_pb2.SAGA_STATUS_COMPLETED, "REJECTED")
    assert not output_of(saga, TripBooked).is_itinerary_sent
    assert (agency.books_of(trip).itineraries, agency.books_of(trip).tickets) == (0, WEEKEND.tickets)


async def explained(agency: Agency, saga_id: str, reason: operator_pb2.WaitReason.ValueType) -> operator_pb2.WaitExplanation:
    """Waits until the coordinator says that the saga waits for that, and returns what it says."""
    async with asyncio.timeout(TIME_LIMIT.total_seconds()):
        while True:
            for wait in (await agency.client.operator.explain(saga_id)).waits:
                if wait.reason == reason:
                    return wait


# ── Backward ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_denied_trip_is_undone_and_the_traveller_learns_why(agency: Agency) -> None:  # R5, R12
    trip = expensive()
    handle = await agency.start(trip)
    question = await agency.asked(handle, trip)
    assert await agency.answer(question, is_yes=False, manager="bob", why="too much") == "thank you"
    saga = await agency.end(handle)
    assert (saga.status, saga.failed_step_id) == (saga_pb2.SAGA_STATUS_COMPENSATED, "approve")
    assert error_reason(saga.error) == "DENIED"
    assert statuses(saga)["approve"] == "REJECTED", "the answer was stored with the question: there is nothing to withdraw"
    assert agency.books_of(trip) == NOTHING
    assert agency.books_of(trip).texts == ("Your trip to JFK could not be booked: bob said no: too much",)


async def test_declined_card_undoes_everything_before_the_pivot(agency: Agency) -> None:  # P3, R9, R12
    trip = expensive()
    trip.card = "empty"
    handle = await agency.start(trip)
    await agency.answer(await agency.asked(handle, trip))
    saga = await agency.end(handle)
    assert (saga.status, saga.failed_step_id) == (saga_pb2.SAGA_STATUS_COMPENSATED, "charge")
    undone = {step for step, status in statuses(saga).items() if status == "COMPENSATED"}
    assert undone == {"flight", "hotel", "insure", "approve"}
    assert agency.books_of(trip) == NOTHING
    assert agency.books_of(trip).texts == ("Your trip to JFK could not be booked: the bank declined the card empty",)


async def test_expression_that_fails_while_the_saga_runs_turns_it_back(agency: Agency) -> None:  # R11
    trip = cheap()
    del trip.travellers[:]
    trip.rooms.value, trip.budget.cents = 1, 0
    saga = await agency.end(await agency.start(trip))
    assert (saga.status, saga.cause) == (saga_pb2.SAGA_STATUS_COMPENSATED, saga_pb2.TURN_BACK_CAUSE_EXPRESSION_FAILED)
    assert saga.failed_step_id == "approve"
    assert "input.travellers[0].name" in saga.error.message
    assert agency.books_of(trip) == NOTHING


# ── Past the point of no return ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_broken_printer_delays_the_tickets_until_it_is_mended(agency: Agency) -> None:  # R11, R13
    trip = cheap()
    await agency.set_printer(works=False)
    try:
        handle = await agency.start(trip)
        await until(handle, "attempt_failed", step_id="tickets", count=2)
        wait = await explained(agency, handle.id, operator_pb2.WAIT_REASON_BACKOFF)
        assert (wait.step_id, wait.HasField("until")) == ("tickets", True)
        assert "the ticket printer does not answer" in wait.error.message
        with pytest.raises(PointOfNoReturnPassed):
            await handle.cancel()
    finally:
        await agency.set_printer(works=True)
    saga = await agency.end(handle)
    assert saga.status == saga_pb2.SAGA_STATUS_COMPLETED
    assert agency.books_of(trip) == WEEKEND


async def test_refused_ticket_asks_a_person_who_corrects_the_name(agency: Agency) -> None:  # R1, R11
    trip = cheap()
    trip.travellers[1].name = "C. Babbage"
    handle = await agency.start(trip)
    failed = await handle.wait(timeout=TIME_LIMIT)
    assert failed.status == saga_pb2.SAGA_STATUS_FAILED
    assert [(one.kind, one.step_id) for one in failed.incidents] == [(saga_pb2.INCIDENT_KIND_STEP_REJECTED, "tickets")]
    wait = await explained(agency, handle.id, operator_pb2.WAIT_REASON_INCIDENT)
    assert wait.step_id == "tickets"
    assert "'C. Babbage' is abbreviated" in wait.error.message
    said = await run(agency, "coordinator", "explain", handle.id, code=0)
    assert [line for line in documented_explanation() if line not in " ".join(said.replace(handle.id, "ID").split())] == []
    (step,) = [step for step in failed.steps if step.id == "tickets"]
    corrected = IssueTickets()
    assert step.input.Unpack(corrected)
    corrected.passengers[1] = "Charles Babbage"
    await agency.client.operator.retry_step(handle.id, "tickets", message=corrected, reason="as in the passport", actor="cleo")
    saga = await agency.end(handle)
    assert saga.status == saga_pb2.SAGA_STATUS_COMPLETED
    assert agency.books_of(trip) == WEEKEND


# ── The manager ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_two_managers_at_once_give_one_answer(agency: Agency) -> None:  # R24
    trip = expensive()
    handle = await agency.start(trip)
    question = await agency.asked(handle, trip)
    yes, no = await asyncio.gather(agency.answer(question), agency.answer(question, is_yes=False, manager="bob"))
    assert sorted([yes == "thank you", no == "thank you"]) == [False, True]
    saga = await agency.end(handle)
    is_booked = saga.status == saga_pb2.SAGA_STATUS_COMPLETED
    assert is_booked == (yes == "thank you")
    assert agency.books_of(trip) == (CONFERENCE if is_booked else NOTHING)


async def test_manager_is_told_when_the_trip_is_cancelled(agency: Agency) -> None:  # R24
    trip = expensive()
    handle = await agency.start(trip)
    question = await agency.asked(handle, trip)

    async def never() -> Verdict:
        await asyncio.Event().wait()
        raise AssertionError("nothing wakes it")

    thinking = asyncio.ensure_future(consider(agency.client, question, "ann", never, every=OFTEN))
    told = await until(handle, "step_heartbeat", step_id="approve")
    read = QuestionRead()
    assert told.step_heartbeat.progress.Unpack(read)
    assert read.manager == "ann"
    await handle.cancel(reason="ill", actor="ada")
    async with asyncio.timeout(TIME_LIMIT.total_seconds()):
        assert await thinking is None
    saga = await agency.end(handle)
    assert (saga.status, saga.cause) == (saga_pb2.SAGA_STATUS_COMPENSATED, saga_pb2.TURN_BACK_CAUSE_CANCELLED)
    assert await agency.questions(trip) == []
    assert await agency.answer(question) == "too late: nobody waits for the answer any more"
    assert agency.books_of(trip) == NOTHING


@pytest.mark.full
async def test_manager_answers_on_a_terminal(agency: Agency) -> None:
    trip = expensive()
    handle = await agency.start(trip)
    await agency.asked(handle, trip)
    asked = f"trip {trip.trip_id}: Ada Lovelace and 1 more to JFK for 3 days; 3567.00 EUR, 2967.00 over budget\nyes or no? "
    assert await approve(agency, trip.trip_id, typed="", code=1) == f"{asked}\nno answer was given; the question stays open\n"
    assert await approve(agency, trip.trip_id, typed="maybe\nyes\n", code=0) == f"{asked}yes or no? thank you\n"
    assert (await agency.end(handle)).status == saga_pb2.SAGA_STATUS_COMPLETED
    assert await approve(agency, trip.trip_id, "no", "--by", "bob", code=1) == "nothing is asked\n"


async def approve(agency: Agency, *arguments: str, typed: str = "", code: int) -> str:
    """What a manager sees at a terminal."""
    return await run(agency, "examples.travel.approve", *arguments, typed=typed, code=code)


async def run(agency: Agency, module: str, *arguments: str, typed: str = "", code: int) -> str:
    """What a program prints."""
    ended = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env=agency.environment(),
        input=typed,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == code, ended.stderr
    return ended.stdout


def documented_explanation() -> list[str]:
    """What docs/travel.md says is told of a refused ticket, line by line."""
    (block,) = re.findall(r"```text\n(.*?)```", (ROOT / "docs" / "travel.md").read_text(), re.DOTALL)
    return str(block).splitlines()


@pytest.mark.full
async def test_answer_given_while_the_coordinator_is_dead_counts_when_it_is_back(tmp_path: Path) -> None:  # R24, R29
    async with open_agency(tmp_path) as agency:
        trip = expensive()
        handle = await agency.start(trip)
        question = await agency.asked(handle, trip)
        agency.coordinator.kill()
        async with SagaClient(agency.coordinator.address, timeout=timedelta(milliseconds=100)) as hasty:
            told = await answer(agency.approvals, hasty, question, Verdict(manager="ann", is_yes=True))
        assert told.startswith("stored, but the coordinator cannot be reached")
        await agency.coordinator.start()
        assert statuses(await handle.get())["approve"] == "ACCEPTED"
        assert await agency.answer(question) == "it was approved by ann before; that counts, and has been passed on again"
        saga = await agency.end(handle)
        assert saga.status == saga_pb2.SAGA_STATUS_COMPLETED
        assert agency.books_of(trip) == CONFERENCE


@pytest.mark.full
async def test_answer_after_its_time_is_refused_and_reading_it_makes_it_longer(tmp_path: Path) -> None:  # R24
    async with open_agency(tmp_path, answer_time_limit=timedelta(seconds=1)) as agency:
        late, read = expensive(), expensive()
        handle_of_late, handle_of_read = await agency.start(late), await agency.start(read)
        question_of_late, question_of_read = await agency.asked(handle_of_late, late), await agency.asked(handle_of_read, read)
        over = asyncio.Event()

        async def decide() -> Verdict:
            await over.wait()
            return Verdict(manager="ann", is_yes=True)

        thinking = asyncio.ensure_future(consider(agency.client, question_of_read, "ann", decide, every=OFTEN))
        saga = await agency.end(handle_of_late)
        over.set()
        assert (saga.status, saga.cause) == (saga_pb2.SAGA_STATUS_COMPENSATED, saga_pb2.TURN_BACK_CAUSE_STEP_UNKNOWN)
        assert saga.failed_step_id == "approve"
        assert await agency.answer(question_of_late) == "too late: nobody waits for the answer any more"
        verdict = await thinking
        assert verdict is not None
        assert await answer(agency.approvals, agency.client, question_of_read, verdict) == "thank you"
        assert (await agency.end(handle_of_read)).status == saga_pb2.SAGA_STATUS_COMPLETED
        assert agency.books_of(read) == CONFERENCE
        assert agency.books_of(late) == NOTHING
