"""A client of the crash tests, a process of its own: its arguments are those of `main`.

Starts the sagas with those numbers, waits for their ends, and answers what only a person can. It writes into a diary what it is about to do
and what it was told, so that the next one of that name goes on where this one was killed; and it ends with 0 when all of them have ended.
"""

import asyncio
import sqlite3
import sys
import time
from contextlib import aclosing, suppress
from datetime import timedelta
from pathlib import Path
from typing import Final, NamedTuple

from google.protobuf.wrappers_pb2 import StringValue

from participant_sdk import SagaClient
from participant_sdk.client import NotNow, PointOfNoReturnPassed, Resolution, SagaAlreadyEnded, StartOptions
from participant_sdk.ids import new_saga_id
from saga.v1 import saga_pb2
from tests.integration.crashes.participant_process import OUTPUT, read_ledger
from tests.integration.crashes.plans import PLANS, Wish, saga_of, wish_of
from tests.simulation.chance import Chance
from tests.simulation.journal_of_world import Deed

AT_ONCE: Final = 96
"""Sagas under way per client."""
LOOKS_EVERY_S: Final = 0.5
PATIENCE: Final = timedelta(minutes=5)
"""Nothing that the tests do lasts longer."""


class Told(NamedTuple):
    """What a client remembers of one saga. Times are of a clock that all processes of this machine share."""

    number: int
    plan: str
    input: str
    has_key: bool
    saga_id: str
    """Of a saga with a key: the one that it was told; empty before."""
    intended_at_s: float
    told_at_s: float | None
    """When its start was answered."""
    watched_to: int
    """Sequence of the last event that was seen."""
    ended_at_s: float | None
    saga: bytes | None
    """As it was when the client was told of its end."""
    complaint: str
    """What the client itself found wrong."""


