"""Starts the coordinator and the shop, places four orders, pulls two plugs, and checks the books."""

import asyncio
import os
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from examples.demo.processes import ROOT, DemoError, Processes, Program, find_free_addresses
from examples.demo.run import name_of, run, say
from examples.shop.demo.books import read_books
from examples.shop.place_order import place_order
from participant_sdk import SagaClient, SagaHandle
from saga.v1 import saga_pb2
from shop.v1.shop_pb2 import PlaceOrder

SERVICES: Final = ("inventory", "payments", "shipping")
DELAY_MS: Final = 400
"""How long each service works on a step: long enough to be killed in the middle of it."""

SAGA_TIME_LIMIT: Final = timedelta(seconds=30)

COMPLETED: Final = saga_pb2.SAGA_STATUS_COMPLETED
COMPENSATED: Final = saga_pb2.SAGA_STATUS_COMPENSATED


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """Everything that runs."""

    processes: Processes
    client: SagaClient
    coordinator: str


async def run_demo(folder: Path) -> None:
    """The whole story. Raises DemoError if a saga or the books are not as promised."""
    begun = time.monotonic()
    async with Processes(folder) as processes:
        say(f"starting the coordinator and {len(SERVICES)} services, each with a database of its own")
        coordinator = await start_everything(processes, folder)
        async with SagaClient(coordinator) as client:
            await client.register(place_order)
            shop = Shop(processes=processes, client=client, coordinator=coordinator)
            sold, sagas = await place_orders(shop)
        for saga_id in sagas:
            await show(coordinator, saga_id)
    # Only when all of them are gone: what they committed is what counts.
    check_books(folder, sold)
    say(f"done in {time.monotonic() - begun:.0f} s")
    tell_about_jaeger()


async def start_everything(processes: Processes, folder: Path) -> str:
    coordinator, *others = find_free_addresses(1 + len(SERVICES))
    flags = ("--address", coordinator, "--database", str(folder / "saga.db"), "--log-format", "text")
    await processes.start(
        Program(
            name="coordinator",
            address=coordinator,
            arguments=("-m", "coordinator", "serve", *flags),
            environment={"OTEL_SERVICE_NAME": "saga-coordinator"},
        )
    )
    services = [
        Program(
            name=name,
            address=address,
            arguments=("-m", f"examples.shop.{name}"),
            environment={
                "OTEL_SERVICE_NAME": f"shop-{name}",
                "SAGA_ADDRESS": coordinator,
                "SHOP_ADDRESS": address,
                "SHOP_DATABASE": str(folder / f"{name}.db"),
                "SHOP_DELAY_MS": str(DELAY_MS),
            },
        )
        for name, address in zip(SERVICES, others, strict=True)
    ]
    async with asyncio.TaskGroup() as starting:
        for service in services:
            starting.create_task(processes.start(service))
    for service in services:
        await processes.wait_for_line(service.name, "registered")
    return coordinator


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """One order, and what happens meanwhile."""

    title: str
    order: PlaceOrder
    status: saga_pb2.SagaStatus.ValueType
    """How its saga must end."""
    fact: str
    """What its history must hold: proof that a plug was pulled in the middle, not before or after."""
    meanwhile: Callable[[Shop, str], Coroutine[None, None, None]] | None = None


def stories() -> list[Story]:
    return [
        Story(title="an order that goes through", order=order("1001", quantity=2), status=COMPLETED, fact="saga_completed"),
        Story(
            title="an order whose card is declined: the goods go back",
            order=order("1002", card="declined"),
            status=COMPENSATED,
            fact="step_compensated",
        ),
        Story(
            title="an order during which payments is killed with SIGKILL",
            order=order("1003"),
            status=COMPLETED,
            fact="attempt_failed",
            meanwhile=kill_payments,
        ),
        Story(
            title="an order during which the coordinator is killed with SIGKILL",
            order=order("1004", quantity=3),
            status=COMPLETED,
            fact="saga_recovered",
            meanwhile=kill_coordinator,
        ),
    ]


