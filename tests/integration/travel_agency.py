"""The travel agency of the examples with a coordinator in a process of its own, for tests."""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from sqlalchemy import update
from sqlalchemy.ext.asyncio import create_async_engine

from examples.travel.approvals import ANSWER_TIME_LIMIT, Approvals, Question
from examples.travel.approve import Verdict, answer, open_questions
from examples.travel.book_trip import book_trip
from examples.travel.database import open_database
from examples.travel.demo.books import Books, TripBooks, read_books
from examples.travel.flights import Printer
from examples.travel.services import open_services
from participant_sdk import Participant, ParticipantServer, SagaClient, SagaHandle
from saga.v1 import saga_pb2
from tests.integration.following import until
from tests.processes import ROOT, CoordinatorProcess, python_environment
from travel.v1.travel_pb2 import BookTrip

TIME_LIMIT = timedelta(seconds=30)
"""Of whatever a test waits for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agency:
    """The services, the coordinator, and what a test asks of them."""

    folder: Path
    coordinator: CoordinatorProcess
    client: SagaClient
    participants: Mapping[str, Participant]

    @property
    def approvals(self) -> Approvals:
        found = self.participants["approvals"]
        assert isinstance(found, Approvals)
        return found

    async def start(self, trip: BookTrip) -> SagaHandle:
        return await self.client.start(book_trip, trip, key=trip.trip_id)

    async def end(self, handle: SagaHandle) -> saga_pb2.Saga:
        """Waits for the end of a saga and of its hook."""
        async with aclosing(handle.watch(timeout=TIME_LIMIT)) as events:
            async for _ in events:
                pass
        return await handle.get()

    async def asked(self, handle: SagaHandle, trip: BookTrip) -> Question:
        """Waits until the manager is asked; the question."""
        await until(handle, "step_accepted")
        return await self.question(trip)

    async def question(self, trip: BookTrip) -> Question:
        """The only question that waits for an answer for a trip."""
        (question,) = await self.questions(trip)
        return question

    async def questions(self, trip: BookTrip) -> list[Question]:
        engine = open_database(self.folder / "approvals.db")
        try:
            return list(await open_questions(engine, trip.trip_id))
        finally:
            await engine.dispose()

    async def answer(self, question: Question, *, is_yes: bool = True, manager: str = "ann", why: str = "") -> str:
        return await answer(self.approvals, self.client, question, Verdict(manager=manager, is_yes=is_yes, why=why))

    async def set_printer(self, *, works: bool) -> None:
        """Breaks or mends what makes the tickets."""
        engine = create_async_engine(f"sqlite+aiosqlite:///{self.folder / 'flights.db'}")
        async with engine.begin() as connection:
            await connection.execute(update(Printer).values(works=works))
        await engine.dispose()

    def books(self) -> Books:
        """The books of all services; they add up."""
        books = read_books(self.folder)
        assert books.differences() == []
        return books

    def books_of(self, trip: BookTrip) -> TripBooks:
        return self.books().of(trip.trip_id)

    def environment(self) -> dict[str, str]:
        """What the programs of the example need as processes of their own."""
        return {**travel_environment(), "TRAVEL_FOLDER": str(self.folder), "SAGA_ADDRESS": self.coordinator.address}


def travel_environment() -> dict[str, str]:
    """What a child needs to import the example."""
    path = os.pathsep.join([python_environment()["PYTHONPATH"], str(ROOT / "examples" / "travel" / "protos")])
    return python_environment({"PYTHONPATH": path})


@asynccontextmanager
async def open_agency(folder: Path, *, answer_time_limit: timedelta = ANSWER_TIME_LIMIT) -> AsyncIterator[Agency]:
    """Everything running and registered. `answer_time_limit`: how long a manager may think."""
    with CoordinatorProcess(folder) as coordinator:
        await coordinator.start()
        async with (
            open_services(folder, answer_time_limit=answer_time_limit) as participants,
            ParticipantServer(*participants, coordinator=coordinator.address, ttl=timedelta(seconds=3)) as server,
            SagaClient(coordinator.address) as client,
        ):
            await server.wait_registered(TIME_LIMIT)
            await client.register(book_trip)
            named = {participant.participant_name: participant for participant in participants}
            yield Agency(folder=folder, coordinator=coordinator, client=client, participants=named)
