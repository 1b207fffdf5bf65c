"""The SQL barrier on servers, by both kinds of engine: shared database transactions among errors that poison a whole one, and rows that
several processes want (R18, R22).
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace

import pytest
from sqlalchemy import URL, Column, Engine, MetaData, String, Table, insert, text
from sqlalchemy.ext.asyncio import AsyncEngine

from participant_sdk import SqlBarrier
from participant_sdk.barrier.outcomes import ExecuteOutcome, HandlerSucceeded
from participant_sdk.step_context import SessionSource
from saga.v1 import participant_pb2
from tests.barrier_databases import Place, made_database, mariadb_place, postgres_place
from tests.contract.barrier.calls import ManualClock, execute_call, reply
from tests.property.test_shared_transactions import ENDINGS, KEYS, TAKEN, Books, Deed, write

pytestmark = pytest.mark.full

ROUNDS = 6


@pytest.fixture(params=["postgres-async", "postgres-blocking", "mariadb-async", "mariadb-blocking"])
def stand(request: pytest.FixtureRequest) -> "Stand":
    name, _, kind = request.param.partition("-")
    if name == "postgres":
        server, as_place = request.getfixturevalue("postgres")[0].set(drivername="postgresql+psycopg"), postgres_place
    else:
        server, as_place = request.getfixturevalue("mariadb").set(drivername="mariadb+pymysql"), mariadb_place
    return Stand(server, as_place, is_blocking=kind == "blocking")


@dataclass(frozen=True)
class Stand:
    """A server, and how participants reach it."""

    server: URL
    as_place: Callable[[URL], Place]
    is_blocking: bool

    def made(self) -> Place:
        """A new database with a book in it."""
        place = self.as_place(made_database(self.server))
        with engine_of(place) as engine, engine.begin() as connection:
            BOOKS.create_all(connection)
            connection.execute(insert(BOOK).values(line=TAKEN))
        return place

    @asynccontextmanager
    async def opened(self, place: Place) -> AsyncIterator[AsyncEngine | Engine]:
        waiting, blocking = place.engine(), place.blocking_engine()
        yield blocking if self.is_blocking else waiting
        await waiting.dispose()
        blocking.dispose()


BOOKS = MetaData()
BOOK = Table("book", BOOKS, Column("line", String(100), unique=True))


@contextmanager
def engine_of(place: Place) -> Iterator[Engine]:
    engine = place.blocking_engine()
    yield engine
    engine.dispose()


def content(place: Place) -> Sequence[Sequence[object]]:
    """The lines of the book, and the rows of the barrier."""
    with engine_of(place) as engine, engine.connect() as connection:
        return [[tuple(row) for row in connection.execute(text(f"SELECT * FROM {table} ORDER BY 1"))] for table in ("book", "saga_barrier")]


def a_round(chance: random.Random) -> list[Deed]:
    return [
        Deed(key, is_undo=chance.random() < 0.3, ending=chance.choice(ENDINGS), value=chance.choice([b"input", b"input", b"other"]))
        for key in chance.sample(range(KEYS), KEYS)
    ]


@pytest.mark.parametrize("seed", range(4))
async def test_calls_that_share_a_commit_come_to_the_same_as_one_at_a_time(stand: Stand, seed: int) -> None:
    chance = random.Random(seed)
    together, alone = stand.made(), stand.made()
    async with stand.opened(together) as shared_engine, stand.opened(alone) as own_engine:
        shared, own = Books(shared_engine, 64), Books(own_engine, 1)
        await shared.barrier.create_table()
        await own.barrier.create_table()
        await asyncio.gather(shared.barrier.check(), own.barrier.check())
        for _ in range(ROUNDS):
            deeds = a_round(chance)
            expected = [await own.insist(deed) for deed in deeds]
            assert await asyncio.gather(*map(shared.insist, deeds)) == expected
        assert content(together) == content(alone)


async def test_processes_that_want_the_same_rows_let_each_take_effect_once(stand: Stand) -> None:
    place = stand.made()
    async with stand.opened(place) as one, stand.opened(place) as other:
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
        assert {*content(place)[0]} == {(TAKEN,), *((key,) for key in keys)}


async def test_row_that_another_process_holds_is_waited_for_less_than_the_time_of_the_call(stand: Stand) -> None:
    place = stand.made()
    async with stand.opened(place) as engine:
        clock = ManualClock()
        barrier = SqlBarrier(engine, clock=clock)
        await barrier.create_table()
        call = execute_call(clock, time_left_s=0.4)
        await barrier.check()

        async def run(sessions: SessionSource) -> ExecuteOutcome:
            await write(sessions, "once")
            return HandlerSucceeded(response=reply("done"))

        assert await barrier.execute(call, run) == reply("done")
        with engine_of(place) as holder, holder.begin() as connection:
            connection.execute(text("SELECT * FROM saga_barrier FOR UPDATE"))
            answer = await barrier.execute(call, run)
        assert isinstance(answer, participant_pb2.ExecuteResponse)
        assert answer.HasField("retry_later")
        assert await barrier.execute(call, run) == reply("done")