async def place_orders(shop: Shop) -> tuple[list[PlaceOrder], list[str]]:
    """Returns the orders that were sold, and the ids of all sagas."""
    sold: list[PlaceOrder] = []
    sagas: list[str] = []
    for number, story in enumerate(stories(), start=1):
        say(f"\n{number}. {story.title}")
        started = await shop.client.start(place_order, story.order, key=story.order.order_id)
        sagas.append(started.id)
        async with asyncio.TaskGroup() as together:
            watching = together.create_task(watch(started))
            if story.meanwhile is not None:
                together.create_task(story.meanwhile(shop, started.id))
        status, facts = watching.result()
        if status != story.status:
            raise DemoError(f"saga {started.id}: expected {name_of(story.status)}, found {name_of(status)}")
        if story.fact not in facts:
            raise DemoError(f"saga {started.id}: expected {story.fact} in its history, found {', '.join(facts)}")
        if status == COMPLETED:
            sold.append(story.order)
    return sold, sagas


async def watch(started: SagaHandle) -> tuple[saga_pb2.SagaStatus.ValueType, list[str]]:
    """Tells what happens as it happens, whoever is killed meanwhile; returns how the saga ended and all its facts."""
    status = saga_pb2.SAGA_STATUS_UNSPECIFIED
    facts: list[str] = []
    async for response in started.watch(timeout=SAGA_TIME_LIMIT):
        fact = response.event.WhichOneof("fact") or "something_new"
        attempt = getattr(getattr(response.event, fact, None), "attempt", None)
        say(f"     {fact.replace('_', ' ')}{': ' + attempt.step_id if attempt is not None else ''}")
        facts.append(fact)
        status = response.status
    return status, facts


async def kill_payments(shop: Shop, saga_id: str) -> None:
    # Its handler says when it has begun; it is then at work for DELAY_MS.
    await shop.processes.wait_for_line("payments", saga_id)
    payments = await shop.processes.kill("payments")
    say("  ⚡ payments is killed while it charges the card; it is started again")
    await shop.processes.start(payments)


async def kill_coordinator(shop: Shop, saga_id: str) -> None:
    await shop.processes.wait_for_line("payments", saga_id)
    coordinator = await shop.processes.kill("coordinator")
    say("  ⚡ the coordinator is killed while the card is charged; it is started again")
    await shop.processes.start(coordinator)


async def show(coordinator: str, saga_id: str) -> None:
    """`saga show ID`, as anybody would call it."""
    print(f"\n$ saga show {saga_id}", flush=True)
    arguments = ("-m", "coordinator", "show", saga_id, "--address", coordinator)
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, cwd=ROOT)
    try:
        code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()  # Interrupted: nothing of ours outlives us.
    if code != 0:
        raise DemoError(f"saga show {saga_id} failed")


def check_books(folder: Path, sold: list[PlaceOrder]) -> None:
    books = read_books(folder)
    print("\nthe books, read from the services' own databases")
    print(f"  inventory   {books.widgets_left:>6} widgets left     reserved by order  {books.reserved}")
    print(f"  payments    {books.cents_left:>6} cents left       paid by order      {books.paid}")
    print(f"  shipping    {len(books.shipped):>6} shipments        for orders         {sorted(books.shipped)}")
    if differences := books.differences(sold):
        raise DemoError("the books do not add up:\n  " + "\n  ".join(differences))
    print("stock, money and shipments add up")


def tell_about_jaeger() -> None:
    if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        print("the traces are in Jaeger: look for the trace ids above")
        return
    print("to see each saga as one trace, run Jaeger and say where it is:")
    print("  docker run --rm -p 16686:16686 -p 4317:4317 jaegertracing/jaeger")
    print("  OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4317 make demo        then open http://localhost:16686")


def order(order_id: str, *, quantity: int = 1, card: str = "4242") -> PlaceOrder:
    return PlaceOrder(order_id=order_id, sku="widget", quantity=quantity, amount_cents=quantity * 12_50, card=card, address="1 Main Street")


if __name__ == "__main__":
    sys.exit(run(run_demo, name="shop-demo"))
