"""No definition can stop a node: what is refused when it is registered, and what is not begun when it is evaluated.

Times are of the processor and generous: without the bounds they would be minutes, or the memory would be gone.
"""

import time
from collections.abc import Callable

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import Message

from participant_sdk.definitions.expression_tree import NODES_MAX
from participant_sdk.definitions.expressions import BOOL, EXPRESSION_CHARS_MAX, LOOPS_NESTED_MAX, EvaluationError
from participant_sdk.definitions.flow import EXPRESSIONS_CHARS_MAX
from participant_sdk.definitions.graph import STEPS_MAX
from participant_sdk.definitions.message_types import MessageTypes
from participant_sdk.definitions.patterns import WEIGHT_MAX, weight_of
from participant_sdk.definitions.problems import Problem
from participant_sdk.definitions.rules import find_problems
from saga.v1 import saga_pb2
from tests.unit.definitions.plain_expressions import compiled, mistakes_in, values_of
from tests.unit.definitions.travel_messages import made, travel_types

SECONDS_MAX = 1.0
"""One evaluation or compilation, on a machine that does other things too."""


def seconds_of(call: Callable[[], object]) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


def nested(depth: int) -> str:
    return "true" if not depth else f"input.legs.all(l{depth}, {nested(depth - 1)})"


# ── Refused when it is registered ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("'" + "x" * EXPRESSION_CHARS_MAX + "'", f"expected at most {EXPRESSION_CHARS_MAX} characters, found {EXPRESSION_CHARS_MAX + 2}"),
        (f"size([{','.join(['1'] * NODES_MAX)}]) > 0", f"more than {NODES_MAX} names, literals and operators"),
        (nested(LOOPS_NESTED_MAX + 1), "loops (map, filter, all, exists) within each other, found 4"),
        ("[" * 60 + "]" * 60, "nested too deep"),
        ("!" * 3_000 + "true && 1", "&& takes bools"),
        ("input.name.matches('.{1000}')", "becomes too large"),
        (r"input.name.matches('(?i)\\pL{30}')", "becomes too large"),
        (r"input.name.matches('\\Qa')", "becomes too large"),
        (f"input.name.matches('{'a' * 600}')", "expected a pattern of at most 500 characters, found 600"),
        (
            "[1,2,3,4,5,6,7,8,9].all(a, input.tags.all(b, input.tags.all(c, input.name.matches('.{150}'))))",
            "too much work, even for a small",
        ),
    ],
)
def test_expression_that_is_too_large_is_refused_soon(text: str, told: str) -> None:
    found: list[str] = []
    assert seconds_of(lambda: found.extend(mistakes_in(text))) < SECONDS_MAX
    assert told in found[0]


def test_types_that_double_with_each_loop_are_refused_before_they_are_made() -> None:
    text = "1"
    for depth in range(12, 0, -1):
        text = f"[{{v{depth - 1}: v{depth - 1}}}].map(v{depth}, {text})"
    assert seconds_of(lambda: mistakes_in(text.replace("v0", "1"))) < SECONDS_MAX
    assert "within each other" in mistakes_in(text.replace("v0", "1"))[0] or "too deep" in mistakes_in(text.replace("v0", "1"))[0]


@pytest.mark.parametrize(
    "text",
    [
        nested(LOOPS_NESTED_MAX),
        "input.legs.filter(l, l.cents > 1).map(l, l.to).exists(t, t == input.name)",
        " && ".join(["[1].exists(a,a>0)"] * 4),
        " || ".join(["input.legs.exists(l, l.seats.exists(s, s == '1A'))"] * 25),
        "input.legs" + ".filter(l, l.cents > 1)" * 12 + " == []",
    ],
)
def test_loops_that_people_write_are_accepted(text: str) -> None:
    assert mistakes_in(text, BOOL) == []


@pytest.mark.parametrize(
    ("pattern", "weight"),
    [
        ("", 0),
        ("abc", 3),
        ("^[a-z]+$", 4),
        ("[0-9]{3}", 3),
        ("(ab){10}", 30),
        ("(a{10}b){10}", 120),
        (".*", 11),
        ("[^a]{5}", 50),
        ("a{2,}", 2),
    ],
)
def test_pattern_weighs_about_what_it_becomes(pattern: str, weight: float) -> None:
    assert weight_of(pattern) == weight


@pytest.mark.parametrize("pattern", [r"\p{L}{2}", "(((.{100}){10}))", "a{999999999999}", r"\Qa\E", "((a{99}){99})"])
def test_pattern_that_becomes_too_large_is_too_heavy(pattern: str) -> None:
    assert weight_of(pattern) > WEIGHT_MAX


def definition(*inputs: str) -> saga_pb2.SagaDefinition:
    made_ = saga_pb2.SagaDefinition(name="book", version=1, input_type="travel.v1.Trip")
    for index, text in enumerate(inputs):
        types = {"input_type": "travel.v1.Trip", "output_type": "travel.v1.Booked"}
        made_.steps.add(id=f"s{index}", action="hotels.book", input=text, **types)
    return made_


def test_expressions_of_a_definition_are_bounded_together() -> None:
    large = f"Trip{{name: '{'x' * 3_900}'}}"
    problems = find_problems(definition(*[large] * 40), travel_types())
    assert [problem.field for problem in problems] == [f"definition.steps[{EXPRESSIONS_CHARS_MAX // len(large)}].input"]
    assert "in all expressions together" in problems[0].description


