"""The kit with participants that have a database: while its threads work, virtual time stands still."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import create_async_engine

from examples.shop.inventory import SEED, Base, Inventory, Reservation, Stock
from examples.shop.place_order import place_order
from participant_sdk import SqlBarrier
from participant_sdk.testing import Mishap, SagaKit, given, stubs_of
from shop.v1.shop_pb2 import PlaceOrder

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
