"""The SQL barrier on PostgreSQL, by both kinds of engine: shared database transactions among errors that poison a whole one, and rows that
several processes want (R18, R22).
"""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from sqlalchemy import URL, Engine, create_engine, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from participant_sdk import SqlBarrier
from participant_sdk.barrier.outcomes import ExecuteOutcome, HandlerSucceeded
from participant_sdk.step_context import SessionSource
from saga.v1 import participant_pb2
from tests.contract.barrier.calls import ManualClock, execute_call, reply
from tests.property.test_shared_transactions import ENDINGS, KEYS, TAKEN, Books, Deed, write

ROUNDS = 6


@pytest.fixture(params=["async", "blocking"])
def driver(request: pytest.FixtureRequest) -> str:
    return "postgresql+asyncpg" if request.param == "async" else "postgresql+psycopg"


@asynccontextmanager
async def made_database(server: URL) -> AsyncIterator[URL]:
    """A new database with a book in it."""
    name = f"books_{uuid.uuid4().hex}"
    root = create_engine(server.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    with root.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    root.dispose()
    url = server.set(database=name)
    engine = create_engine(url.set(drivername="postgresql+psycopg"))
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE book (line text UNIQUE)"))
        connection.execute(text("INSERT INTO book VALUES (:line)"), {"line": TAKEN})
    engine.dispose()
    yield url


@asynccontextmanager
async def opened(url: URL, driver: str) -> AsyncIterator[AsyncEngine | Engine]:
    waiting, blocking = (
        create_async_engine(url.set(drivername="postgresql+asyncpg")),
        create_engine(url.set(drivername="postgresql+psycopg")),
    )
    yield waiting if driver.endswith("asyncpg") else blocking
    await waiting.dispose()
    blocking.dispose()


def content(url: URL) -> Sequence[Sequence[object]]:
    """The lines of the book, and the rows of the barrier."""
    engine = create_engine(url.set(drivername="postgresql+psycopg"))
    with engine.connect() as connection:
        found = [
            [tuple(row) for row in connection.execute(text(f"SELECT * FROM {table} ORDER BY 1"))] for table in ("book", "saga_barrier")
        ]
    engine.dispose()
    return found


def a_round(chance: random.Random) -> list[Deed]:
    return [
        Deed(key, is_undo=chance.random() < 0.3, ending=chance.choice(ENDINGS), value=chance.choice([b"input", b"input", b"other"]))
        for key in chance.sample(range(KEYS), KEYS)
    ]


@pytest.mark.parametrize("seed", range(4))
async def test_calls_that_share_a_commit_come_to_the_same_as_one_at_a_time(postgres: tuple[URL, str], driver: str, seed: int) -> None:
    chance = random.Random(seed)
    async with (
        made_database(postgres[0]) as together,
        made_database(postgres[0]) as alone,
        opened(together, driver) as shared_engine,
        opened(alone, driver) as own_engine,
    ):
        shared, own = Books(shared_engine, 64), Books(own_engine, 1)
        await shared.barrier.create_table()
        await own.barrier.create_table()
        await asyncio.gather(shared.barrier.check(), own.barrier.check())
        for _ in range(ROUNDS):
            deeds = a_round(chance)
            expected = [await own.insist(deed) for deed in deeds]
            assert await asyncio.gather(*map(shared.insist, deeds)) == expected
        assert content(together) == content(alone)


async def test_processes_that_want_the_same_rows_let_each_take_effect_once(postgres: tuple[URL, str], driver: str) -> None:
    async with made_database(postgres[0]) as url, opened(url, driver) as one, opened(url, driver) as other:
        clock = ManualClock()
        barriers = [SqlBarrier(engine, clock=clock, calls_per_commit=16) for engine in (one, other)]
        await barriers[0].create_table()
        keys = [f"key {number}" for number in range(40)]

        async def run(sessions: SessionSource, key: str) -> ExecuteOutcome:
            await write(sessions, key)  # a second one of that key would be refused
            return HandlerSucceeded(response=reply(key))

        async def insist(barrier: SqlBarrier, key: str) -> object:
            while True:
                answer = await barrier.execute(replace(execute_call(clock), key=key), lambda sessions: run(sessions, key))
                if not (isinstance(answer, participant_pb2.ExecuteResponse) and answer.HasField("retry_later")):
                    return answer

        # In opposite orders, so that they meet in the middle.
        orders = [(barriers[0], keys), (barriers[1], keys[::-1])]
        answers = await asyncio.gather(*(insist(barrier, key) for barrier, order in orders for key in order))
        assert answers == [reply(key) for key in [*keys, *keys[::-1]]]
        assert content(url)[0] == sorted([(TAKEN,), *((key,) for key in keys)])


async def test_row_that_another_process_holds_is_waited_for_less_than_the_time_of_the_call(postgres: tuple[URL, str], driver: str) -> None:
    async with made_database(postgres[0]) as url, opened(url, driver) as engine, opened(url, "postgresql+psycopg") as holder:
        clock = ManualClock()
        barrier = SqlBarrier(engine, clock=clock)
        await barrier.create_table()
        call = execute_call(clock, time_left_s=0.4)
        await barrier.check()

        async def run(sessions: SessionSource) -> ExecuteOutcome:
            await write(sessions, "once")
            return HandlerSucceeded(response=reply("done"))

        assert await barrier.execute(call, run) == reply("done")
        assert isinstance(holder, Engine)
        with holder.begin() as connection:
            connection.execute(text("SELECT * FROM saga_barrier FOR UPDATE"))
            answer = await barrier.execute(call, run)
        assert isinstance(answer, participant_pb2.ExecuteResponse)
        assert answer.HasField("retry_later")
        assert await barrier.execute(call, run) == reply("done")