@pytest.mark.parametrize("text", ["Trip{codes: [" + ",".join(["1"] * 85) + "]}", "Trip{codes: [" + ",".join(["x"] * 85) + "]}"])
def test_largest_definition_is_judged_soon(text: str) -> None:
    assert seconds_of(lambda: find_problems(definition(*[text] * STEPS_MAX), travel_types())) < 5 * SECONDS_MAX


# ── Not begun when it is evaluated ───────────────────────────────────────────────────────────────────────────────────────────────


def legs(count: int, **fields: object) -> Message:
    return made("Trip", legs=[made("Leg")] * count, **fields)


@pytest.mark.parametrize(
    ("text", "trip"),
    [
        ("Trip{legs: input.legs.map(l, l)}", legs(9_000)),
        ("Trip{legs: input.legs.filter(l, l.cents == 0)}", legs(9_000)),
        ("size(input.legs.map(l, Trip{legs: input.legs})) > 1", legs(3_000)),
        ("size(input.legs.map(l, Trip{name: input.name})) > 1", legs(1_000, name="x" * 500_000)),
        ("size(input.legs.map(l, input.legs + input.legs)) > 1", legs(3_000)),
        ("input.legs.all(l, input.name.contains(input.card))", legs(10, name="x" * 500_000, card="x" * 250_000 + "y")),
        ("input.name.contains(input.card)", made("Trip", name="x" * 500_000, card="x" * 250_000 + "y")),
        ("input.legs.all(l, size(input.name) > 0)", legs(5_000, name="ä" * 250_000)),
        ("input.legs.all(l, input.name.matches('(a?){60}a{60}b'))", legs(5_000, name="a" * 50_000)),
        ("input.tags.all(t, t in input.tags)", made("Trip", tags=[str(number) for number in range(9_000)])),
        ("[input.legs].map(a, a + a).map(b, b + b).map(c, c + c).map(d, d + d) == []", legs(100_000)),
        ("Trip{legs: input.legs}", legs(300_000)),
        ("input == Trip{prices: input.prices}", made("Trip", prices={str(number): 1 for number in range(60_000)})),
        ("Trip{extra: input.extra} == input", None),
    ],
)
def test_worst_input_is_refused_or_evaluated_soon(text: str, trip: Message | None) -> None:
    if trip is None:
        trip = made("Trip")
        trip.extra.update({"list": list(range(80_000))})  # type: ignore[attr-defined]
    program, values = compiled(text), values_of(trip)

    def evaluate() -> None:
        try:
            program.decide(values) if program.result == BOOL else program.evaluate(values)
        except EvaluationError as error:
            assert "too much work" in str(error)  # noqa: PT017 - it may also succeed

    assert seconds_of(evaluate) < SECONDS_MAX


@pytest.mark.parametrize(
    "text",
    [
        "Trip{legs: input.legs.map(l, Leg{to: l.to, cents: l.cents + 1})}",
        "Trip{legs: input.legs.filter(l, l.to != input.name)}",
        "Trip{tags: input.legs.map(l, input.name + l.to), people: size(input.legs)}",
        "Trip{gift: input.legs.exists(l, l.to != input.name)}",
        "Trip{codes: input.tags.map(t, input.prices[t])}",
    ],
)
def test_input_as_people_have_it_is_evaluated(text: str) -> None:
    prices = {str(number): number for number in range(500)}
    trip = made("Trip", name="Rome", tags=list(prices), prices=prices, scan=b"x" * 500_000)
    trip.legs.extend([made("Leg", to="C" * 30, cents=5)] * 500)  # type: ignore[attr-defined]
    assert compiled(text, "travel.v1.Trip").evaluate(values_of(trip)) != b""


def test_loops_that_turn_too_often_are_told() -> None:
    with pytest.raises(EvaluationError, match="its loops take more than 10,000 turns"):
        compiled("input.codes.all(c, c == 1)", BOOL).decide(values_of(made("Trip", codes=[1] * 10_001)))


# ── Very many message types ──────────────────────────────────────────────────────────────────────────────────────────────────────


def large_types(*packages: str) -> MessageTypes:
    """Packages of 5,000 messages each."""
    files = [FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3") for package in packages]
    for file in files:
        for number in range(5_000):
            message = file.message_type.add(name=f"M{number}")
            for place in range(1, 7):
                message.field.add(name=f"field_{place}", number=place, type=9, label=1)
    return MessageTypes(FileDescriptorSet(file=files))


@pytest.mark.full
def test_descriptors_are_not_read_again_without_end() -> None:
    packages = [f"p{number}" for number in range(8)]
    types = large_types(*packages)
    steps = [
        {"id": package, "action": "a.b", "input_type": f"{package}.M1", "output_type": "p0.M1", "input": "M1{}"} for package in packages
    ]
    made_ = saga_pb2.SagaDefinition(name="large", version=1, input_type="p0.M1", steps=steps)  # type: ignore[arg-type]
    problems: list[Problem] = []
    assert seconds_of(lambda: problems.extend(find_problems(made_, types))) < 10 * SECONDS_MAX
    assert "packages, for so many message types" in problems[0].description


@pytest.mark.full
def test_suggestions_among_very_many_names_come_soon() -> None:
    steps = [
        {"id": f"s{index}", "action": "a.b", "input_type": "p.M1", "output_type": "p.M1", "input": "N1{}", "when": "N2{} == N3{}"}
        for index in range(60)
    ]
    made_ = saga_pb2.SagaDefinition(name="large", version=1, input_type="p.M1", steps=steps)  # type: ignore[arg-type]
    types = large_types("p")
    assert seconds_of(lambda: find_problems(made_, types)) < 5 * SECONDS_MAX