class Diary:
    """Written at once; a killed process loses nothing of it."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path, isolation_level=None, timeout=30)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS told (number INTEGER PRIMARY KEY, plan TEXT, input TEXT, has_key INTEGER, saga_id TEXT,"
            " intended_at_s REAL, told_at_s REAL, watched_to INTEGER NOT NULL DEFAULT 0, ended_at_s REAL, saga BLOB,"
            " complaint TEXT NOT NULL DEFAULT '')"
        )

    def read(self) -> dict[int, Told]:
        return {row[0]: Told(*row) for row in self._database.execute("SELECT * FROM told ORDER BY number")}

    def ended(self) -> int:
        """How many sagas have."""
        (count,) = self._database.execute("SELECT count(*) FROM told WHERE ended_at_s IS NOT NULL").fetchone()
        return int(count)

    def close(self) -> None:
        self._database.close()

    def intend(self, wish: Wish, saga_id: str) -> None:
        self._database.execute(
            "INSERT INTO told (number, plan, input, has_key, saga_id, intended_at_s) VALUES (?, ?, ?, ?, ?, ?)",
            (wish.number, wish.plan, wish.input, wish.has_key, "" if wish.has_key else saga_id, time.monotonic()),
        )

    def note_start(self, wish: Wish, saga_id: str) -> None:
        statement = "UPDATE told SET saga_id = ?, told_at_s = ? WHERE number = ?"
        self._database.execute(statement, (saga_id, time.monotonic(), wish.number))

    def note_event(self, wish: Wish, sequence: int) -> None:
        self._database.execute("UPDATE told SET watched_to = ? WHERE number = ?", (sequence, wish.number))

    def note_end(self, wish: Wish, saga: saga_pb2.Saga) -> None:
        statement = "UPDATE told SET ended_at_s = ?, saga = ? WHERE number = ?"
        self._database.execute(statement, (time.monotonic(), saga.SerializeToString(), wish.number))

    def complain(self, wish: Wish, text: str) -> None:
        self._database.execute("UPDATE told SET complaint = complaint || ? WHERE number = ?", (f"{text}; ", wish.number))


class Client:
    """Goes through its numbers."""

    def __init__(self, directory: Path, diary: Diary, client: SagaClient, chance: Chance) -> None:
        self._directory = directory
        self._diary = diary
        self._client = client
        self._chance = chance
        self._before = diary.read()

    async def run(self, numbers: range) -> None:
        for plan in PLANS:
            await self._client.register(saga_of(plan))
        remaining = iter(numbers)

        async def one_after_the_other() -> None:
            for number in remaining:
                await self._see_through(number)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(AT_ONCE):
                tasks.create_task(one_after_the_other())

    async def _see_through(self, number: int) -> None:
        wish = wish_of(number, self._chance.stream("saga", number))
        before = self._before.get(number)
        if before is not None and before.ended_at_s is not None:
            return
        if before is None or before.told_at_s is None:
            saga_id = await self._start(wish, before)
        else:
            saga_id = before.saga_id
        if wish.is_cancelled:
            with suppress(SagaAlreadyEnded, PointOfNoReturnPassed):
                await self._client.cancel(saga_id)
        async with asyncio.TaskGroup() as tasks:
            if wish.is_watched:
                tasks.create_task(self._watch(wish, saga_id, before.watched_to if before is not None else 0))
            ended = tasks.create_task(self._wait(saga_id))
        self._diary.note_end(wish, ended.result())

    async def _wait(self, saga_id: str) -> saga_pb2.Saga:
        saga = await self._client.wait(saga_id)
        while (step_id := _asked_about(saga)) is not None:
            await self._answer(saga_id, step_id)
            saga = await self._client.wait(saga_id)
        return saga

    async def _start(self, wish: Wish, before: Told | None) -> str:
        """Starts it, once more if nobody knows whether that has happened (R2, R4)."""
        saga_id = new_saga_id() if before is None or wish.has_key else before.saga_id
        if before is None:
            self._diary.intend(wish, saga_id)
        options = StartOptions(saga_id=saga_id)
        if wish.has_key:
            options["key"] = f"number {wish.number}"
        handle = await self._client.start(wish.plan, StringValue(value=wish.input), **options)
        if handle.id != saga_id and handle.is_new:
            self._diary.complain(wish, f"saga {saga_id} was asked for, and {handle.id} was made")
        self._diary.note_start(wish, handle.id)
        return handle.id

    async def _answer(self, saga_id: str, step_id: str) -> None:
        """As a person who looks into the books of the participant (R10)."""
        has_happened = any((each.saga_id, each.step_id, each.deed) == (saga_id, step_id, Deed.DO) for each in read_ledger(self._directory))
        try:
            told = OUTPUT if has_happened else Resolution.REJECTED
            await self._client.operator.resolve_step(saga_id, step_id, told, reason="the books say so", actor="ann")
        except NotNow:
            await asyncio.sleep(LOOKS_EVERY_S)  # what the participant may still say counts

    async def _watch(self, wish: Wish, saga_id: str, seen: int) -> None:
        """Reads along to the end, and leaves no gap (R33)."""
        async with aclosing(self._client.watch(saga_id, after=seen)) as events:
            async for response in events:
                seen += 1
                if response.event.sequence != seen:
                    self._diary.complain(wish, f"expected to see event {seen}, found {response.event.sequence}")
                    return
                self._diary.note_event(wish, seen)


def _asked_about(saga: saga_pb2.Saga) -> str | None:
    """The pivot of which nobody knows whether it has happened, if the saga waits for somebody who does."""
    open_ones = [incident for incident in saga.incidents if not incident.HasField("closed_at")]
    return next((each.step_id for each in open_ones if each.kind == saga_pb2.INCIDENT_KIND_PIVOT_UNKNOWN), None)


async def main(name: str, directory: str, coordinator: str, seed: str, first: str, last: str) -> None:
    diary = Diary(Path(directory) / f"{name}.db")
    async with SagaClient(coordinator, timeout=PATIENCE) as client:
        await Client(Path(directory), diary, client, Chance(int(seed))).run(range(int(first), int(last) + 1))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
