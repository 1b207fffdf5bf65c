"""Starts the coordinator and the agency, books six trips, and checks the books: `python -m examples.travel`."""

import asyncio
import shlex
import sys
import time
from pathlib import Path

from examples.demo.processes import ROOT, DemoError, Processes, Program, find_free_addresses
from examples.demo.run import name_of, run, say
from examples.travel.book_trip import book_trip
from examples.travel.demo.books import read_books
from examples.travel.demo.stories import TIME_LIMIT, Agency, Story, set_printer, stories
from examples.travel.demo.telling import tell
from participant_sdk import SagaClient, SagaHandle
from saga.v1 import saga_pb2

PRINTER_BREAKS_AT = "5"
"""The trip before which the ticket printer breaks."""


async def run_demo(folder: Path) -> None:
    """The whole story. Raises DemoError if a saga or the books are not as promised."""
    begun = time.monotonic()
    async with Processes(folder) as processes:
        say("starting the coordinator and six services, each with a database of its own")
        coordinator = await start_everything(processes, folder)

        async def command(*arguments: str) -> None:
            await run_command(coordinator, *arguments)

        async with SagaClient(coordinator) as client:
            await client.register(book_trip)
            agency = Agency(folder=folder, client=client, command=command, say=say)
            for story in stories():
                await tell_story(agency, story)
    # Only when all of them are gone: what they committed is what counts.
    check_books(folder)
    say(f"done in {time.monotonic() - begun:.0f} s; the definition is explained in docs/travel.md")


async def start_everything(processes: Processes, folder: Path) -> str:
    """Returns where the coordinator is."""
    coordinator, services = find_free_addresses(2)
    flags = ("--address", coordinator, "--database", str(folder / "saga.db"), "--log-format", "text")
    environment = {"SAGA_ADDRESS": coordinator, "TRAVEL_ADDRESS": services, "TRAVEL_FOLDER": str(folder)}
    arguments = ("-m", "examples.travel.services")
    async with asyncio.TaskGroup() as starting:
        starting.create_task(
            processes.start(
                Program(name="coordinator", address=coordinator, arguments=("-m", "coordinator", "serve", *flags), environment={})
            )
        )
        starting.create_task(processes.start(Program(name="services", address=services, arguments=arguments, environment=environment)))
    await processes.wait_for_line("services", "registered")
    return coordinator


async def tell_story(agency: Agency, story: Story) -> None:
    """Books the trip, and tells what happens while it happens. Raises DemoError if it does not end as it must."""
    trip = story.trip
    say(f"\n{trip.trip_id}. {story.title}")
    if trip.trip_id == PRINTER_BREAKS_AT:
        await set_printer(agency.folder, works=False)
    started = await agency.client.start(book_trip, trip, key=trip.trip_id)
    async with asyncio.TaskGroup() as together:
        watching = together.create_task(watch(started))
        together.create_task(story.meanwhile(agency, started, trip))
    status = watching.result()
    held = read_books(agency.folder).of(trip.trip_id)
    say(f"     {trip.phone} is told: {' '.join(held.texts)}")
    if status != story.status:
        raise DemoError(f"trip {trip.trip_id}: expected {name_of(story.status)}, found {name_of(status)}")
    if held != story.held:
        raise DemoError(f"trip {trip.trip_id}: expected {story.held} in the books, found {held}")


async def watch(started: SagaHandle) -> saga_pb2.SagaStatus.ValueType:
    """Tells every event until the saga and its hook have ended; returns how."""
    status = saga_pb2.SAGA_STATUS_UNSPECIFIED
    async for response in started.watch(timeout=TIME_LIMIT):
        say(f"     {tell(response.event)}")
        status = response.status
    return status


async def run_command(coordinator: str, *arguments: str) -> None:
    """`saga …`, as anybody would call it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "coordinator", *arguments, "--address", coordinator),
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        printed, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()  # Interrupted: nothing of ours outlives us.
    if process.returncode != 0:
        raise DemoError(f"saga {arguments[0]} failed")
    # At once, so that what the saga tells meanwhile does not come in between.
    say(f"\n$ saga {shlex.join(arguments)}\n{printed.decode().rstrip()}\n")


def check_books(folder: Path) -> None:
    books = read_books(folder)
    print("\nthe books, read from the services' own databases")
    for trip_id, held in sorted(books.trips.items()):
        things = f"{held.seats} seats, {held.rooms} rooms, {held.insured_people} insured, {len(held.tickets)} tickets"
        print(f"  trip {trip_id}: {things}, {held.paid_cents / 100:8.2f} EUR paid")
    print(f"  left: {books.seats_left} seats, {books.rooms_left} rooms; taken from cards: {books.card_cents_taken / 100:.2f} EUR")
    if differences := books.differences():
        raise DemoError("the books do not add up:\n  " + "\n  ".join(differences))
    print("seats, rooms and money add up")


if __name__ == "__main__":
    sys.exit(run(run_demo, name="travel-demo"))
