"""Database servers that are killed while calls are under way: a key takes effect once all the same, and its answer is that of the effect
(R18, R19).
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Column, Connection, Engine, MetaData, String, Table, event, select
from sqlalchemy.ext.asyncio import AsyncEngine

from participant_sdk import SqlBarrier
from participant_sdk.barrier.outcomes import ExecuteAnswer, ExecuteOutcome, HandlerSucceeded
from participant_sdk.step_context import SessionSource
from tests.barrier_databases import made_database, mariadb_place, postgres_place
from tests.budget import budget
from tests.contract.barrier.calls import ManualClock, execute_call, failed, reply
from tests.mariadb_server import MariadbServer, find_mariadbd
from tests.postgres_server import PostgresServer
from tests.property.test_shared_transactions import write

pytestmark = [pytest.mark.full, pytest.mark.timeout(300)]

CALLS_PER_KILL = 200
CALLS_AT_ONCE = 12
BOOKS = MetaData()
BOOK = Table("book", BOOKS, Column("line", String(100)))
"""Without a constraint: what is done twice stands there twice."""


class Stand:
    """A participant's barrier on a server of its own, which may be killed and started again."""

    def __init__(self, server: PostgresServer | MariadbServer, *, is_blocking: bool) -> None:
        self._server = server
        server.start()
        is_postgres = isinstance(server, PostgresServer)
        url = made_database(server.url.set(drivername="postgresql+psycopg" if is_postgres else "mariadb+pymysql"))
        place = postgres_place(url) if is_postgres else mariadb_place(url)
        self._setup = place.blocking_engine()
        BOOKS.create_all(self._setup)
        self.engine: AsyncEngine | Engine = place.blocking_engine() if is_blocking else place.engine()
        self._clock = ManualClock()
        self.barrier = SqlBarrier(self.engine, clock=self._clock, calls_per_commit=4)

    def kill(self) -> None:
        if isinstance(self._server, PostgresServer):
            self._server.stop(signal.SIGQUIT)
        else:
            self._server.kill()

    def start(self) -> None:
        self._server.start()

    async def close(self) -> None:
        self._setup.dispose()
        if isinstance(self.engine, AsyncEngine):
            await self.engine.dispose()
        else:
            self.engine.dispose()
        self._server.stop()

    async def call(self, key: str, then: Callable[[], None] = lambda: None) -> ExecuteAnswer:
        """`then`: what happens when its handler has written."""

        async def run(sessions: SessionSource) -> ExecuteOutcome:
            try:
                await write(sessions, key)
            except Exception as error:  # As the SDK does: what a handler raises is how it ends.
                return failed(error)
            then()
            return HandlerSucceeded(response=reply(key))

        return await self.barrier.execute(replace(execute_call(self._clock), key=key), run)

    async def insist(self, key: str) -> None:
        """As a coordinator does: until it is told what came of it."""
        while await self.call(key) != reply(key):
            await asyncio.sleep(0.01)

    def lines(self) -> Sequence[str]:
        self._setup.dispose()  # Its connections may be to a server that is no more.
        with self._setup.connect() as connection:
            return connection.scalars(select(BOOK.c.line)).all()


@pytest.fixture(params=["postgres-async", "postgres-blocking", "mariadb-async", "mariadb-blocking"])
async def stand(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stand]:
    name, _, kind = request.param.partition("-")
    server = PostgresServer(tmp_path / "server") if name == "postgres" else MariadbServer(tmp_path, find_mariadbd())
    stand = Stand(server, is_blocking=kind == "blocking")
    await stand.barrier.create_table()
    yield stand
    await stand.close()


async def test_server_that_is_killed_in_each_phase_of_a_call(stand: Stand) -> None:
    await stand.insist("before")  # So that the pool has a connection.
    stand.kill()
    assert await stand.call("unreachable") != reply("unreachable")
    stand.start()
    assert await stand.call("within", then=stand.kill) != reply("within")
    stand.start()
    await stand.insist("between")

    sync_engine = stand.engine.sync_engine if isinstance(stand.engine, AsyncEngine) else stand.engine

    def kill_before_the_commit(connection: Connection) -> None:
        stand.kill()

    event.listen(sync_engine, "commit", kill_before_the_commit, once=True)
    assert await stand.call("commit") != reply("commit")
    stand.start()
    assert sorted(stand.lines()) == ["before", "between"]
    keys = ["before", "unreachable", "within", "between", "commit"]
    for key in keys:
        await stand.insist(key)
    assert sorted(stand.lines()) == sorted(keys)


async def test_server_that_is_killed_again_and_again_under_load(stand: Stand) -> None:
    kills = budget(4)
    keys = [f"key {number}" for number in range(CALLS_PER_KILL * (kills + 1))]
    left = iter(keys)
    answered = 0

    async def work() -> None:
        nonlocal answered
        for key in left:
            await stand.insist(key)
            answered += 1

    async def trouble() -> None:
        for number in range(kills):
            while answered < CALLS_PER_KILL * (number + 1):
                await asyncio.sleep(0.001)
            await asyncio.to_thread(stand.kill)
            await asyncio.to_thread(stand.start)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(CALLS_AT_ONCE):
            tasks.create_task(work())
        tasks.create_task(trouble())
    assert sorted(stand.lines()) == sorted(keys)
