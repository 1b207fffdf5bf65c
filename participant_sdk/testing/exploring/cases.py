"""Which worlds there are: what a saga does when nothing goes wrong, and everything that can go wrong with that."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

from participant_sdk.testing.faults import CallFault, CommitFault, Fault, Mishap, Moment, Refusal, describe_faults, parse_faults
from participant_sdk.testing.plans import Definition
from saga.v1 import saga_pb2

_CAN_BE_REFUSED: Final = frozenset(
    {
        saga_pb2.STEP_KIND_UNSPECIFIED,
        saga_pb2.STEP_KIND_COMPENSATABLE,
        saga_pb2.STEP_KIND_READ_ONLY,
        saga_pb2.STEP_KIND_PIVOT,
        saga_pb2.STEP_KIND_BEST_EFFORT,
    }
)
"""A RETRIABLE step must succeed in the end: refusing it is an incident by intent (R11), and tells nothing."""


@dataclass(frozen=True, slots=True)
class Case:
    """One world: which of the inputs the saga starts with, and what goes wrong."""

    input: int
    faults: tuple[Fault, ...] = ()

    def __str__(self) -> str:
        wrong = describe_faults(self.faults) or "nothing goes wrong"
        return f"input {self.input + 1}; {wrong}" if self.input else wrong


@dataclass(frozen=True, slots=True)
class Seen:
    """What a course offers for things to go wrong with."""

    calls: Sequence[CallFault]
    """Every call that left the coordinator; their mishap does not count."""
    commits: int


def parse_case(text: str) -> Case:
    """What `str(case)` wrote. Raises ValueError with what was expected."""
    first, _, rest = text.partition(";")
    number = first.strip().removeprefix("input ")
    if first.strip().startswith("input ") and number.isdigit():
        return Case(int(number) - 1, _faults_of(rest))
    return Case(0, _faults_of(text))


def _faults_of(text: str) -> tuple[Fault, ...]:
    return () if text.strip() == "nothing goes wrong" else parse_faults(text)


def courses_of(definition: Definition, inputs: int) -> Iterator[Case]:
    """Ways that a saga can take without any fault: each input, and for each input every step refused that may be."""
    for number in range(inputs):
        yield Case(number)
    for number in range(inputs):
        yield from (Case(number, (Refusal(step.id),)) for step in definition.message.steps if step.kind in _CAN_BE_REFUSED)


def cases_of(course: Case, seen: Seen, *, faults: int) -> Iterator[Case]:
    """The course with so many faults in every combination."""
    for chosen in combinations(tuple(_single_faults(seen)), faults):
        if _is_possible(chosen):
            yield Case(course.input, (*course.faults, *chosen))


def _single_faults(seen: Seen) -> Iterator[Fault]:
    for call in seen.calls:
        yield from (CallFault(call.step_id, call.is_undo, call.attempt, mishap) for mishap in Mishap)
    for number in range(1, seen.commits + 1):
        yield CommitFault(number, Moment.DIES_BEFORE)
        yield CommitFault(number, Moment.DIES_AFTER)
        if number < seen.commits:  # with the last one it has ended
            yield CommitFault(number, Moment.CANCEL)


def _is_possible(faults: Iterable[Fault]) -> bool:
    """Only one thing happens to one attempt, and at one commit."""
    places = [
        (fault.step_id, fault.is_undo, fault.attempt) if isinstance(fault, CallFault) else fault.number
        for fault in faults
        if not isinstance(fault, Refusal)
    ]
    return len(set(places)) == len(places)
