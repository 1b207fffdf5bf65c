"""The manager's side of an approval: what is asked, and yes or no.

python -m examples.travel.approve                      what is asked
python -m examples.travel.approve TRIP                 asks you, and tells you if nobody wants your answer any more
python -m examples.travel.approve TRIP yes --by ann    the same in one go

Like a web server would be, it is a process of its own: it opens the database of the approvals, and serves nothing.
"""

import argparse
import asyncio
import getpass
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from examples.travel.approvals import Approvals, Base, Question
from examples.travel.database import create_tables, open_database
from participant_sdk import (
    AlreadyCompletedError,
    CompletionPostponedError,
    CompletionRefusedError,
    CompletionUndeliveredError,
    SagaClient,
    SqlBarrier,
    StepNotWaitingError,
    beating,
)
from travel.v1.travel_pb2 import QuestionRead, TripApproved

HEARTBEAT_EVERY: Final = timedelta(seconds=2)
"""How often the coordinator is told that the manager is still thinking, and tells whether that is still of use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the manager says."""

    manager: str
    is_yes: bool
    why: str = ""


async def open_questions(engine: AsyncEngine, trip_id: str | None = None) -> Sequence[Question]:
    """What waits for a manager, for one trip or for all."""
    asked = select(Question).where(Question.state == "open")
    async with AsyncSession(engine) as session:
        return (await session.scalars(asked if trip_id is None else asked.where(Question.trip_id == trip_id))).all()


async def answer(approvals: Approvals, client: SagaClient, question: Question, verdict: Verdict) -> str:
    """Stores the answer and tells the coordinator; returns what to tell the manager."""
    try:
        # While the body runs, the step's row is locked: an undo comes before it, and it is refused, or after it, and undoes it.
        async with approvals.completing(question.token, Approvals.ask, client=client) as completion:
            state = "approved" if verdict.is_yes else "denied"
            answered = update(Question).where(Question.key == completion.key).values(state=state, answered_by=verdict.manager)
            await completion.session.execute(answered)
            if verdict.is_yes:
                approved = TripApproved(manager=verdict.manager)
                approved.approved_at.GetCurrentTime()
                completion.succeed(approved)
            else:
                completion.reject("DENIED", f"{verdict.manager} said no" + (f": {verdict.why}" if verdict.why else ""))
    except AlreadyCompletedError as earlier:
        was = f"approved by {earlier.output.manager}" if isinstance(earlier.output, TripApproved) else "denied"
        return f"it was {was} before; that counts, and has been passed on again"
    except (CompletionRefusedError, StepNotWaitingError):
        return "too late: nobody waits for the answer any more"
    except CompletionPostponedError:
        return "not now: the question is being stored at this moment; answer once more"
    except CompletionUndeliveredError:
        return "stored, but the coordinator cannot be reached: answer once more before the time is over, and it is passed on"
    return "thank you"


async def consider(
    client: SagaClient, question: Question, manager: str, decide: Callable[[], Awaitable[Verdict]], *, every: timedelta = HEARTBEAT_EVERY
) -> Verdict | None:
    """Lets the manager think, and keeps the question open meanwhile. None: the trip was cancelled, no answer is needed."""
    try:
        async with beating(client, question.token, every=every) as beat:
            beat.report(QuestionRead(manager=manager))
            return await decide()
    except StepNotWaitingError:
        return None


@asynccontextmanager
async def _opened(folder: Path) -> AsyncIterator[tuple[AsyncEngine, Approvals]]:
    engine = open_database(folder / "approvals.db")
    try:
        await create_tables(engine, Base.metadata)
        yield engine, Approvals(barrier=SqlBarrier(engine))
    finally:
        await engine.dispose()


async def run(trip_id: str | None, verdict: str | None, manager: str, why: str) -> int:
    """Lists the questions, or answers one; returns the exit code."""
    async with (
        _opened(Path(os.environ.get("TRAVEL_FOLDER", "."))) as (engine, approvals),
        SagaClient(os.environ.get("SAGA_ADDRESS", "127.0.0.1:7700"), timeout=timedelta(seconds=5)) as client,
    ):
        questions = await open_questions(engine, trip_id)
        for question in questions:
            print(f"trip {question.trip_id}: {question.text}; {question.total}")
        if not questions:
            print("nothing is asked")
        if trip_id is None or not questions:
            return 0 if trip_id is None else 1
        if verdict is None:
            said = await consider(client, questions[0], manager, lambda: _ask_on_terminal(manager))
        else:
            said = Verdict(manager=manager, is_yes=verdict == "yes", why=why)
        print("the trip was cancelled, no answer is needed" if said is None else await answer(approvals, client, questions[0], said))
        return 0


async def _ask_on_terminal(manager: str) -> Verdict:
    """Waits for a line without a thread, which nothing could end."""
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    try:
        line = ""
        while line not in {"yes", "no"}:
            print("yes or no? ", end="", flush=True)
            read = await reader.readline()
            if not read:
                raise EOFError("no answer was given; the question stays open")
            line = read.decode().strip().lower()
    finally:
        transport.close()
    return Verdict(manager=manager, is_yes=line == "yes")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.travel.approve", description="Lists what is asked, and answers it.")
    parser.add_argument("trip", nargs="?", help="the trip; without it: what is asked")
    parser.add_argument("verdict", nargs="?", choices=["yes", "no"], help="without it: you are asked")
    parser.add_argument("--by", default=getpass.getuser(), help="who answers")
    parser.add_argument("--why", default="", help="for the traveller, with no")
    given = parser.parse_args()
    try:
        return asyncio.run(run(given.trip, given.verdict, given.by, given.why))
    except EOFError as ended:
        print(f"\n{ended}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
