"""A participant of the crash tests, a process of its own: its arguments are those of `main`.

Its code is careful, as the SDK asks for; what goes wrong with it is what happens to its process and its connections, and what the input of
a saga says. Every effect is a line of a ledger, written in the database transaction that makes it true.
"""

import asyncio
import logging
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Final, NamedTuple

from google.protobuf.wrappers_pb2 import StringValue
from sqlalchemy import Column, Float, Integer, MetaData, String, Table, Text, delete, insert, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from participant_sdk import (
    Accepted,
    AlreadyCompletedError,
    CompletionPostponedError,
    CompletionRefusedError,
    CompletionUndeliveredError,
    Effect,
    Participant,
    Rejected,
    SagaClient,
    SqlBarrier,
    StepContext,
    StepNotWaitingError,
    action,
    barrier_table,
    serve,
)
from participant_sdk.client import CoordinatorError
from tests.simulation.chance import Chance
from tests.simulation.journal_of_world import Deed, Entry

logger = logging.getLogger(__name__)

ACCEPTED_FOR: Final = timedelta(minutes=30)
"""Longer than a connection to the coordinator can be dead without being noticed."""
LOOKS_EVERY_S: Final = 0.1
"""How often gamma looks what it has promised and not fulfilled."""
FULFILS_AT_ONCE: Final = 20
DUPLICATES_REFUSED: Final = 0.3
"""Share of the keys of which the system outside says that they were used, in place of its first answer."""
OUTPUT: Final = StringValue(value="ok")

books = MetaData()
ledger = Table(
    "ledger",
    books,
    Column("position", Integer, primary_key=True, autoincrement=True),
    Column("at_s", Float, nullable=False),
    Column("saga_id", String(36), nullable=False),
    Column("step_id", String(64), nullable=False),
    Column("deed", String(8), nullable=False),
    Column("key", String(255), nullable=False),
)
wishes = Table(
    "wish",
    books,
    Column("key", String(255), primary_key=True),
    Column("token", Text, nullable=False),
    Column("refused", String(8), nullable=False),
)
barrier_table(books)


def line_of(step: StepContext, deed: Deed) -> dict[str, object]:
    """By a clock that all processes of this machine share."""
    return {"at_s": time.monotonic(), "saga_id": step.saga_id, "step_id": step.step_id, "deed": deed, "key": step.execute_key}


def refuse_if_asked(request: StringValue, step: StepContext) -> None:
    if f"refuse:{step.step_id}" in request.value.split():
        raise Rejected("REFUSED", "asked to be refused")


def stumble_if_asked(request: StringValue, step: StepContext) -> None:
    if step.attempt == 1 and f"stumble:{step.step_id}" in request.value.split():
        raise RuntimeError("the participant has stumbled")


class Alpha(Participant, name="alpha"):
    """Its effects are rows of its own database."""

    @action
    async def do(self, request: StringValue, step: StepContext) -> StringValue:
        return await self._act(request, step)

    @do.compensation
    async def undo(self, request: StringValue, output: StringValue, step: StepContext) -> None:
        stumble_if_asked(request, step)
        await step.session.execute(insert(ledger).values(line_of(step, Deed.UNDO)))

    @action
    async def last(self, request: StringValue, step: StepContext) -> StringValue:
        return await self._act(request, step)

    async def _act(self, request: StringValue, step: StepContext) -> StringValue:
        refuse_if_asked(request, step)
        await step.session.execute(insert(ledger).values(line_of(step, Deed.DO)))
        stumble_if_asked(request, step)
        return OUTPUT


