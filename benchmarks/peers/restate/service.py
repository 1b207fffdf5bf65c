"""The saga and its three participants as Restate services, in one process, served over HTTP/2 with Hypercorn."""

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final, TypedDict

import restate
from hypercorn.asyncio import serve
from hypercorn.config import Config
from restate.exceptions import TerminalError

from benchmarks.measured_run import TEXTS
from benchmarks.peers.books import STEP_NAMES, Books

REFUSED_STATUS: Final = 409
UNLIMITED: Final = 2_147_483_647
"""As the templates of the SDK set it, so that Hypercorn never closes a connection on which work is under way."""


class Message(TypedDict):
    """What every step carries and returns."""

    number: int
    """Of the saga in the run."""
    is_refused: bool
    """Whether the last step shall refuse."""
    name: str
    root: str


BOOKS: Final = Books()
participant = restate.Service("Participant")
saga = restate.Service("Saga")


def message_of(number: int, *, is_refused: bool) -> Message:
    """About 200 bytes."""
    return Message(number=number, is_refused=is_refused, name=TEXTS[0], root=TEXTS[1])


async def _do(step: str, message: Message) -> Message:
    if step == STEP_NAMES[-1] and message["is_refused"]:
        raise TerminalError("refused", status_code=REFUSED_STATUS)
    BOOKS.do(step, message["number"])
    return message


async def _undo(step: str, message: Message) -> None:
    BOOKS.undo(step, message["number"])


@participant.handler()
async def one(ctx: restate.Context, message: Message) -> Message:
    return await _do("one", message)


@participant.handler()
async def two(ctx: restate.Context, message: Message) -> Message:
    return await _do("two", message)


@participant.handler()
async def three(ctx: restate.Context, message: Message) -> Message:
    return await _do("three", message)


@participant.handler()
async def undo_one(ctx: restate.Context, message: Message) -> None:
    await _undo("one", message)


@participant.handler()
async def undo_two(ctx: restate.Context, message: Message) -> None:
    await _undo("two", message)


@participant.handler()
async def undo_three(ctx: restate.Context, message: Message) -> None:
    await _undo("three", message)


CALLS: Final = (one, undo_one), (two, undo_two), (three, undo_three)


@saga.handler()
async def calls(ctx: restate.Context, message: Message) -> Message:
    """Each step is a call of another service's handler."""
    compensations: list[Callable[[], Awaitable[None]]] = []
    try:
        for execute, compensate in CALLS:
            done = await ctx.service_call(execute, arg=message)
            compensations.append(partial(ctx.service_call, compensate, arg=done))
            message = done
    except TerminalError:
        for undo in reversed(compensations):
            await undo()
        raise
    return message


@saga.handler()
async def run(ctx: restate.Context, message: Message) -> Message:
    """Each step is an action whose result is kept, done in this very handler."""
    compensations: list[Callable[[], Awaitable[None]]] = []
    try:
        for step in STEP_NAMES:
            done = await ctx.run_typed(step, _do, restate.RunOptions(), step, message)
            compensations.append(partial(ctx.run_typed, f"undo {step}", _undo, restate.RunOptions(), step, done))
            message = done
    except TerminalError:
        for undo in reversed(compensations):
            await undo()
        raise
    return message


async def main(descriptor: int, books: Path) -> None:
    BOOKS.end_when_asked(books)
    config = Config()
    config.bind = [f"fd://{descriptor}"]
    config.h2_max_concurrent_streams = UNLIMITED
    config.keep_alive_max_requests = UNLIMITED
    config.keep_alive_timeout = UNLIMITED
    await serve(restate.app(services=[saga, participant]), config)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--descriptor", type=int, required=True, help="of the socket to listen on")
    parser.add_argument("--books", type=Path, required=True, help="file that is written at the end")
    given = parser.parse_args()
    asyncio.run(main(given.descriptor, given.books))
