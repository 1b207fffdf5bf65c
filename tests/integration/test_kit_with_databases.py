"""The kit with participants that have a database: while its threads work, virtual time stands still."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from sqlalchemy import create_engine, select
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session

from examples.shop.inventory import SEED, Base, Inventory, Reservation, Stock
from examples.shop.place_order import place_order
from participant_sdk import Participant, Saga, SqlBarrier
from participant_sdk.testing import Mishap, SagaKit, given, stubs_of
from shop.v1.shop_pb2 import PlaceOrder
from tests.integration.participant.test_long_steps import documented

ORDER = PlaceOrder(order_id="42", sku="widget", quantity=1, amount_cents=19_99, card="4242", address="1 Main Street")


@pytest.fixture
def books(tmp_path: Path) -> Path:
    return tmp_path / "inventory.db"


def inventory(file: Path) -> Callable[[], AbstractAsyncContextManager[Inventory]]:
    """Makes it anew for each world."""

    @asynccontextmanager
    async def make() -> AsyncIterator[Inventory]:
        engine = create_async_engine(f"sqlite+aiosqlite:///{file}")
        barrier = SqlBarrier(engine)
        await barrier.create_table()
        async with engine.begin() as database:
            await database.run_sync(Base.metadata.create_all)
            for statement in SEED:
                await database.execute(statement)
        yield Inventory(barrier=barrier)
        await engine.dispose()

    return make


async def test_effects_are_in_the_database_of_the_participant(saga_kit: SagaKit, books: Path) -> None:  # R18
    saga_kit.serve(inventory(books), *stubs_of(place_order)).mishap("reserve", Mishap.REPLY_LOST_UNNOTICED)
    run = await saga_kit.run(place_order, ORDER)
    run.then_completed().then_attempts("reserve", 2)
    engine = create_async_engine(f"sqlite+aiosqlite:///{books}")
    async with engine.connect() as database:
        assert (await database.execute(select(Stock.available))).scalar_one() == 9
        assert len((await database.execute(select(Reservation))).all()) == 1
    await engine.dispose()


@pytest.mark.parametrize("mishap", [Mishap.REQUEST_TWICE, Mishap.PARTICIPANT_DIES, Mishap.DIES_AFTER, Mishap.REQUEST_LATE])
def test_database_is_waited_for_and_not_jumped_over(books: Path, mishap: Mishap) -> None:
    run = given(place_order, inventory(books), *stubs_of(place_order)).mishap("reserve", mishap).refusal("book").when(ORDER)
    run.then_compensated(because="REFUSED", at="book")
    assert "Deadline Exceeded" not in run.story()


async def test_plain_handlers_run_in_threads_while_virtual_time_stands_still(saga_kit: SagaKit, tmp_path: Path) -> None:  # R18
    recipe = documented("stock")
    reserving = Saga("reserving", input=StringValue)
    reserving.step(recipe.Inventory.reserve, reserving.input)
    engine = create_engine(f"sqlite:///{tmp_path / 'inventory.db'}")
    recipe.Base.metadata.create_all(engine)
    with Session(engine) as session, session.begin():
        session.add(recipe.Stock(sku="widget", available=10))

    @asynccontextmanager
    async def make() -> AsyncIterator[Participant]:
        served = recipe.inventory(engine)
        await served.barrier.create_table()
        yield served

    saga_kit.serve(make).mishap("reserve", Mishap.REPLY_LOST_UNNOTICED)
    run = await saga_kit.run(reserving, StringValue(value="widget"))
    run.then_completed().then_attempts("reserve", 2)
    with Session(engine) as session:
        assert session.scalar(select(recipe.Stock.available)) == 9
    engine.dispose()
