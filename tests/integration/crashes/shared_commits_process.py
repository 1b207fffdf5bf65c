"""A participant whose calls share commits, which says what it does until it is killed: `in KEY` in the middle of a handler, and
`answered KEY` when a call was answered.
"""

import asyncio
import sys
from dataclasses import replace

from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session

from participant_sdk import SqlBarrier
from participant_sdk.barrier.outcomes import ExecuteOutcome, HandlerSucceeded
from participant_sdk.barrier.verdict import StepIdentity
from participant_sdk.step_context import SessionSource
from tests.contract.barrier.calls import ManualClock, execute_call, rejected, reply

CALLS = 12
"""At the same moment."""
REFUSED_EVERY = 5


async def run(sessions: SessionSource, number: int) -> ExecuteOutcome:
    """Counts it and notes it, which belongs together."""
    await _write(sessions, "UPDATE total SET lines = lines + 1", {})
    _say(f"in {number}")
    await _write(sessions, "INSERT INTO book (line) VALUES (:line)", {"line": str(number)})
    return rejected() if number % REFUSED_EVERY == 0 else HandlerSucceeded(response=reply(str(number)))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def _write(sessions: SessionSource, statement: str, values: dict[str, str]) -> None:
    session = sessions.session
    if isinstance(session, Session):
        session.execute(text(statement), values)
    else:
        await session.execute(text(statement), values)


async def main(path: str, kind: str) -> None:
    engine = create_engine(f"sqlite:///{path}") if kind == "blocking" else create_async_engine(f"sqlite+aiosqlite:///{path}")
    clock = ManualClock()
    barrier = SqlBarrier(engine, clock=clock, calls_per_commit=CALLS)

    async def call(number: int) -> None:
        step = StepIdentity(saga_id="saga", step_id=str(number))
        await barrier.execute(replace(execute_call(clock), key=str(number), step=step), lambda sessions: run(sessions, number))
        _say(f"answered {number}")

    first = 0
    while True:
        await asyncio.gather(*map(call, range(first, first + CALLS)))
        first += CALLS


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
