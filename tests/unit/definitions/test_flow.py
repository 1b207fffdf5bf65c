"""What an expression may read where it stands in a definition."""

import subprocess
import sys

import pytest

from participant_sdk.definitions.flow import Copy, Flow, check_flow
from participant_sdk.definitions.graph import ancestors_of
from participant_sdk.definitions.rules import find_problems, judge_definition
from saga.v1 import saga_pb2
from tests.processes import python_environment
from tests.unit.definitions.travel_messages import travel_types

TRIP, BOOKED, LEG = "travel.v1.Trip", "travel.v1.Booked", "travel.v1.Leg"


def step(step_id: str, *, after: list[str] | None = None, **fields: object) -> saga_pb2.StepDefinition:
    plain = {"action": "hotels.book", "input_type": TRIP, "output_type": BOOKED}
    made = saga_pb2.StepDefinition(id=step_id, **{**plain, **fields})  # type: ignore[arg-type]
    if after is not None:
        made.after.CopyFrom(saga_pb2.StepOrder(step_ids=after))
    return made


def definition(*steps: saga_pb2.StepDefinition, **fields: object) -> saga_pb2.SagaDefinition:
    plain = {"name": "book-trip", "version": 1, "input_type": TRIP, "steps": steps or (step("hotel"),)}
    return saga_pb2.SagaDefinition(**{**plain, **fields})  # type: ignore[arg-type]


def hook(text: str) -> saga_pb2.HookDefinition:
    return saga_pb2.HookDefinition(action="mail.send", input=text, input_type=TRIP, output_type=BOOKED)


def problems_of(made: saga_pb2.SagaDefinition) -> dict[str, str]:
    """The first lines, by field."""
    return {problem.field: problem.description.split("\n")[0] for problem in find_problems(made, travel_types())}


def flow_of(made: saga_pb2.SagaDefinition) -> Flow:
    judgement = judge_definition(made, travel_types())
    assert judgement.problems == ()
    assert judgement.flow is not None
    return judgement.flow


# ── Steps ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("text", ["Trip{name: a.code}", "Trip{name: b.code, gift: ran.a}", "Trip{gift: has(a.code)}"])
def test_step_reads_what_comes_before_it_directly_or_not(text: str) -> None:
    assert problems_of(definition(step("a"), step("b"), step("c", input=text, when="ran.b && a.cents > 5"))) == {}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Trip{name: b.code}", '"b" is not there yet: it does not come before "c"; add "b" to its `after`; there is: a, input'),
        ("Trip{gift: ran.b}", '"b" is not there yet'),
        ("Trip{name: c.code}", '"c" is this step itself'),
        ("Trip{name: d.code}", '"d" comes after "c", so it is not there yet; there is: a, input'),
        ("b", '"b" is not there yet'),
        ("Trip{name: x.code}", 'there is no variable "x" here; there is: a, input, ran'),
        ("Trip{gift: ran.x}", '"ran.x" asks for a step "x"'),
        ("x", 'there is no variable "x" here'),
        ("input.name", "expected a travel.v1.Trip, because hotels.book takes it; the expression is a string"),
        ("a", '"a" is a travel.v1.Booked'),
        ("output.name", 'there is no variable "output" here: only on_success has'),
        ("error.message", 'there is no variable "error" here: only on_failure has'),
    ],
)
def test_step_reads_nothing_else(text: str, told: str) -> None:
    made = definition(step("a", after=[]), step("b", after=[]), step("c", after=["a"], input=text), step("d", after=["c"]))
    (problem,) = problems_of(made).items()
    assert problem[0] == "definition.steps[2].input"
    assert told in problem[1]


def test_only_what_can_be_read_is_offered() -> None:
    later = step("charge", after=["hotel"])
    made = definition(step("hotel", after=[]), step("ask", after=["hotel"], when="ran.charg", input="Trip{name: charg.code}"), later)
    problems = problems_of(made)
    assert '"ran.charg" asks for a step "charg" that does not come before this; there is: hotel (' in problems["definition.steps[1].when"]
    told = 'there is no variable "charg" here, and step "charge" does not come before this; there is: hotel, input, ran ('
    assert told in problems["definition.steps[1].input"]


