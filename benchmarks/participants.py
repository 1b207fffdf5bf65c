"""The participants of the benchmarks: three actions that do next to nothing and note for which saga they did it.

As a process it serves one of them. On `books.ASKING` it writes its books and notes and ends; on `LETTING_GO` it answers what it has held.
"""

import argparse
import asyncio
import json
import os
import signal
import time
import types
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Final, cast

from google.protobuf.api_pb2 import Mixin

from benchmarks.effects import EFFECTS, Effect
from benchmarks.measured_run import STEPS, TEXTS
from benchmarks.peers.books import ASKING, Books
from benchmarks.unary_participant import serve_one_by_one
from participant_sdk import Participant, Rejected, Saga, StepContext, StepDefaults, action, configure_otlp, serve

LETTING_GO: Final = signal.SIGUSR2
REFUSE, ACCEPT = "refuse", "accept"
MAPPINGS: Final = (
    "Mixin{name: input.name, root: input.root}",
    "Mixin{name: input.name, root: one.root}",
    "Mixin{name: one.name + two.name, root: input.root}",
)
"""An expression for the input of each step."""
PATIENT: Final = StepDefaults(attempt_timeout=timedelta(minutes=30), execute_time_limit=timedelta(hours=2))
"""For participants that are to keep everybody waiting."""


def message_of(number: int, *, is_refused: bool = False, filling: str = TEXTS[0]) -> Mixin:
    """About 60 bytes on the wire more than the filling has. Any type with fields would do; this one says which saga of the run it is of."""
    return Mixin(name=filling, root=f"{REFUSE if is_refused else ACCEPT}{number:0{len(TEXTS[1]) - len(ACCEPT)}d}")


def number_of(message: Mixin) -> int:
    """Of the saga in the run."""
    return int(message.root[len(ACCEPT) :])


MESSAGE: Final = message_of(0)
BOOKS: Final = Books()
REFUSED_AT: Final[dict[int, float]] = {}
"""When each saga was refused, by the clock that all processes of the machine share."""
CALLED_AT: Final[dict[int, float]] = {}
"""When each saga called first, since the start or the last LETTING_GO, by the same clock."""


class Bench(Participant):
    """Three actions. Which participant they belong to, a subclass says."""

    effect: Effect | None = None
    """What an action writes; None: nothing."""
    may_answer: Callable[[], Awaitable[object]] | None = None
    """What an answer waits for; None: nothing."""

    @action
    async def one(self, request: Mixin, step: StepContext) -> Mixin:
        return await self._do("one", request, step)

    @one.compensation
    async def undo_one(self, request: Mixin, output: Mixin, step: StepContext) -> None:
        BOOKS.undo("one", number_of(request))

    @action
    async def two(self, request: Mixin, step: StepContext) -> Mixin:
        return await self._do("two", request, step)

    @two.compensation
    async def undo_two(self, request: Mixin, output: Mixin, step: StepContext) -> None:
        BOOKS.undo("two", number_of(request))

    @action
    async def three(self, request: Mixin, step: StepContext) -> Mixin:
        if request.root.startswith(REFUSE):
            REFUSED_AT[number_of(request)] = time.monotonic()
            raise Rejected("refused")
        return await self._do("three", request, step)

    @three.compensation
    async def undo_three(self, request: Mixin, output: Mixin, step: StepContext) -> None:
        BOOKS.undo("three", number_of(request))

    async def _do(self, name: str, request: Mixin, step: StepContext) -> Mixin:
        number = number_of(request)
        CALLED_AT.setdefault(number, time.monotonic())
        if self.may_answer is not None:
            await self.may_answer()
        if self.effect is not None:
            await self.effect.write(number, name, step)
        BOOKS.do(name, number)
        return request


_CLASSES: Final[list[type[Bench]]] = [
    cast("type[Bench]", types.new_class(f"Bench{number}", (Bench,), {"name": f"bench{number}"})) for number in range(1, STEPS + 1)
]


def bench_class(place: int) -> type[Bench]:
    """The participant at that place, from 0. There are as many as steps."""
    return _CLASSES[place]


def bench_saga(*, participants: int = 1, mapped: bool = False, is_patient: bool = False, steps: int = STEPS) -> Saga[Mixin]:
    """Steps one after the other, three unless said otherwise, spread over the participants; called with the whole input of the saga or, if
    there are three, with what an expression makes."""
    if steps < STEPS or (mapped and steps != STEPS):
        raise SystemExit(f"expected at least {STEPS} steps, and no more where expressions make their inputs (--mapped), found {steps}")
    told = ["bench", str(participants), *(["mapped"] if mapped else []), *(["patient"] if is_patient else [])]
    saga = Saga("-".join([*told, *([str(steps)] if steps != STEPS else [])]), input=Mixin, defaults=PATIENT if is_patient else None)
    for place in range(steps):
        owner = bench_class(place % participants)
        action = (owner.one, owner.two, owner.three)[place % STEPS]
        saga.step(action, MAPPINGS[place] if mapped else saga.input, id=action.name if place < STEPS else f"{action.name}_{place}")
    return saga


async def main(given: argparse.Namespace) -> None:
    flush = configure_otlp(given.name)
    effect = await EFFECTS[given.barrier](given.database)
    participant = next(each for each in _CLASSES if each.participant_name == given.name)(barrier=effect.barrier)
    participant.effect = effect if effect.writes else None
    if given.held:
        gate = asyncio.Event()
        participant.may_answer = gate.wait
        asyncio.get_running_loop().add_signal_handler(LETTING_GO, _let_go, gate)
    end_when_asked(given.books, flush)
    how = serve if given.calls == "exchange" else serve_one_by_one
    await how(participant, coordinator=given.coordinator, address=given.address)


def _let_go(gate: asyncio.Event) -> None:
    CALLED_AT.clear()
    gate.set()


def end_when_asked(books: Path, flush: Callable[[], None]) -> None:
    """On ASKING the process writes what it knows and ends at once."""

    def end(*_: object) -> None:
        flush()
        notes = {"refused_at": REFUSED_AT, "called_at": CALLED_AT}
        books.with_suffix(".notes").write_text(json.dumps(notes))
        BOOKS.write(books)
        os._exit(0)

    signal.signal(ASKING, end)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--coordinator", required=True)
    parser.add_argument("--address", required=True)
    parser.add_argument("--name", default="bench1", help="of the participant (default %(default)s)")
    parser.add_argument("--calls", choices=["exchange", "unary"], default="exchange", help="(default %(default)s)")
    parser.add_argument("--barrier", choices=list(EFFECTS), default="none", help="(default %(default)s)")
    parser.add_argument("--database", type=Path, default=Path("participant.db"), help="SQLite file, where one is needed")
    parser.add_argument("--books", type=Path, required=True, help="file that is written at the end")
    parser.add_argument("--held", action="store_true", help="answers nothing until SIGUSR2")
    asyncio.run(main(parser.parse_args()))
