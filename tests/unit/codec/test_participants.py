"""Where a definition and what participants say of themselves do not fit together (R9)."""

import pytest

from coordinator.codec.definition_rules import Problem
from coordinator.codec.participants import Descriptions, find_mismatches
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


def test_step_that_only_reads_needs_none() -> None:  # R9
    assert mismatches(definition("inventory.count", kind=saga_pb2.STEP_KIND_READ_ONLY), described()) == []


def test_every_step_is_looked_at() -> None:
    made = definition("inventory.ship")
    made.steps.append(definition("inventory.fly").steps[0])
    assert [problem.field for problem in mismatches(made, described())] == ["definition.steps[0].action", "definition.steps[1].action"]