class Outside:
    """A system that knows nothing of sagas, such as a payment API: it honours idempotency keys, also those of what it has undone."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path, isolation_level=None, timeout=30)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS ledger (position INTEGER PRIMARY KEY, at_s REAL, saga_id TEXT, step_id TEXT, deed TEXT, key TEXT)"
        )
        self._database.execute("CREATE TABLE IF NOT EXISTS closed (key TEXT PRIMARY KEY)")

    def do(self, step: StepContext) -> bool:
        """Whether it was not done before; nothing happens to a key that was undone."""
        with self._written():
            is_new = not self._has("ledger", step) and not self._has("closed", step)
            if is_new:
                self._write(step, Deed.DO)
        return is_new

    def undo(self, step: StepContext) -> None:
        """Whether or not it was done: from now on the key does nothing."""
        with self._written():
            if self._has("ledger", step) and not self._has("closed", step):
                self._write(step, Deed.UNDO)
            self._database.execute("INSERT OR IGNORE INTO closed VALUES (?)", (step.execute_key,))

    @contextmanager
    def _written(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        with self._database:
            yield

    def _has(self, table: str, step: StepContext) -> bool:
        return self._database.execute(f"SELECT 1 FROM {table} WHERE key = ?", (step.execute_key,)).fetchone() is not None

    def _write(self, step: StepContext, deed: Deed) -> None:
        statement = "INSERT INTO ledger (at_s, saga_id, step_id, deed, key) VALUES (:at_s, :saga_id, :step_id, :deed, :key)"
        self._database.execute(statement, line_of(step, deed))


class Beta(Participant, name="beta"):
    """Its effects are outside of its database (R19)."""

    def __init__(self, outside: Outside, barrier: SqlBarrier) -> None:
        super().__init__(barrier=barrier)
        self._outside = outside

    @action(effect=Effect.EXTERNAL)
    async def do(self, request: StringValue, step: StepContext) -> StringValue:
        refuse_if_asked(request, step)
        if not self._outside.do(step) and Chance(0).share("says so", step.key) < DUPLICATES_REFUSED:
            raise Rejected("DUPLICATE", "it was done before")  # such APIs exist; R5 is about them
        stumble_if_asked(request, step)
        return OUTPUT

    @do.compensation
    async def undo(self, request: StringValue, output: StringValue | None, step: StepContext) -> None:
        self._outside.undo(step)
        stumble_if_asked(request, step)

    @action(effect=Effect.EXTERNAL)
    async def last(self, request: StringValue, step: StepContext) -> StringValue:
        refuse_if_asked(request, step)
        self._outside.do(step)
        stumble_if_asked(request, step)
        return OUTPUT


class _Promise(NamedTuple):
    """A row of what gamma has promised."""

    key: str
    token: str
    refused: str


class Gamma(Participant, name="gamma"):
    """Notes a wish, and fulfils it later, on its own (R24)."""

    def __init__(self, engine: AsyncEngine, client: SagaClient, barrier: SqlBarrier) -> None:
        super().__init__(barrier=barrier)
        self._engine = engine
        self._client = client

    @action
    async def ask(self, request: StringValue, step: StepContext) -> StringValue | Accepted:
        stumble_if_asked(request, step)
        await step.session.execute(insert(ledger).values(line_of(step, Deed.BEGIN)))
        refused = "refused" if f"refuse:{step.step_id}" in request.value.split() else ""
        await step.session.execute(insert(wishes).values(key=step.key, token=step.completion_token, refused=refused))
        return Accepted(ACCEPTED_FOR)

    @ask.compensation
    async def withdraw(self, request: StringValue, output: StringValue | None, step: StepContext) -> None:
        await step.session.execute(insert(ledger).values(line_of(step, Deed.UNDO)))
        await step.session.execute(delete(wishes).where(wishes.c.key == step.execute_key))

    async def fulfil(self) -> None:
        """Until cancelled: what is promised stands in the database, whatever happens to this process."""
        task = asyncio.current_task()
        assert task is not None
        try:
            while True:
                with tried_again("what was promised"):
                    await asyncio.gather(*map(self._fulfil, await self._promises()))
                await asyncio.sleep(LOOKS_EVERY_S)
        except asyncio.CancelledError:
            if not task.cancelling():
                raise RuntimeError("a call of this participant was cancelled by nobody") from None
            raise

    async def _promises(self) -> list[_Promise]:
        async with self._engine.connect() as connection:
            found = await connection.execute(select(wishes.c.key, wishes.c.token, wishes.c.refused).limit(FULFILS_AT_ONCE))
            return [_Promise(*row) for row in found]

    async def _fulfil(self, promise: _Promise) -> None:
        """Keeps the wish until the coordinator has heard of it, or says that it is too late."""
        with tried_again(promise.key):
            # Otherwise the coordinator knows, or never will.
            with suppress(AlreadyCompletedError, CompletionRefusedError, StepNotWaitingError):
                await self._complete(promise)
            async with self._engine.begin() as connection:
                await connection.execute(delete(wishes).where(wishes.c.key == promise.key))

    async def _complete(self, promise: _Promise) -> None:
        async with self.completing(promise.token, Gamma.ask, client=self._client) as completion:
            if promise.refused:
                completion.reject("REFUSED", "refused in the end")
            else:
                line = {"saga_id": completion.saga_id, "step_id": completion.step_id, "key": promise.key, "deed": Deed.DO}
                await completion.session.execute(insert(ledger).values(at_s=time.monotonic(), **line))
                completion.succeed(OUTPUT)


@contextmanager
def tried_again(what: str) -> Iterator[None]:
    """What cannot be done now is left for the next round."""
    try:
        yield
    except (CompletionUndeliveredError, CompletionPostponedError, CoordinatorError, TimeoutError, SQLAlchemyError) as error:
        logger.warning("%s is left for later: %s: %s", what, type(error).__name__, error)


@asynccontextmanager
async def opened(name: str, directory: Path, coordinator: str) -> AsyncIterator[Participant]:
    """A participant on its own database, and whatever it does by itself."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{directory / name}.db", connect_args={"timeout": 30})
    async with engine.begin() as connection:
        await connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        await connection.run_sync(books.create_all)
    barrier = SqlBarrier(engine)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(engine.dispose)
        match name:
            case "alpha":
                yield Alpha(barrier=barrier)
            case "beta":
                yield Beta(Outside(directory / "outside.db"), barrier)
            case _:
                client = await stack.enter_async_context(SagaClient(coordinator, timeout=timedelta(seconds=3)))
                gamma = Gamma(engine, client, barrier)
                # A group: should fulfilling fail, this process ends and says why.
                group = await stack.enter_async_context(asyncio.TaskGroup())
                fulfilling = group.create_task(gamma.fulfil())
                yield gamma
                fulfilling.cancel()


def read_ledger(directory: Path) -> Sequence[Entry]:
    """What all of them have written, in the order of time."""
    entries: list[Entry] = []
    for name in ("alpha", "outside", "gamma"):
        with closing(sqlite3.connect(directory / f"{name}.db")) as database:
            rows = database.execute("SELECT at_s, saga_id, step_id, deed, key FROM ledger ORDER BY position")
            entries += [Entry(at_s, saga_id, step_id, Deed(deed), key) for at_s, saga_id, step_id, deed, key in rows]
    return sorted(entries, key=lambda entry: entry.at_s)


async def main(name: str, directory: str, coordinator: str, address: str, advertised: str) -> None:
    async with opened(name, Path(directory), coordinator) as participant:
        await serve(participant, address=address, coordinator=coordinator, advertise=advertised, ttl=timedelta(seconds=10))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
