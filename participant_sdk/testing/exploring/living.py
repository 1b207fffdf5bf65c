"""Living through one world of an exploration, and judging it."""

import inspect
import logging
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeAlias

from participant_sdk.payloads import Payload
from participant_sdk.testing.errors import SagaStandstillError
from participant_sdk.testing.exploring.cases import Case, Seen
from participant_sdk.testing.exploring.promises import broken_promises
from participant_sdk.testing.faults import LATE_S, Fault
from participant_sdk.testing.kit import SagaKit
from participant_sdk.testing.plans import Definition
from participant_sdk.testing.saga_run import SagaRun
from participant_sdk.testing.scenario import live_through
from participant_sdk.testing.serving import Part
from participant_sdk.testing.virtual_time import StandstillError

Invariant: TypeAlias = Callable[[SagaRun], Awaitable[None] | None]
"""Raises AssertionError, or anything else, if something is not as it must be at the end of a saga."""

_AFTERWARDS: Final = timedelta(seconds=LATE_S + 30.0)
"""How long a world goes on after its saga, for what arrives late."""
_HEARD: Final = ("coordinator", "participant_sdk")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is explored."""

    definition: Definition
    inputs: Sequence[Payload]
    parts: tuple[Part, ...]
    invariant: Invariant | None
    may_need_person: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """What became of one world."""

    case: Case
    broken: tuple[str, ...]
    """Promises, in plain words."""
    story: str
    """Told only if a promise was broken."""
    length: int
    """Events and calls, to find the smallest story."""
    seen: Seen
    never_happened: tuple[Fault, ...]
    """Faults that found no opportunity: such a world is like one without them."""


def live_case(subject: Subject, case: Case) -> Life:
    """Lives through a world to its end."""
    before = random.getstate()
    random.seed(0)  # what a client waits between two tries
    try:
        with _quiet() as unforeseen:
            return live_through(_live(subject, case, unforeseen))
    finally:
        random.setstate(before)


async def _live(subject: Subject, case: Case, unforeseen: list[str]) -> Life:
    async with SagaKit(*subject.parts, faults=case.faults) as kit:
        handle = await kit.start(subject.definition, subject.inputs[case.input])
        broken: list[str] = []
        try:
            await kit.wait(handle)
            await kit.advance(_AFTERWARDS)
        except (SagaStandstillError, StandstillError) as error:
            broken.append(f"it ends: {error}")
        run = await kit.look(handle)
        if not broken:
            broken += broken_promises(run, subject.definition, may_need_person=subject.may_need_person)
            broken += await _broken_invariant(subject.invariant, run)
        broken += unforeseen
        return Life(
            case=case,
            broken=tuple(broken),
            story=run.story() if broken else "",
            length=len(run.events) + len(run.calls),
            seen=Seen(tuple(kit.disturbance.left), kit.disturbance.commits),
            never_happened=kit.faults_left,
        )


async def _broken_invariant(invariant: Invariant | None, run: SagaRun) -> list[str]:
    if invariant is None:
        return []
    try:
        told = invariant(run)
        if inspect.isawaitable(told):
            await told
    except Exception as error:  # whatever it raises is what it has to say
        words = str(error) or "it raised, and says no more"
        return [f"your invariant: {words if isinstance(error, AssertionError) else f'{type(error).__name__}: {words}'}"]
    return []


@contextmanager
def _quiet() -> Iterator[list[str]]:
    """Thousands of worlds log nothing; but an error of the coordinator that nobody foresaw is told."""
    unforeseen: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info is not None and record.name.startswith("coordinator"):
                unforeseen.append(f"nothing unforeseen: {record.getMessage()}: {record.exc_info[1]!r}")

    listener = Listener(logging.ERROR)
    heard = [logging.getLogger(name) for name in _HEARD]
    propagated = [logger.propagate for logger in heard]
    for logger in heard:
        logger.addHandler(listener)
        logger.propagate = False
    try:
        yield unforeseen
    finally:
        for logger, was in zip(heard, propagated, strict=True):
            logger.removeHandler(listener)
            logger.propagate = was
