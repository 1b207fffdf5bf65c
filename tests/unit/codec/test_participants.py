"""Where a definition and what participants say of themselves do not fit together (R9)."""

import pytest

from coordinator.codec.participants import Descriptions, find_mismatches, find_type_mismatch
from participant_sdk.definitions.problems import Problem
from saga.v1 import participant_pb2, saga_pb2

ORDER, DONE = "shop.v1.PlaceOrder", "shop.v1.Done"


def described(*, compensatable: bool = True) -> Descriptions:
    actions = [
        participant_pb2.ActionDescription(name="reserve", input_type=ORDER, output_type=DONE, compensatable=compensatable),
        participant_pb2.ActionDescription(name="count", input_type=ORDER, output_type=DONE),
    ]
    return {"inventory": participant_pb2.ParticipantDescription(name="inventory", actions=actions)}


def definition(action: str = "inventory.reserve", **fields: object) -> saga_pb2.SagaDefinition:
    step = saga_pb2.StepDefinition(**{"id": "a", "action": action, "input_type": ORDER, "output_type": DONE, **fields})  # type: ignore[arg-type]
    return saga_pb2.SagaDefinition(steps=[step])


def mismatches(made: saga_pb2.SagaDefinition, descriptions: Descriptions) -> list[Problem]:
    return list(find_mismatches(made, descriptions))


def test_step_as_the_participant_describes_it_fits() -> None:
    assert mismatches(definition(), described()) == []


@pytest.mark.parametrize("descriptions", [{}, {"inventory": None}])
def test_participant_that_cannot_be_asked_refuses_nothing(descriptions: Descriptions) -> None:
    assert mismatches(definition("inventory.anything", input_type="other.v1.Type"), descriptions) == []


def test_action_that_is_not_there_is_told_with_those_that_are() -> None:
    (problem,) = mismatches(definition("inventory.ship"), described())
    assert problem == Problem("definition.steps[0].action", "participant 'inventory' has no action 'ship'; it has: count, reserve")


def test_other_types_are_told() -> None:
    found = mismatches(definition(input_type="other.v1.In", output_type="other.v1.Out"), described())
    assert found == [
        Problem("definition.steps[0].input_type", "inventory.reserve takes a shop.v1.PlaceOrder, found other.v1.In"),
        Problem("definition.steps[0].output_type", "inventory.reserve returns a shop.v1.Done, found other.v1.Out"),
    ]


@pytest.mark.parametrize("kind", [saga_pb2.STEP_KIND_UNSPECIFIED, saga_pb2.STEP_KIND_COMPENSATABLE])
def test_compensatable_step_needs_an_action_with_a_compensation(kind: saga_pb2.StepKind.ValueType) -> None:  # R9
    (problem,) = mismatches(definition(kind=kind), described(compensatable=False))
    assert problem.field == "definition.steps[0].kind"
    assert "has no compensation" in problem.description


@pytest.mark.parametrize("kind", [saga_pb2.STEP_KIND_READ_ONLY, saga_pb2.STEP_KIND_PIVOT, saga_pb2.STEP_KIND_RETRIABLE])
def test_step_that_is_never_undone_needs_none(kind: saga_pb2.StepKind.ValueType) -> None:  # R9
    assert mismatches(definition("inventory.count", kind=kind), described()) == []


def test_best_effort_step_needs_one_unless_it_says_otherwise() -> None:  # R9, R12
    best_effort = saga_pb2.STEP_KIND_BEST_EFFORT
    (problem,) = mismatches(definition("inventory.count", kind=best_effort), described())
    assert problem.field == "definition.steps[0].kind"
    assert "say without_compensation if what it did may stay" in problem.description
    assert mismatches(definition("inventory.count", kind=best_effort, without_compensation=True), described()) == []
    assert mismatches(definition(kind=best_effort, without_compensation=True), described()) == []


@pytest.mark.parametrize("name", ["on_success", "on_failure"])
def test_hook_is_looked_at_and_needs_no_compensation(name: str) -> None:  # R16
    fitting = saga_pb2.HookDefinition(action="inventory.count", input_type=ORDER, output_type=DONE)
    assert mismatches(saga_pb2.SagaDefinition(**{name: fitting}), described()) == []  # type: ignore[arg-type]
    wrong = saga_pb2.HookDefinition(action="inventory.count", input_type="other.v1.In", output_type=DONE)
    (problem,) = mismatches(saga_pb2.SagaDefinition(**{name: wrong}), described())  # type: ignore[arg-type]
    assert problem == Problem(f"definition.{name}.input_type", "inventory.count takes a shop.v1.PlaceOrder, found other.v1.In")
    missing = saga_pb2.HookDefinition(action="inventory.mail", input_type=ORDER, output_type=DONE)
    (problem,) = mismatches(saga_pb2.SagaDefinition(**{name: missing}), described())  # type: ignore[arg-type]
    assert problem.field == f"definition.{name}.action"


@pytest.mark.parametrize(
    ("action", "input_type", "output_type", "told"),
    [
        ("inventory.reserve", ORDER, DONE, ""),
        ("inventory.reserve", "a.B", DONE, "inventory.reserve takes a shop.v1.PlaceOrder, the definition says a.B"),
        ("inventory.reserve", ORDER, "a.B", "inventory.reserve returns a shop.v1.Done, the definition says a.B"),
        (
            *("inventory.reserve", "a.B", "a.C"),
            "inventory.reserve takes a shop.v1.PlaceOrder, the definition says a.B; "
            "inventory.reserve returns a shop.v1.Done, the definition says a.C",
        ),
        ("inventory.unknown", "a.B", "a.C", ""),
    ],
)
def test_types_are_compared_before_a_call(action: str, input_type: str, output_type: str, told: str) -> None:
    description = described()["inventory"]
    assert description is not None
    assert find_type_mismatch(action, input_type, output_type, description) == told


def test_every_step_is_looked_at() -> None:
    made = definition("inventory.ship")
    made.steps.append(definition("inventory.fly").steps[0])
    assert [problem.field for problem in mismatches(made, described())] == ["definition.steps[0].action", "definition.steps[1].action"]