def test_variable_of_a_loop_is_no_step() -> None:
    made = definition(step("person", after=[], input="Trip{tags: input.tags.map(tag, tag)}"), step("tag", after=["person"]))
    assert problems_of(made) == {}


def test_place_of_what_is_not_there_yet_is_marked() -> None:
    made = definition(step("a", after=[]), step("b", after=[], input="Trip{name: input.name +\n  a.code}"))
    (problem,) = find_problems(made, travel_types())
    assert problem.description.endswith("(line 2, column 3)\n      a.code}\n      ^")


def test_condition_must_be_a_bool() -> None:
    made = definition(step("a"), step("b", when="a.cents"), step("c", when="input"), step("d", when="true"))
    assert problems_of(made) == {
        "definition.steps[1].when": "expected a bool, because it says whether the step is executed; the expression is an int, in: a.cents",
        "definition.steps[2].when": 'expected a bool, because it says whether the step is executed; "input" is a travel.v1.Trip',
    }


def test_package_of_the_input_type_need_not_be_written() -> None:
    strict = step("a", input="Strict{code: input.name}", input_type="old.v1.Strict")
    other = step("b", input="Booked{}", input_type="old.v1.Strict", when="input.class == Class.FIRST")
    problems = problems_of(definition(strict, other))
    assert list(problems) == ["definition.steps[1].input", "definition.steps[1].when"]
    told = 'there is no message "Booked" in package old.v1; did you mean "travel.v1.Booked"? there is: Strict, travel.v1.'
    assert told in problems["definition.steps[1].input"]


def test_bare_names_are_copies_and_all_else_is_evaluated() -> None:
    flow = flow_of(definition(step("a"), step("b", input="a", input_type=BOOKED), step("c", input=" input "), step("d", input="")))
    assert flow.inputs[:2] == (Copy(name="input"), Copy(name="a"))
    assert not isinstance(flow.inputs[2], Copy)
    assert flow.inputs[3] == Copy(name="input")


# ── The output of the saga, and hooks ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("fields", "output_type"),
    [
        ({}, ""),
        ({"output": "input"}, TRIP),
        ({"output": "a"}, BOOKED),
        ({"output": "Booked{code: a.code + b.code}"}, BOOKED),
        ({"output": "Booked{}", "output_type": BOOKED}, BOOKED),
        ({"output": "Strict{code: a.code}", "output_type": "old.v1.Strict"}, "old.v1.Strict"),
        ({"output": "input.begin"}, "google.protobuf.Timestamp"),
        ({"output": "input.name", "output_type": "google.protobuf.StringValue"}, "google.protobuf.StringValue"),
    ],
)
def test_output_reads_all_steps_and_has_a_type(fields: dict[str, str], output_type: str) -> None:
    assert flow_of(definition(step("a", after=[]), step("b", after=[]), **fields)).output_type == output_type


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"output": "a", "output_type": TRIP}, 'expected a travel.v1.Trip, because the saga returns it; "a" is a travel.v1.Booked'),
        ({"output": "Booked{}", "output_type": TRIP}, "expected a travel.v1.Trip, because the saga returns it"),
        ({"output": "a.code"}, "expected a message, because the saga returns it; the expression is a string"),
        ({"output": "b.code"}, 'there is no variable "b" here; there is: a, input, ran'),
    ],
)
def test_wrong_output_is_told(fields: dict[str, str], told: str) -> None:
    assert told in problems_of(definition(step("a"), **fields))["definition.output"]


