"""Calls that share a database transaction come to what they would come to one at a time, whatever their companions do (R5, R18, R20, R22).

Rounds of calls, all at once within a round, go to a barrier that puts them together; the same rounds go call by call to one that does
not. Each call writes to the books. Afterwards answers, books and rows must be the same.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from google.protobuf.any_pb2 import Any as PackedAny
from google.protobuf.duration_pb2 import Duration
from google.rpc import status_pb2
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import Session

from participant_sdk.barrier.guard import BUSY_DELAY
from participant_sdk.barrier.outcomes import (
    CompensateAnswer,
    CompensateOutcome,
    ExecuteAnswer,
    ExecuteOutcome,
    HandlerFailed,
    HandlerSucceeded,
    HandlerUndid,
)
from participant_sdk.barrier.sql import SqlBarrier
from participant_sdk.barrier.verdict import Knowledge
from participant_sdk.step_context import SessionSource
from tests.contract.barrier.calls import ManualClock, accepted, compensate_call, execute_call, failed, postponed, rejected, reply

KEYS = 4
EXAMPLES_SHARE = 2
"""What part of the profile's examples: each one makes two databases."""

BUSY = Duration()
BUSY.FromTimedelta(BUSY_DELAY)
TAKEN = "a line that is there"
ENDINGS = ("succeed", "write nothing", "accept", "reject", "postpone", "fail", "break a constraint", "swallow an error", "roll back")


@dataclass(frozen=True)
class Deed:
    """One call."""

    key: int
    is_undo: bool
    ending: str
    value: bytes = b"input"


DEEDS = st.builds(
    Deed,
    key=st.integers(0, KEYS - 1),
    is_undo=st.sampled_from([False, False, True]),
    ending=st.sampled_from(ENDINGS),
    value=st.sampled_from([b"input", b"input", b"input", b"other"]),
)
ROUNDS = st.lists(st.lists(DEEDS, min_size=1, max_size=6, unique_by=lambda deed: deed.key), min_size=1, max_size=4)


class Books:
    """A participant's database, and the barrier in it."""

    def __init__(self, engine: AsyncEngine | Engine, calls_per_commit: int) -> None:
        self.clock = ManualClock()
        self.barrier = SqlBarrier(engine, clock=self.clock, calls_per_commit=calls_per_commit)

    async def insist(self, deed: Deed) -> object:
        """As a coordinator does: a machine with too much to do may answer that nothing happened, and is asked again."""
        while True:
            answer = await self.make(deed)
            if isinstance(answer, status_pb2.Status) or answer.retry_later.delay != BUSY:
                return answer

    async def make(self, deed: Deed) -> ExecuteAnswer | CompensateAnswer:
        key = f"key {deed.key}"
        if deed.is_undo:
            undo = replace(compensate_call(self.clock, Knowledge.UNKNOWN, value=deed.value), key=key)
            return await self.barrier.compensate(undo, None, lambda sessions, output: self.undo(deed, sessions, output))
        call = replace(execute_call(self.clock, value=deed.value), key=key)
        return await self.barrier.execute(call, lambda sessions: self.do(deed, sessions))

    async def do(self, deed: Deed, sessions: SessionSource) -> ExecuteOutcome:
        if deed.ending == "write nothing":
            return HandlerSucceeded(response=reply(f"nothing for {deed.key}"))
        try:
            await write(sessions, f"do {deed.key}")
        except Exception as error:  # As the SDK does: what a handler raises is how it ends.
            return failed(error)
        match deed.ending:
            case "succeed":
                return HandlerSucceeded(response=reply(f"done {deed.key}"))
            case "accept":
                return accepted()
            case "reject":
                return rejected()
            case "postpone":
                return postponed()
            case _:
                return await self.stumble(deed, sessions) or HandlerSucceeded(response=reply("after all"))

    async def undo(self, deed: Deed, sessions: SessionSource, output: PackedAny | None) -> CompensateOutcome:
        try:
            await write(sessions, f"undo {deed.key}, {'' if output is None else output.value!r}")
        except Exception as error:
            return failed(error)
        match deed.ending:
            case "postpone" | "reject":
                return postponed()
            case "fail" | "break a constraint" | "swallow an error" | "roll back":
                return await self.stumble(deed, sessions) or HandlerUndid()
            case _:
                return HandlerUndid()

    async def stumble(self, deed: Deed, sessions: SessionSource) -> HandlerFailed | None:
        """What goes wrong; None if the handler hides it."""
        try:
            match deed.ending:
                case "break a constraint":
                    await write(sessions, TAKEN)
                case "swallow an error":
                    with suppress(IntegrityError):
                        await write(sessions, TAKEN)
                case "roll back":
                    await on_session(sessions, Session.rollback)
                case _:
                    return failed(RuntimeError("bug"))
        except Exception as error:
            return failed(error)
        return None


async def write(sessions: SessionSource, line: str) -> None:
    await on_session(sessions, lambda session: session.execute(text("INSERT INTO book (line) VALUES (:line)"), {"line": line}))


async def on_session(sessions: SessionSource, work: Callable[[Session], object]) -> None:
    session = sessions.session
    if isinstance(session, Session):
        work(session)
    else:
        await session.run_sync(work)


@asynccontextmanager
async def opened(path: Path, *, blocking: bool, calls_per_commit: int) -> AsyncIterator[Books]:
    """New books in that file. Their content is read by the caller."""
    with closing(sqlite3.connect(path)) as database:
        database.executescript(f"PRAGMA journal_mode = WAL; CREATE TABLE book (line TEXT UNIQUE); INSERT INTO book VALUES ('{TAKEN}')")
    waiting, engine = create_async_engine(f"sqlite+aiosqlite:///{path}"), create_engine(f"sqlite:///{path}")
    books = Books(engine if blocking else waiting, calls_per_commit)
    await books.barrier.create_table()
    await books.barrier.check()
    try:
        yield books
    finally:
        await waiting.dispose()
        engine.dispose()


def content(path: Path) -> tuple[list[object], list[object]]:
    """The lines of the books, and the rows of the barrier."""
    with closing(sqlite3.connect(path)) as database:
        return (
            database.execute("SELECT line FROM book ORDER BY line").fetchall(),
            database.execute("SELECT * FROM saga_barrier ORDER BY key").fetchall(),
        )


@pytest.mark.parametrize("blocking", [True, False], ids=["blocking", "async"])
@settings(max_examples=settings().max_examples // EXAMPLES_SHARE)
@given(rounds=ROUNDS)
def test_calls_that_share_a_commit_come_to_the_same_as_one_at_a_time(blocking: bool, rounds: list[list[Deed]]) -> None:
    async def play(directory: Path) -> None:
        together, alone = directory / "together.db", directory / "alone.db"
        async with (
            opened(together, blocking=blocking, calls_per_commit=64) as shared,
            opened(alone, blocking=True, calls_per_commit=1) as own,
        ):
            for deeds in rounds:
                expected = [await own.insist(deed) for deed in deeds]
                assert await asyncio.gather(*map(shared.insist, deeds)) == expected
        assert content(together) == content(alone)

    with TemporaryDirectory() as made:
        asyncio.run(play(Path(made)))
