"""Mistakes seeded into the expressions of the travel booking, with what is told of them: read from travel_mistakes.txt.

Each begins with a line `PLACE | RIGHT => WRONG`: what is written there instead of what. The indented lines below are everything that
is told, in full.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from examples.travel.book_trip import book_trip
from participant_sdk.builder import describe_place
from participant_sdk.definitions import MessageTypes, Problem, find_problems
from saga.v1 import saga_pb2

FILE: Final = Path(__file__).with_suffix(".txt")
_HEAD: Final = re.compile(r"(?P<place>[^|]+) \| (?P<right>.+?) =>(?: (?P<wrong>.+))?")
_INDENT: Final = "    "


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """One that somebody makes while writing the definition."""

    place: str
    """In words. Example: "step flight, input"."""
    right: str
    """What stands there."""
    wrong: str
    """What is written instead; empty: it is left out."""
    told: str
    """What the file says is told of it, line by line."""

    def __str__(self) -> str:
        return f"{self.place} | {self.right} => {self.wrong}".rstrip()


def read_mistakes() -> list[Mistake]:
    """All of the file."""
    return [_read(block) for block in re.split(r"\n\n(?=\S)", FILE.read_text().strip())]


def write_mistakes() -> None:
    """Writes the file anew, with what is told now."""
    FILE.write_text("\n\n".join(f"{mistake}\n{told_of(seeded(mistake))}" for mistake in read_mistakes()) + "\n")


def expressions() -> Mapping[str, str]:
    """The path of every expression of the definition, by its place in words."""
    definition = book_trip.definition()
    return {describe_place(definition, path): path for path, _, _ in _expressions(definition)}


def seeded(mistake: Mistake) -> saga_pb2.SagaDefinition:
    """The definition of the example with this mistake in it."""
    definition, wanted = book_trip.definition(), expressions()[mistake.place]
    (found,) = [(part, field) for path, part, field in _expressions(definition) if path == wanted]
    part, field = found
    text = getattr(part, field)
    assert text.count(mistake.right) == 1, f"{mistake.right!r} stands once in {mistake.place}"
    setattr(part, field, text.replace(mistake.right, mistake.wrong))
    return definition


def problems_of(definition: saga_pb2.SagaDefinition) -> list[Problem]:
    """What is found without a server."""
    return list(find_problems(definition, MessageTypes(book_trip.descriptors())))


def told_of(definition: saga_pb2.SagaDefinition) -> str:
    """What is told of a definition, as it stands in the file. Wherever something else is named than in the heading, it is told too."""
    lines = "\n".join(f"{describe_place(definition, field)}: {description}" for field, description in problems_of(definition))
    return "\n".join(f"{_INDENT}{line}".rstrip() for line in lines.splitlines())


def _read(block: str) -> Mistake:
    head, _, told = block.partition("\n")
    found = _HEAD.fullmatch(head)
    assert found is not None, f"expected PLACE | RIGHT => WRONG, found {head!r}"
    return Mistake(place=found["place"], right=found["right"], wrong=found["wrong"] or "", told=told)


_Part = saga_pb2.SagaDefinition | saga_pb2.StepDefinition | saga_pb2.HookDefinition


def _expressions(definition: saga_pb2.SagaDefinition) -> Iterator[tuple[str, _Part, str]]:
    """Path, and the message and the field that hold it."""
    for index, step in enumerate(definition.steps):
        yield f"definition.steps[{index}].input", step, "input"
        if step.when:
            yield f"definition.steps[{index}].when", step, "when"
    yield "definition.output", definition, "output"
    yield "definition.on_success.input", definition.on_success, "input"
    yield "definition.on_failure.input", definition.on_failure, "input"