def test_hooks_read_all_steps_and_how_it_ended() -> None:
    made = definition(
        step("a", after=[]),
        step("b", after=[]),
        output="a",
        on_success=hook("Trip{name: output.code + a.code + b.code, gift: ran.b}"),
        on_failure=hook("Trip{name: error.message, people: error.code, tags: error.details.map(d, a.code)}"),
    )
    flow = flow_of(made)
    assert flow.on_success is not None
    assert flow.on_failure is not None


def test_hook_takes_the_input_of_the_saga_by_default() -> None:
    assert flow_of(definition(on_failure=hook(""))).on_failure == Copy(name="input")


@pytest.mark.parametrize(
    ("fields", "field", "told"),
    [
        ({"on_success": hook("Trip{name: error.message}")}, "definition.on_success.input", 'no variable "error" here: only on_failure'),
        ({"on_success": hook("Trip{name: output.code}")}, "definition.on_success.input", "if it returns something"),
        ({"on_failure": hook("Trip{name: output.code}"), "output": "a"}, "definition.on_failure.input", 'no variable "output" here'),
        ({"on_failure": hook("error")}, "definition.on_failure.input", '"error" is a google.rpc.Status'),
        ({"on_success": hook("output"), "output": "a"}, "definition.on_success.input", '"output" is a travel.v1.Booked'),
        ({"on_success": hook("Trip{name: output.cod}"), "output": "a"}, "definition.on_success.input", 'no field "cod"'),
    ],
)
def test_wrong_hook_is_told(fields: dict[str, object], field: str, told: str) -> None:
    problems = problems_of(definition(step("a"), **fields))
    assert list(problems) == [field]
    assert told in problems[field]


# ── Everything at once ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_expression_is_told_at_once() -> None:
    made = definition(
        step("a", input="Trip{nam: ''}", when="input.peple > 1"),
        step("b", input="Booked{}"),
        output="Booked{code: a.cod}",
        on_success=hook("Trip{name: 1}"),
        on_failure=hook("Trip{name: error.text}"),
    )
    assert list(problems_of(made)) == [
        "definition.steps[0].input",
        "definition.steps[1].input",
        "definition.steps[0].when",
        "definition.output",
        "definition.on_success.input",
        "definition.on_failure.input",
    ]


def test_expressions_are_checked_even_if_the_order_is_wrong() -> None:
    made = definition(step("a", after=["b"], input="Trip{name: b.cod}"), step("b", after=["a"], input="Trip{name: a.code}"))
    problems = problems_of(made)
    assert list(problems) == ["definition.steps", "definition.steps[0].input"]
    assert 'no field "cod"' in problems["definition.steps[0].input"]


def test_type_that_is_missing_is_told_once_and_not_where_it_is_used() -> None:
    made = definition(step("a", output_type="travel.v1.Missing"), step("b", input="Trip{name: a.code}"), step("c", input="a"), output="a")
    assert list(problems_of(made)) == ["definition.steps[0].output_type"]


def test_flow_alone_can_be_checked() -> None:
    made = definition(step("a"), step("b"))
    flow, problems = check_flow(made, travel_types(), ancestors_of(made))
    assert problems == []
    assert len(flow.inputs) == 2


# ── Without the library ──────────────────────────────────────────────────────────────────────────────────────────────────────────

WITHOUT_LIBRARY = """
import sys
from importlib.machinery import PathFinder
class WithoutLibrary:
    def find_spec(self, name, path=None, target=None):
        return None if name.startswith("cel_expr_python") else PathFinder.find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = WithoutLibrary()
from participant_sdk.definitions import can_check_expressions, find_problems
from tests.unit.definitions.test_flow import definition, step, travel_types, BOOKED
made = definition(step("a", input="Nonsense{"), step("b", input="c", after=[]), step("c", input="a", when="1", input_type=BOOKED))
print(can_check_expressions(), [problem.field for problem in find_problems(made, travel_types())])
"""


def test_without_the_library_names_are_checked_and_expressions_are_left_to_the_coordinator() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_LIBRARY], env=python_environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.stdout.strip() == "False ['definition.steps[1].input', 'definition.steps[2].input']", ran.stderr
